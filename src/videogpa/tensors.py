"""Names for the tensors that travel between modules. `docs/conventions.md` states axes, units and ranges."""

from jaxtyping import Bool, Float
from torch import Tensor

Video = Float[Tensor, "t 3 h w"]
"""RGB frames in [0, 1]."""
Depth = Float[Tensor, "t h w"]
"""z-depth along the optical axis; 0 or less means unknown."""
Normals = Float[Tensor, "t 3 h w"]
"""Unit vectors in the camera frame, pointing towards the camera."""
Mask = Bool[Tensor, "t h w"]
Extrinsics = Float[Tensor, "t 3 4"]
"""World to camera [R | t], OpenCV axes (x right, y down, z forward)."""
Intrinsics = Float[Tensor, "t 3 3"]
"""Pixels of the array they come with; pixel centres at integer coordinates."""
Flow = Float[Tensor, "t 2 h w"]
"""Displacement (dx, dy) in pixels."""
Latents = Float[Tensor, "b c f h w"]
"""Diffusion latents, scaled as the transformer wants them."""
PerSample = Float[Tensor, " b"]
