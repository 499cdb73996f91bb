"""The smallest blur there is."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def slightly_blurred(images: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c h w"]:
    """Every pixel averaged with its neighbours by the weights 1 2 1 in both directions."""
    kernel = images.new_tensor([0.25, 0.5, 0.25])
    weight = torch.outer(kernel, kernel).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weight, groups=images.shape[1])
