"""A linear video autoencoder behind the interface of diffusers' `AutoencoderKLWan`.

The first frame is coded alone, every further pair of frames together; each 4x4 patch becomes `z_dim`
numbers by principal components. There is nothing to train: `fit_linear_autoencoder` solves for it.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKLOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

PixelVideo = Float[Tensor, "b 3 t h w"]
"""Pixels in [-1, 1], as diffusers' video autoencoders take them."""
Codes = Float[Tensor, "b c f h w"]
Patches = Float[Tensor, "b groups rows columns d"]


class LinearVideoAutoencoder(ModelMixin, ConfigMixin):
    """Causal linear code, spatial factor `scale_factor_spatial`, temporal factor `scale_factor_temporal`."""

    @register_to_config
    def __init__(
        self,
        z_dim: int = 32,
        scale_factor_spatial: int = 4,
        scale_factor_temporal: int = 2,
        latents_mean: Sequence[float] = (0.0,) * 32,
        latents_std: Sequence[float] = (1.0,) * 32,
    ):
        super().__init__()
        single = 3 * scale_factor_spatial**2
        group = single * scale_factor_temporal
        for name, size in (("first", single), ("group", group)):
            self.register_parameter(f"{name}_mean", nn.Parameter(torch.zeros(size)))
            self.register_parameter(f"{name}_encoder", nn.Parameter(torch.zeros(z_dim, size)))
            self.register_parameter(f"{name}_decoder", nn.Parameter(torch.zeros(size, z_dim)))

    def encode(self, x: PixelVideo, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Codes as a distribution without spread.

        Raises:
            ValueError: the number of frames is not 1 + a multiple of the temporal factor, or the sides are not
                multiples of the spatial factor.
        """
        factor, side = self.config.scale_factor_temporal, self.config.scale_factor_spatial
        if (x.shape[2] - 1) % factor or x.shape[3] % side or x.shape[4] % side:
            raise ValueError(
                f"cannot encode {x.shape[2]} frames of {x.shape[4]}x{x.shape[3]}: need 1 + a multiple of {factor} "
                f"frames with sides that are multiples of {side}"
            )
        codes = [(_patches(x[:, :, :1], 1, side) - self.first_mean) @ self.first_encoder.T]
        if x.shape[2] > 1:
            codes.append((_patches(x[:, :, 1:], factor, side) - self.group_mean) @ self.group_encoder.T)
        z = torch.cat(codes, 1).permute(0, 4, 1, 2, 3)
        posterior = DiagonalGaussianDistribution(torch.cat([z, torch.zeros_like(z)], 1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Codes, return_dict: bool = True) -> DecoderOutput | tuple:
        """Pixels in [-1, 1]."""
        factor, side = self.config.scale_factor_temporal, self.config.scale_factor_spatial
        codes = z.permute(0, 2, 3, 4, 1)
        frames = [_frames(codes[:, :1] @ self.first_decoder.T + self.first_mean, 1, side)]
        if z.shape[2] > 1:
            frames.append(_frames(codes[:, 1:] @ self.group_decoder.T + self.group_mean, factor, side))
        x = torch.cat(frames, 2).clamp(-1, 1)
        return DecoderOutput(sample=x) if return_dict else (x,)


def fit_linear_autoencoder(
    videos: PixelVideo, *, z_dim: int, side: int = 4, factor: int = 2
) -> LinearVideoAutoencoder:
    """Principal components of patches, with codes scaled to keep half of the contrast between channels.

    Full whitening would give pixel noise the weight of shape; none would leave nothing for the detail. So a
    channel of variance v gets the variance sqrt(v), up to one common factor. The first frame's code is turned
    (orthogonal Procrustes) to agree as well as it can with the code of a group of identical frames.
    """
    first = _patches(videos[:, :, :1], 1, side).flatten(0, -2).double()
    group = _patches(videos[:, :, 1:], factor, side).flatten(0, -2).double()
    group_mean, group_basis, variance = _principal(group, z_dim)
    first_mean, first_basis, _ = _principal(first, z_dim)
    still = group_basis.T.unflatten(1, (factor, -1)).sum(1)
    spread = (first - first_mean).T @ (first - first_mean) / len(first)
    u, _, vh = torch.linalg.svd(still @ spread @ first_basis)
    # A group of identical frames has a code sqrt(factor) times longer than one frame's.
    turned = first_basis @ (u @ vh).T * factor**0.5
    std = variance.sqrt() / (variance**0.25 / (variance**0.5).mean().sqrt())
    model = LinearVideoAutoencoder(
        z_dim=z_dim,
        scale_factor_spatial=side,
        scale_factor_temporal=factor,
        latents_mean=(0.0,) * z_dim,
        latents_std=tuple(std.tolist()),
    )
    with torch.no_grad():
        model.first_mean.copy_(first_mean)
        model.first_encoder.copy_(turned.T)
        model.first_decoder.copy_(turned / factor)
        model.group_mean.copy_(group_mean)
        model.group_encoder.copy_(group_basis.T)
        model.group_decoder.copy_(group_basis)
    return model.requires_grad_(False)


def _principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    return mean, vectors.flip(1)[:, :count], values.flip(0)[:count]


def _patches(x: PixelVideo, group: int, side: int) -> Patches:
    x = x.unflatten(2, (-1, group)).unflatten(4, (-1, side)).unflatten(6, (-1, side))
    return x.permute(0, 2, 4, 6, 3, 1, 5, 7).flatten(4)


def _frames(patches: Patches, group: int, side: int) -> PixelVideo:
    x = patches.unflatten(4, (group, 3, side, side)).permute(0, 5, 1, 4, 2, 6, 3, 7)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)
