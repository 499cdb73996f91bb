"""Train the embedded single-frame geometry network on rendered frames.

    python -m videogpa.world.train_geometry work/geometry --frames work/frames

Everything that happens in a step is a function of (seed, step), so an interrupted run continues from its last
checkpoint as if nothing had happened.
"""

import json
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.embedded_network import LOG_DEPTH_CENTER, GeometryNetwork
from videogpa.tensors import Depth, Intrinsics, Video
from videogpa.world import training_loop
from videogpa.world.frames import CHANNELS, read_frames, render_frames
from videogpa.world.render import world_intrinsics
from videogpa.world.training_loop import Plan

TRAINING_SEED, VALIDATION_SEED = 5_000_000, 6_500_000
VALIDATION_SCENES = 400
EDGE = 0.1
"""Neighbouring log depths that differ by more belong to different surfaces."""
SIZE = 48
CHECKPOINT_EVERY = 100
FIGURES = ("abs_rel", "abs_rel_scaled", "normals_deg", "albedo_l1")

Frames = Float[Tensor, "n 10 h w"]
"""Colours, albedo, normals and depth, in the order of `CHANNELS`."""


def train(
    out: Path, data: Frames, held_out: Frames, *, steps: int, batch: int, seed: int, lr: float
) -> GeometryNetwork:
    """Train until `steps`, resuming from `out/checkpoint.pt` when there is one; the averaged weights."""
    torch.manual_seed(seed)
    model = GeometryNetwork()
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and "head" not in n]
    height, width = data.shape[-2:]
    intrinsics = world_intrinsics(height, width, batch)

    def loss_of(step: int) -> Float[Tensor, ""]:
        rng = np.random.default_rng([seed, step])
        truth = data[torch.from_numpy(rng.integers(0, len(data), batch))].float()
        truth = mirror(truth, torch.from_numpy(rng.random(batch) < 0.5))
        answer = model.answer(degrade(truth[:, CHANNELS["rgb"]], rng), intrinsics)
        return geometry_loss(answer, truth, intrinsics)

    plan = Plan(
        steps=steps,
        lr=lr,
        warmup=50,
        cooldown=0.5,
        average_decay=0.995,
        weight_decay=0.0,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    training_loop.train(
        model,
        matrices,
        out,
        plan,
        loss_of=loss_of,
        validate=lambda: validate(model, held_out),
        description="training the geometry network",
    )
    return model


def geometry_loss(
    answer: Float[Tensor, "n 8 h w"], truth: Frames, intrinsics: Intrinsics
) -> Float[Tensor, ""]:
    """Depth, its edges, its own normals, the predicted normals, albedo and uncertainty, summed."""
    log_depth = answer[:, 0] + LOG_DEPTH_CENTER
    true_log_depth = truth[:, CHANNELS["depth"]][:, 0].log()
    true_normals = truth[:, CHANNELS["normals"]]
    residual = log_depth - true_log_depth
    absolute = residual.abs().mean()
    # Eigen et al., arXiv 1406.2283: what remains of the error when one common scale is free.
    scale_free = residual.var((1, 2), correction=0).clamp_min(1e-6).sqrt().mean()
    edges = residual.diff(dim=-1).abs().mean() + residual.diff(dim=-2).abs().mean()
    log_error = answer[:, 7].clamp(-5, 1)
    laplace = (residual.detach().abs() * (-log_error).exp() + log_error).mean()
    cosine = (F.normalize(answer[:, 1:4], dim=1) * true_normals).sum(1)
    implied = (depth_normals((log_depth).exp(), intrinsics) * true_normals[:, :, 1:-1, 1:-1]).sum(1)
    on_surface = _on_one_surface(true_log_depth)
    bent = ((1 - implied) * on_surface).sum() / on_surface.sum()
    albedo = (answer[:, 4:7].sigmoid() - truth[:, CHANNELS["albedo"]]).abs().mean()
    return 2 * absolute + scale_free + 2 * edges + 0.1 * laplace + (1 - cosine).mean() + 0.3 * bent + albedo


def depth_normals(depth: Depth, intrinsics: Intrinsics) -> Float[Tensor, "n 3 h-2 w-2"]:
    """Unit normals of the surface that a depth map describes, by central differences; borders left out."""
    focal, centre = intrinsics[:, :2, :2].diagonal(dim1=1, dim2=2), intrinsics[:, :2, 2]
    v, u = torch.meshgrid(torch.arange(depth.shape[1]), torch.arange(depth.shape[2]), indexing="ij")
    x = (u - centre[:, 0, None, None]) / focal[:, 0, None, None] * depth
    y = (v - centre[:, 1, None, None]) / focal[:, 1, None, None] * depth
    points = torch.stack([x, y, depth], 1)
    right = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    down = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)


