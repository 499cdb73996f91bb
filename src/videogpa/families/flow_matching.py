"""The forward process that all flow matching models share."""

from typing import Literal

from videogpa.tensors import Latents, PerSample


class FlowMatching:
    """x_t = (1 - sigma) x0 + sigma eps with sigma = t / T; the model predicts the velocity (Lipman et al. 2022,
    arXiv 2210.02747).
    """

    prediction_type: Literal["flow"] = "flow"
    num_train_timesteps: int

    def noise(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """x_t; where a first frame is given clean, `predict` puts it back."""
        sigma = (t / self.num_train_timesteps).view(-1, 1, 1, 1, 1)
        return (1 - sigma) * x0 + sigma * eps

    def target(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """The velocity eps - x0, at every t."""
        return eps - x0
