"""Noise that the videos of a prompt have partly in common, so that they differ less, and in less at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode


class SharedNoise(TorchFunctionMode):
    """While entered, what `torch.randn` draws from a generator is √(1 - share) of its own and √share of common noise.

    All generators have the same common noise, decided by `seed` (which none of them may have), in the order in which
    each draws; it stays standard normal, and two of them are correlated by `share`. Diffusers pipelines draw all their
    noise so, whatever the family.

    Raises:
        ValueError: `share` is outside [0, 1).
    """

    def __init__(self, share: float, seed: int):
        if not 0 <= share < 1:
            raise ValueError(f"the share of common noise must be in [0, 1), not {share}")
        super().__init__()
        self.share, self.seed = share, seed
        self._common: dict[Generator, Generator] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        own = given.get("generator")
        if func is not torch.randn or own is None:
            return func(*args, **given)
        common = self._common.setdefault(own, Generator(own.device).manual_seed(self.seed))
        drawn: Tensor = func(*args, **given)
        shared: Tensor = func(*args, **given | {"generator": common})
        return math.sqrt(1 - self.share) * drawn + math.sqrt(self.share) * shared
