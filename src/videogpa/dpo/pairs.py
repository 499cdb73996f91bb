"""The pairs of a training run: where their tensors are, who is held out, which batch a step takes."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from videogpa.artifact import read_rows
from videogpa.errors import InputError
from videogpa.families.base import Conditioning, VideoFamily, load_tensors
from videogpa.tensors import Latents, PerSample
from videogpa.types import Candidate, PreferencePair

Labels = Literal["as_scored", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """Where the tensors of one pair are."""

    prompt_id: str
    chosen: Path
    rejected: Path
    conditioning: Path


class Batch(NamedTuple):
    """Latents of both sides, and the one noise and timestep that each pair's sides share."""

    chosen: Latents
    rejected: Latents
    eps: Latents
    t: PerSample
    conditioning: Conditioning

    def share(self, index: int, count: int) -> "Batch":
        """Every `count`-th pair, from `index` on: one process's part."""
        part = slice(index, None, count)
        conditioning = {name: tensor[part] for name, tensor in self.conditioning.items()}
        return Batch(self.chosen[part], self.rejected[part], self.eps[part], self.t[part], conditioning)


def load_pairs(pairs: Path, candidates: Path, labels: Labels, seed: int) -> list[TrainingPair]:
    """The good pairs in the order of their ids, labelled as scored or, for a control, at random.

    Raises:
        InputError: no pairs, a pair whose candidate is unknown, or candidates without latents.
    """
    by_id = {row.id: row for row in read_rows(candidates, Candidate)}
    rows = sorted((row for row in read_rows(pairs, PreferencePair) if row.status == "ok"), key=lambda r: r.id)
    if not rows:
        raise InputError(f"{pairs} holds no pairs: loosen the pair stage's filters or sample more candidates")
    found = [_locate(row, by_id, candidates) for row in rows]
    if labels == "as_scored":
        return found
    # Exactly half: independent coins would leave the control some of the true preference.
    order = torch.randperm(len(found), generator=generator(seed, "labels")).tolist()
    exchanged = set(order[: len(found) // 2])
    return [
        replace(pair, chosen=pair.rejected, rejected=pair.chosen) if i in exchanged else pair
        for i, pair in enumerate(found)
    ]


def split(
    pairs: list[TrainingPair], fraction: float, seed: int
) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Training and held-out pairs; all pairs of a prompt go to the same side.

    Raises:
        InputError: nothing is left to train on.
    """
    prompts = sorted({pair.prompt_id for pair in pairs})
    order = torch.randperm(len(prompts), generator=generator(seed, "split")).tolist()
    count = max(1, round(fraction * len(prompts))) if fraction else 0
    held = {prompts[i] for i in order[:count]}
    training = [pair for pair in pairs if pair.prompt_id not in held]
    if not training:
        raise InputError(f"{len(prompts)} prompts with pairs are too few to hold any out: set it to 0")
    return training, [pair for pair in pairs if pair.prompt_id in held]


def batch_indices(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Which of `count` pairs step `step` (from 1) takes: fresh permutations end to end."""
    positions = range((step - 1) * batch, step * batch)
    orders = {
        epoch: torch.randperm(count, generator=generator(seed, "epoch", epoch)).tolist()
        for epoch in {position // count for position in positions}
    }
    return [orders[position // count][position % count] for position in positions]


def generator(seed: int, *purpose: str | int) -> Generator:
    """Random numbers of their own for each purpose, the same wherever and whenever they are drawn."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def read_batch(family: VideoFamily, pairs: list[TrainingPair], rng: Generator) -> Batch:
    """Latents and conditioning of pairs from disk, and one timestep and noise per pair."""
    device = next(family.transformer.parameters()).device
    chosen = _stack([_latents(pair.chosen) for pair in pairs], pairs).to(device)
    rejected = _stack([_latents(pair.rejected) for pair in pairs], pairs).to(device)
    rows = [load_tensors(pair.conditioning) for pair in pairs]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise InputError("some prompts have a first frame and some have none: train on one kind at a time")
    conditioning = {name: _stack([row[name] for row in rows], pairs).to(device) for name in rows[0]}
    frames, height, width = chosen.shape[2:]
    t = family.sample_timesteps(rng, len(pairs), (frames, height, width))
    eps = torch.randn(chosen.shape, generator=rng).to(device)
    return Batch(chosen, rejected, eps, t, conditioning)


def _latents(path: Path) -> Tensor:
    tensors = load_tensors(path)
    if "latents" not in tensors:
        raise InputError(f"{path} holds no 'latents': redo the sample stage")
    return tensors["latents"].float()


def _stack(tensors: list[Tensor], pairs: list[TrainingPair]) -> Tensor:
    for tensor, pair in zip(tensors, pairs, strict=True):
        if tensor.shape != tensors[0].shape:
            raise InputError(
                f"{pair.chosen} has shape {tuple(tensor.shape)} and {pairs[0].chosen} "
                f"{tuple(tensors[0].shape)}: train on videos of one size"
            )
    return torch.stack(tensors)


def _locate(row: PreferencePair, by_id: dict[str, Candidate], folder: Path) -> TrainingPair:
    for id in (row.chosen, row.rejected):
        candidate = by_id.get(id)
        if candidate is None:
            raise InputError(f"pair {row.id} names candidate {id}, which {folder} does not have")
        if candidate.latents is None or candidate.conditioning is None:
            raise InputError(f"candidate {id} in {folder} has no latents: sample it again with latents")
        for path in (candidate.latents, candidate.conditioning):
            if not (folder / path).is_file():
                raise InputError(f"{folder / path} is missing: redo the sample stage")
    chosen, rejected = by_id[row.chosen], by_id[row.rejected]
    return TrainingPair(
        prompt_id=row.prompt_id,
        chosen=folder / str(chosen.latents),
        rejected=folder / str(rejected.latents),
        conditioning=folder / str(chosen.conditioning),
    )