def mirror(frames: Frames, flip: Bool[Tensor, " n"]) -> Frames:
    """The chosen frames seen in a mirror."""
    mirrored = frames.flip(-1)
    mirrored[:, CHANNELS["normals"].start] *= -1
    return torch.where(flip[:, None, None, None], mirrored, frames)


def degrade(images: Video, rng: np.random.Generator) -> Video:
    """Blur, exposure and noise as in generated frames, each of random strength, a third left clean."""
    shape = (len(images), 1, 1, 1)
    degraded = rng.random(shape) > 1 / 3
    low, high = np.array([(0, 1), (-0.15, 0.15), (-0.05, 0.05), (0, 0.04)]).T
    drawn = rng.uniform(low, high, (*shape, 4)) * degraded[..., None]
    blur, gain, bias, noise = torch.from_numpy(drawn).float().unbind(-1)
    kernel = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(padded, torch.outer(kernel, kernel).expand(3, 1, 3, 3), groups=3)
    grain = torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    return (images.lerp(blurred, blur) * (1 + gain) + bias + noise * grain).clamp(0, 1)


@torch.inference_mode()
def validate(model: GeometryNetwork, frames: Frames) -> dict[str, float]:
    """Mean absolute relative depth error as predicted and after one scale a frame, median normal error in
    degrees, mean absolute albedo error.
    """
    model.eval()
    depth_error, scaled_error, angles, albedo_error = [], [], [], []
    for truth in frames.split(100):
        truth = truth.float()
        count, _, height, width = truth.shape
        found = model(truth[:, CHANNELS["rgb"]], world_intrinsics(height, width, count))
        true_depth = truth[:, CHANNELS["depth"]][:, 0]
        ratio = found.depth / true_depth
        depth_error.append((ratio - 1).abs())
        scaled_error.append((ratio / ratio.flatten(1).median(1).values[:, None, None] - 1).abs())
        cosine = (found.normals * truth[:, CHANNELS["normals"]]).sum(1)
        angles.append(cosine.clamp(-1, 1).acos())
        albedo_error.append((found.albedo - truth[:, CHANNELS["albedo"]]).abs().mean(1))
    values = (
        torch.cat(depth_error).mean().item(),
        torch.cat(scaled_error).mean().item(),
        math.degrees(torch.cat(angles).median().item()),
        torch.cat(albedo_error).mean().item(),
    )
    return dict(zip(FIGURES, values, strict=True))


def export(model: GeometryNetwork, folder: Path, settings: dict) -> None:
    """Weights in half precision and the settings and figures that belong to them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()
    }
    save_file(weights, folder / "network.safetensors")
    (folder / "training.json").write_text(json.dumps(settings, indent=2) + "\n")


def _on_one_surface(log_depth: Depth) -> Bool[Tensor, "n h-2 w-2"]:
    highest = F.max_pool2d(log_depth, 3, stride=1)
    lowest = -F.max_pool2d(-log_depth, 3, stride=1)
    return highest - lowest < EDGE


def main(
    out: Annotated[Path, typer.Argument(help="folder for log, checkpoint and weights")],
    frames: Annotated[Path, typer.Option(help="folder of rendered frames, made if missing")] = Path(
        "work/frames"
    ),
    scenes: Annotated[int, typer.Option(help="training scenes, two frames each")] = 6000,
    steps: Annotated[int, typer.Option()] = 2600,
    batch: Annotated[int, typer.Option()] = 24,
    seed: Annotated[int, typer.Option()] = 0,
    lr: Annotated[float, typer.Option()] = 4e-3,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Render frames if needed, train, write the weights."""
    torch.set_num_threads(threads)
    parts = {TRAINING_SEED: scenes, VALIDATION_SEED: VALIDATION_SCENES}
    for first_seed, count in parts.items():
        render_frames(frames, scenes=count, size=SIZE, first_seed=first_seed)
    data, held_out = (read_frames(frames, scenes=count, first_seed=s) for s, count in parts.items())
    model = train(out, data, held_out, steps=steps, batch=batch, seed=seed, lr=lr)
    settings = {"steps": steps, "batch": batch, "seed": seed, "lr": lr, "scenes": scenes, "size": SIZE}
    export(model, out / "weights", settings | {"validation": validate(model, held_out)})


if __name__ == "__main__":
    typer.run(main)
