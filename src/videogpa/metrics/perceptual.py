"""Perceptual distance between images: LPIPS where it is installed, 1 - MS-SSIM elsewhere.

Which one was used changes the numbers, so `perceptual_name()` belongs into every protocol hash.
"""

from functools import cache

import torch
from jaxtyping import Float
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor, nn
from torch.nn import functional as F

from videogpa.errors import InputError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Per scale, finest first (Wang, Simoncelli, Bovik 2003)."""
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2

Images = Float[Tensor, "t 3 h w"]


def perceptual_name() -> str:
    """`lpips-alex` or `1-ms-ssim`: what `perceptual_distance` computes in this installation."""
    return "1-ms-ssim" if _lpips() is None else "lpips-alex"


def perceptual_distance(a: Images, b: Images) -> Float[Tensor, " t"]:
    """Distance of each pair of images in [0, 1]; 0 = the same."""
    network = _lpips()
    if network is None:
        return 1 - ms_ssim(a, b)
    with torch.no_grad():
        return network(a, b, normalize=True).flatten()


def ms_ssim(a: Images, b: Images) -> Float[Tensor, " t"]:
    """Multi-scale structural similarity of images in [0, 1]; 1 = the same.

    As many of the five scales as leave the shorter side at least one 11-pixel window (five from 176 pixels,
    three at 48), with their weights made to sum to 1; below 11 pixels one scale with a smaller window.

    Source: Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7.
    """
    scales = ms_ssim_scales(*a.shape[-2:])
    weights = a.new_tensor(MS_SSIM_WEIGHTS[:scales])
    weights = weights / weights.sum()
    result = torch.ones_like(a[:, 0, 0, 0])
    for scale, weight in enumerate(weights):
        luminance, structure = ssim_terms(a, b)
        term = structure * luminance if scale == scales - 1 else structure
        result = result * term.mean((1, 2, 3)).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result


def ms_ssim_scales(height: int, width: int) -> int:
    """How many scales `ms_ssim` uses for images of this size."""
    side = min(height, width)
    return max(1, sum(side >> scale >= WINDOW for scale in range(len(MS_SSIM_WEIGHTS))))


def ssim_terms(a: Images, b: Images) -> tuple[Float[Tensor, "t 3 hi wi"], Float[Tensor, "t 3 hi wi"]]:
    """Luminance, and contrast with structure, of images in [0, 1] in every window inside; SSIM is their product.

    Source: Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004; Gaussian window of 11 pixels, or the largest odd
    number that fits.
    """
    # One image at a time stays in the cache.
    terms = [_ssim_terms(*pair) for pair in zip(a.split(1), b.split(1), strict=True)]
    luminance, structure = zip(*terms, strict=True)
    return torch.cat(luminance), torch.cat(structure)


def _ssim_terms(
    a: Float[Tensor, "1 3 h w"], b: Float[Tensor, "1 3 h w"]
) -> tuple[Float[Tensor, "1 3 hi wi"], Float[Tensor, "1 3 hi wi"]]:
    side = min(*a.shape[-2:], WINDOW)
    kernel = get_gaussian_kernel1d(side - (side + 1) % 2, SIGMA, device=a.device, dtype=a.dtype)
    # Channels side by side in memory make a filter that treats every channel alike several times faster.
    a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
    moments = torch.cat([a, b, a * a, b * b, a * b], 1)
    down = kernel.view(1, 1, -1, 1).expand(15, 1, -1, 1)
    means = F.conv2d(F.conv2d(moments, down, groups=15), down.mT, groups=15)
    mean_a, mean_b, aa, bb, ab = means.chunk(5, 1)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    luminance = (2 * product + C1) / (squares + C1)
    return luminance, (2 * (ab - product) + C2) / (aa + bb - squares + C2)


@cache
def _lpips() -> nn.Module | None:
    try:
        import lpips
    except (ImportError, RuntimeError):  # a torchvision built for another torch raises RuntimeError
        return None
    try:
        return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)
    except OSError as error:
        raise InputError(
            f"lpips is installed, but its AlexNet weights cannot be loaded ({error}); "
            "connect once to fetch them or uninstall lpips to use MS-SSIM"
        ) from error
