"""One DPO training step the way VideoGPA was published (arXiv 2601.23286), as the yardstick for ours.

    python benchmarks/published_step.py
    python benchmarks/published_step.py --no-checkpointing --steps 5

Written anew after the published step and independent of the package, so that the two can be held against each
other: a policy with a LoRA, a second full copy of the weights as the reference, and four forward passes a step.

Published code calls the transformer without rotary embedding. That leaves CogVideoX-5B without any notion of where a
token is, so a comparison of the same maths passes the right one here; ``None`` gives the step exactly as published.
"""

import copy
import time
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel, SchedulerMixin
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from torch import Tensor

Latents = Float[Tensor, "b f c h w"]
Rotary = tuple[Float[Tensor, "token dim"], Float[Tensor, "token dim"]]

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
BETA, LEARNING_RATE, CLIP = 1.0, 5e-6, 1.0
"""As published, where the rate is the peak of a cosine after 500 steps of warm-up; here it is constant."""
SIZE, FRAMES, CHANNELS, TEXT_TOKENS, TEXT_WIDTH, HEADS, HEAD_WIDTH, PATCH = 32, 5, 16, 226, 256, 8, 64, 2


class PublishedTrainer:
    """Policy, reference and optimiser. The given transformer becomes the policy: its LoRA is put in place.

    Weights in bfloat16 run under autocast with the LoRA in float32 (published: Lightning's bf16-mixed); any other
    type runs as it is. ``scheduler`` supplies ``add_noise`` and ``get_velocity``; published is CogVideoXDPMScheduler.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        scheduler: SchedulerMixin,
        *,
        beta: float,
        learning_rate: float,
        checkpointing: bool,
        rank: int = 64,
        alpha: float = 128,
    ) -> None:
        self.scheduler, self.beta = scheduler, beta
        self.reference = copy.deepcopy(transformer).requires_grad_(False).eval()
        lora = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=TARGETS)
        self.policy = get_peft_model(transformer, lora)
        if checkpointing:
            self.policy.enable_gradient_checkpointing()
        self.optimizer = torch.optim.AdamW(self.lora_parameters().values(), lr=learning_rate)

    def lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by its name inside the transformer (peft's own prefix taken off)."""
        named = self.policy.named_parameters()
        return {n.removeprefix("base_model.model."): p for n, p in named if p.requires_grad}

    def weights_in_memory(self) -> int:
        """Bytes of all parameters held: policy, LoRA and reference."""
        held = [*self.policy.parameters(), *self.reference.parameters()]
        return sum(p.numel() * p.element_size() for p in held)

    def loss(
        self,
        chosen: Latents,
        rejected: Latents,
        noise: Latents,
        timesteps: Int[Tensor, " b"],
        prompt_embeds: Float[Tensor, "b l d"],
        image_rotary_emb: Rotary | None,
    ) -> Float[Tensor, ""]:
        """-log sigmoid(-beta [(e_w - e_w_ref) - (e_l - e_l_ref)]), the mean over pairs; e is a mean squared error."""

        def predict(model: torch.nn.Module, noisy: Latents) -> Latents:
            return model(noisy, prompt_embeds, timesteps, image_rotary_emb=image_rotary_emb).sample

        sides = (chosen, rejected)
        half = self.reference.dtype == torch.bfloat16
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=half):
            noisy = [self.scheduler.add_noise(side, noise, timesteps) for side in sides]
            policy = [predict(self.policy, side) for side in noisy]
            with torch.no_grad():
                reference = [predict(self.reference, side) for side in noisy]
            velocity = [self.scheduler.get_velocity(side, noise, timesteps) for side in sides]
            e_w, e_l = (_error(p, v) for p, v in zip(policy, velocity, strict=True))
            e_w_ref, e_l_ref = (_error(r, v) for r, v in zip(reference, velocity, strict=True))
            return -F.logsigmoid(-self.beta * ((e_w - e_w_ref) - (e_l - e_l_ref))).mean()

    def step(self, *pair: Any, **named: Any) -> float:
        """One update on what `loss` takes; returns the loss before it."""
        loss = self.loss(*pair, **named)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.lora_parameters().values(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def _error(prediction: Latents, target: Latents) -> Float[Tensor, " b"]:
    # The square is taken in float32 even of a bfloat16 difference: that is where autocast puts it on a GPU.
    return (prediction - target).float().pow(2).mean(dim=(1, 2, 3, 4))


def small_transformer(seed: int) -> CogVideoXTransformer3DModel:
    """CogVideoX of 38,513,216 random parameters: 8 layers of 8 heads of 64, time 256, text 226 tokens of 256."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CogVideoXTransformer3DModel(
            num_attention_heads=HEADS, attention_head_dim=HEAD_WIDTH, num_layers=8, time_embed_dim=256,
            in_channels=CHANNELS, out_channels=CHANNELS, patch_size=PATCH, sample_width=SIZE, sample_height=SIZE,
            sample_frames=4 * (FRAMES - 1) + 1, text_embed_dim=TEXT_WIDTH, max_text_seq_length=TEXT_TOKENS,
            use_rotary_positional_embeddings=True,
        )  # fmt: skip


def main(checkpointing: bool = True, steps: Annotated[int, typer.Option(min=1)] = 1, seed: int = 0) -> None:
    """Train on one random pair and print each step's loss and seconds."""
    torch.manual_seed(seed)
    scheduler = CogVideoXDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0
    )
    transformer = small_transformer(seed)
    trainer = PublishedTrainer(
        transformer, scheduler, beta=BETA, learning_rate=LEARNING_RATE, checkpointing=checkpointing
    )
    chosen, rejected, noise = torch.randn(3, 1, FRAMES, CHANNELS, SIZE, SIZE)
    prompt, timesteps = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH), torch.randint(1000, (1,))
    grid = (SIZE // PATCH, SIZE // PATCH)
    rotary = get_3d_rotary_pos_embed(HEAD_WIDTH, ((0, 0), grid), grid, FRAMES)
    print(f"t {timesteps.item()}, weights {trainer.weights_in_memory() / 2**20:.1f} MiB")
    for _ in range(steps):
        start = time.perf_counter()
        loss = trainer.step(chosen, rejected, noise, timesteps, prompt, rotary)
        print(f"loss {loss:.9f}, {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    typer.run(main)
