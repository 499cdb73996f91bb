"""The pairs of a training run: where their tensors are, who is held out, which batch a step takes."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor

from videogpa.artifact import hash_file, hash_json, read_rows
from videogpa.dpo.dense import Dense, pair_weights, read_map, shuffled_in_space
from videogpa.dpo.diffusion import Batch, Weights
from videogpa.errors import InputError
from videogpa.families.base import LatentSize, VideoFamily, load_tensors
from videogpa.tensors import PerSample
from videogpa.types import AnyRow, Candidate, PreferencePair

Labels = Literal["as_scored", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """Where the tensors of one pair are, and by how much its chosen video was scored better."""

    id: str
    prompt_id: str
    chosen: Path
    rejected: Path
    conditioning: Path
    margin: float | None = None
    maps: tuple[Path, Path] | None = None
    """The maps of inconsistency of chosen and rejected, where training asks for them."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How pairs become a batch. `mean_margin` is that of the training pairs."""

    dense: Dense = "off"
    dense_shuffled: bool = False
    mean_margin: float = 1.0
    seed: int = 0


def load_pairs(
    pairs: Path, candidates: Path, labels: Labels, seed: int, maps: Path | None = None
) -> list[TrainingPair]:
    """The good pairs in the order of their ids, labelled as scored or, for a control, at random.

    Raises:
        InputError: no pairs, a pair whose candidate is unknown, or candidates without latents or, where `maps` is
            given, without a map.
    """
    by_id = {row.id: row for row in read_rows(candidates, Candidate)}
    rows = sorted((row for row in read_rows(pairs, PreferencePair) if row.status == "ok"), key=lambda r: r.id)
    if not rows:
        raise InputError(f"{pairs} holds no pairs: loosen the pair stage's filters or sample more candidates")
    if maps is not None:
        # Complete, and those that were made: the maps themselves are read with their pairs.
        read_rows(maps, AnyRow)
    found = [_locate(row, by_id, candidates, maps) for row in rows]
    if labels == "as_scored":
        return found
    # Exactly half: independent coins would leave the control some of the true preference.
    order = torch.randperm(len(found), generator=generator(seed, "labels")).tolist()
    exchanged = set(order[: len(found) // 2])
    return [_exchanged(pair) if i in exchanged else pair for i, pair in enumerate(found)]


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
    return [index for index, _ in batch_visits(count, batch, seed, step)]


def batch_visits(count: int, batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """As `batch_indices`, each with how often the pair came before."""
    positions = range((step - 1) * batch, step * batch)
    orders = {
        epoch: torch.randperm(count, generator=generator(seed, "epoch", epoch)).tolist()
        for epoch in {position // count for position in positions}
    }
    return [(orders[position // count][position % count], position // count) for position in positions]


def generator(seed: int, *purpose: str | int) -> Generator:
    """Random numbers of their own for each purpose, the same wherever and whenever they are drawn."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def read_batch(family: VideoFamily, pairs: list[TrainingPair], reading: Reading, rng: Generator) -> Batch:
    """Latents and conditioning of pairs from disk, and one timestep and noise per pair, stratified over the batch."""
    batch = _read(family, pairs, reading)
    t = family.sample_timesteps(rng, len(pairs), _size(batch.chosen[0]))
    eps = torch.randn(batch.chosen.shape, generator=rng)
    return batch._replace(t=t, eps=eps.to(batch.chosen.device))


def read_fixed_batch(
    family: VideoFamily, pairs: list[TrainingPair], reading: Reading, draws: list[int], of: int
) -> Batch:
    """As `read_batch`, but every pair has `of` timesteps and noises of its own, stratified over its draws, and gets
    that number `draws` of them.
    """
    batch = _read(family, pairs, reading)
    shape = batch.chosen.shape[1:]
    t, eps = [], []
    for pair, draw in zip(pairs, draws, strict=True):
        t.append(
            family.sample_timesteps(generator(reading.seed, "draws", pair.id), of, _size(batch.chosen[0]))[
                draw
            ]
        )
        eps.append(torch.randn(shape, generator=generator(reading.seed, "draw", pair.id, draw)))
    return batch._replace(t=torch.stack(t), eps=torch.stack(eps).to(batch.chosen.device))


def content_key(pair: TrainingPair, base: str) -> str:
    """A hash of all that the reference's errors on this pair depend on, but for timestep and noise; `base` stands for
    the model, its precision and the weighting.
    """
    files = [pair.chosen, pair.rejected, pair.conditioning, *(pair.maps or ())]
    return hash_json([base, pair.id, *(hash_file(path) for path in files)])[:24]


def _read(family: VideoFamily, pairs: list[TrainingPair], reading: Reading) -> Batch:
    """A batch whose noise and timesteps are still 0."""
    device = next(family.transformer.parameters()).device
    chosen = _stack([_latents(pair.chosen) for pair in pairs], pairs).to(device)
    rejected = _stack([_latents(pair.rejected) for pair in pairs], pairs).to(device)
    rows = [load_tensors(pair.conditioning) for pair in pairs]
    if any(row.keys() != rows[0].keys() for row in rows):
        raise InputError("some prompts have a first frame and some have none: train on one kind at a time")
    return Batch(
        chosen=chosen,
        rejected=rejected,
        eps=torch.zeros_like(chosen),
        t=torch.zeros(len(pairs), device=device),
        conditioning={name: _stack([row[name] for row in rows], pairs).to(device) for name in rows[0]},
        weights=None if reading.dense == "off" else _weights(pairs, _size(chosen[0]), reading, device),
        margin=_margins(pairs, reading, device),
    )


def _margins(pairs: list[TrainingPair], reading: Reading, device: torch.device) -> PerSample | None:
    known = [pair.margin / reading.mean_margin for pair in pairs if pair.margin is not None]
    return torch.tensor(known, device=device) if len(known) == len(pairs) else None


def _weights(
    pairs: list[TrainingPair], size: LatentSize, reading: Reading, device: torch.device
) -> tuple[Weights, Weights]:
    both = []
    for pair in pairs:
        if pair.maps is None:
            raise InputError("dense preferences need maps of inconsistency: give --maps")
        weights = pair_weights(read_map(pair.maps[0]), read_map(pair.maps[1]), size, reading.dense)
        if reading.dense_shuffled:
            # The same order for both sides: what the control takes away is the place alone.
            chosen_places, rejected_places = (
                shuffled_in_space(side, generator(reading.seed, "places", pair.id)) for side in weights
            )
            weights = chosen_places, rejected_places
        both.append(weights)
    chosen, rejected = (torch.stack(side)[:, None].to(device) for side in zip(*both, strict=True))
    return chosen, rejected


def _size(latents: Tensor) -> LatentSize:
    frames, height, width = latents.shape[1:]
    return frames, height, width


def _exchanged(pair: TrainingPair) -> TrainingPair:
    maps = None if pair.maps is None else (pair.maps[1], pair.maps[0])
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, maps=maps)


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


def _locate(
    row: PreferencePair, by_id: dict[str, Candidate], folder: Path, maps: Path | None
) -> TrainingPair:
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
    if maps is not None:
        for id in (row.chosen, row.rejected):
            if not (maps / f"{id}.safetensors").is_file():
                raise InputError(
                    f"{maps} has no map of candidate {id}: make them for the scores of these pairs"
                )
    return TrainingPair(
        id=row.id,
        prompt_id=row.prompt_id,
        margin=row.margin,
        maps=None
        if maps is None
        else (maps / f"{row.chosen}.safetensors", maps / f"{row.rejected}.safetensors"),
        chosen=folder / str(chosen.latents),
        rejected=folder / str(rejected.latents),
        conditioning=folder / str(chosen.conditioning),
    )
