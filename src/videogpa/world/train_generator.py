"""Train the embedded video model from scratch on rendered clips.

    python -m videogpa.world.train_generator work/generator --clips work/clips --steps 6000

Everything that happens in a step is a function of (seed, step), so an interrupted run continues from its last
checkpoint as if nothing had happened. The learning rate is constant and falls linearly to zero over the last part.
A finished model can be trained further from its folder (`--start-from`), with a fresh optimizer.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import WanTransformer3DModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import UMT5EncoderModel

from videogpa.world import training_loop
from videogpa.world.clips import made_with, read_clips, render_clips
from videogpa.world.generator import (
    FLOW_SHIFT,
    FRAMES,
    MAX_TOKENS,
    SIZE,
    Z_DIM,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    save_pipeline,
)
from videogpa.world.linear_autoencoder import LinearVideoAutoencoder, fit_linear_autoencoder
from videogpa.world.training_loop import Plan

TEXT_TO_VIDEO_SHARE = 0.1
EMPTY_CAPTION_SHARE = 0.05
VALIDATION_CLIPS = 64
CHECKPOINT_EVERY = 250


class Clips:
    """Latents of all rendered clips in memory, mirrored on demand (a mirrored clip gets a mirrored caption)."""

    def __init__(self, folder: Path, vae: LinearVideoAutoencoder, tokenizer, device: torch.device):
        self.vae, self.device = vae.to(device), device
        self.pixels, captions = [], []
        for frames, texts in read_clips(folder):
            self.pixels.append(frames)
            captions += texts
        self.lengths = np.cumsum([len(p) for p in self.pixels])
        self.tokens = _tokenize(tokenizer, captions).to(device)
        self.mirrored_tokens = _tokenize(tokenizer, [mirror_caption(c) for c in captions]).to(device)
        self.empty = _tokenize(tokenizer, [""])[0].to(device)
        self.std = torch.tensor(vae.config.latents_std, device=device).view(-1, 1, 1, 1)

    def __len__(self) -> int:
        return int(self.lengths[-1])

    @torch.no_grad()
    def batch(
        self, index: np.ndarray, mirror: np.ndarray
    ) -> tuple[Float[Tensor, "b c f h w"], Int[Tensor, "b n"]]:
        """Latents as the transformer sees them, and caption tokens."""
        chunk = np.searchsorted(self.lengths, index, side="right")
        pixels = np.stack([self.pixels[c][i - self.lengths[c]] for c, i in zip(chunk, index, strict=True)])
        x = torch.from_numpy(pixels).to(self.device).float().div_(127.5).sub_(1).permute(0, 4, 1, 2, 3)
        flip = torch.from_numpy(mirror).to(self.device)
        x = torch.where(flip.view(-1, 1, 1, 1, 1), x.flip(-1), x)
        latents = self.vae.encode(x, return_dict=False)[0].mode() / self.std
        return latents, torch.where(flip[:, None], self.mirrored_tokens[index], self.tokens[index])


def mirror_caption(caption: str) -> str:
    """The caption of the clip seen in a mirror."""
    swap = {"left": "right", "right": "left"}
    return " ".join(
        swap.get(w.rstrip(";"), w.rstrip(";")) + ";" * w.endswith(";") for w in caption.split(" ")
    )


def embed(text_encoder: UMT5EncoderModel, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
    """Prompt embeddings as the Wan pipelines make them: zeros after the end of the caption."""
    mask = (tokens != 0).long()
    return text_encoder(tokens, mask).last_hidden_state * mask[..., None]


def flow_loss(
    transformer: WanTransformer3DModel,
    prompt_embeds: Float[Tensor, "b n d"],
    x0: Float[Tensor, "b c f h w"],
    eps: Float[Tensor, "b c f h w"],
    sigma: Float[Tensor, " b"],
    image_given: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Per-sample velocity error (Lipman et al., arXiv 2210.02747); a given first frame is clean and not counted."""
    frame_sigma = sigma[:, None].repeat(1, x0.shape[2])
    frame_sigma[:, 0] *= 1 - image_given
    s = frame_sigma[:, None, :, None, None]
    tokens_a_frame = (x0.shape[3] // 2) * (x0.shape[4] // 2)
    timestep = (frame_sigma * 1000).repeat_interleave(tokens_a_frame, dim=1)
    velocity = transformer((1 - s) * x0 + s * eps, timestep, prompt_embeds, return_dict=False)[0]
    error = (velocity - (eps - x0)).square().mean(dim=(1, 3, 4))
    counted = torch.ones_like(frame_sigma)
    counted[:, 0] = 1 - image_given
    return (error * counted).sum(1) / counted.sum(1)


def stratified_sigmas(rng: np.random.Generator, n: int) -> Float[Tensor, " n"]:
    """One noise level from each n-th of the shifted training schedule, in random order."""
    u = (rng.permutation(n) + rng.uniform(size=n)) / n
    return torch.from_numpy(FLOW_SHIFT * u / (1 + (FLOW_SHIFT - 1) * u)).float()


def train(
    out: Path,
    clips: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    lr: float,
    cooldown: float,
    threads: int,
    compile_blocks: bool,
    bfloat16: bool = False,
    device: str = "cpu",
    heads: int = 4,
    layers: int = 6,
    channels: int = Z_DIM,
    restart_from: Path | None = None,
    start_from: Path | None = None,
) -> None:
    """Train until `steps`, resuming from `out/checkpoint.pt` when there is one.

    Args:
        device: where; which numbers are drawn depends on it.
        bfloat16: multiply matrices in bfloat16; weights and optimizer stay float32. Pays where the processor can.
        heads: of the transformer, each 48 wide; with `start_from` its own.
        layers: as `heads`.
        channels: of the autoencoder's code, as `heads`.
        start_from: a pipeline folder whose weights and autoencoder are trained on.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    vae = _autoencoder(out, clips, channels, start_from)
    channels = vae.config.z_dim
    data = Clips(clips, vae, tokenizer, torch.device(device))
    held_out = np.arange(len(data) - VALIDATION_CLIPS, len(data))
    if start_from:
        shape = WanTransformer3DModel.load_config(start_from / "transformer")
        heads, layers = shape["num_attention_heads"], shape["num_layers"]
    text_encoder, transformer = build_text_encoder(len(tokenizer)), build_transformer(heads, layers, channels)
    model = torch.nn.ModuleDict({"text_encoder": text_encoder, "transformer": transformer})
    if start_from:
        text_encoder.load_state_dict(
            UMT5EncoderModel.from_pretrained(start_from / "text_encoder").state_dict()
        )
        transformer.load_state_dict(
            WanTransformer3DModel.from_pretrained(start_from / "transformer").state_dict()
        )
    model.to(device)
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and ".blocks." in n and "table" not in n
    ]
    if compile_blocks:
        transformer.compile_repeated_blocks()

    def loss_of(step: int) -> Float[Tensor, ""]:
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        index = rng.integers(0, len(data) - VALIDATION_CLIPS, batch)
        x0, tokens = data.batch(index, rng.random(batch) < 0.5)
        tokens[torch.from_numpy(rng.random(batch) < EMPTY_CAPTION_SHARE).to(device)] = data.empty
        image_given = torch.from_numpy(rng.random(batch) >= TEXT_TO_VIDEO_SHARE).float().to(device)
        eps, sigma = torch.randn_like(x0), stratified_sigmas(rng, batch).to(device)
        return flow_loss(transformer, embed(text_encoder, tokens), x0, eps, sigma, image_given).mean()

    plan = Plan(
        steps=steps,
        lr=lr,
        warmup=100,
        cooldown=cooldown,
        average_decay=0.998,
        weight_decay=0.01,
        checkpoint_every=CHECKPOINT_EVERY,
        bfloat16=bfloat16,
    )
    with sdpa_kernel(SDPBackend.MATH):
        training_loop.train(
            model,
            matrices,
            out,
            plan,
            loss_of=loss_of,
            validate=lambda: {"validation_loss": _validate(model, data, held_out)},
            description="training the generator",
            restart_from=restart_from,
        )
    save_pipeline(
        out / "pipeline",
        tokenizer=tokenizer,
        text_encoder=text_encoder.to("cpu", torch.bfloat16),
        transformer=transformer.to("cpu", torch.bfloat16),
        vae=vae.to("cpu"),
    )
    settings = {
        "steps": steps, "batch": batch, "seed": seed, "lr": lr, "clips": len(data), "cooldown": cooldown,
        "bfloat16": bfloat16, "continued": start_from is not None, "clips_made_with": made_with(clips),
        "heads": heads, "layers": layers, "channels": channels,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(settings, indent=2))


@torch.no_grad()
def _validate(model: torch.nn.ModuleDict, data: Clips, index: np.ndarray) -> float:
    """Loss on held-out clips, image given, always the same noise."""
    generator = torch.Generator().manual_seed(0)
    losses = []
    for part in np.array_split(index, 4):
        x0, tokens = data.batch(part, np.zeros(len(part), bool))
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        sigma = stratified_sigmas(np.random.default_rng(0), len(part)).to(x0)
        prompt_embeds = embed(model["text_encoder"], tokens)
        given = torch.ones_like(sigma)
        losses.append(flow_loss(model["transformer"], prompt_embeds, x0, eps, sigma, given))
    return float(torch.cat(losses).mean())


def _tokenize(tokenizer, captions: list[str]) -> Int[Tensor, "n k"]:
    return tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids


def _autoencoder(out: Path, clips: Path, channels: int, start_from: Path | None) -> LinearVideoAutoencoder:
    folder = start_from / "vae" if start_from else out / "vae"
    if not (folder / "config.json").exists():
        frames, _ = next(read_clips(clips))
        x = torch.from_numpy(np.array(frames)).float().div_(127.5).sub_(1).permute(0, 4, 1, 2, 3)
        fit_linear_autoencoder(x, z_dim=channels).save_pretrained(folder)
    return LinearVideoAutoencoder.from_pretrained(folder)


def main(
    out: Annotated[Path, typer.Argument(help="folder for log, checkpoint and pipeline")],
    clips: Annotated[Path, typer.Option(help="folder of rendered clips, made if missing")] = Path(
        "work/clips"
    ),
    count: Annotated[int, typer.Option(help="clips to render")] = 12000,
    faulty_share: Annotated[
        float, typer.Option(help="share of the rendered clips that is not consistent in 3D")
    ] = 0.0,
    steps: Annotated[int, typer.Option()] = 7000,
    batch: Annotated[int, typer.Option()] = 8,
    seed: Annotated[int, typer.Option()] = 0,
    lr: Annotated[float, typer.Option()] = 2e-3,
    cooldown: Annotated[
        float, typer.Option(help="share of the steps over which the rate falls to zero")
    ] = 0.3,
    threads: Annotated[int, typer.Option()] = 2,
    compile_blocks: Annotated[bool, typer.Option(help="1.4x faster; needs a C++ compiler")] = True,
    bfloat16: Annotated[
        bool, typer.Option(help="faster where the processor has bfloat16 arithmetic")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, or cuda")] = "cpu",
    heads: Annotated[int, typer.Option(help="of the transformer, each 48 wide")] = 4,
    layers: Annotated[int, typer.Option(help="of the transformer")] = 6,
    channels: Annotated[int, typer.Option(help="of the autoencoder's code")] = Z_DIM,
    restart_from: Annotated[
        Path | None, typer.Option(help="checkpoint of an earlier run to go on from")
    ] = None,
    start_from: Annotated[Path | None, typer.Option(help="pipeline folder to train further")] = None,
) -> None:
    """Render clips if needed, then train."""
    render_clips(clips, count=count, frames=FRAMES, size=SIZE, workers=threads, faulty_share=faulty_share)
    train(
        out, clips, steps=steps, batch=batch, seed=seed, lr=lr, cooldown=cooldown, threads=threads,
        compile_blocks=compile_blocks, bfloat16=bfloat16, device=device, heads=heads, layers=layers,
        channels=channels, restart_from=restart_from, start_from=start_from,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
