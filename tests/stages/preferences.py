"""Small preferences on disk, as others keep them."""

import json
from pathlib import Path

import torch
from torch import Tensor

from videogpa.video_io import write_image, write_master

FRAMES, SIDE = 5, 32
CAPTIONS = ("a red box", "camera orbits left", "a blue box")


def clip(seed: int, frames: int = FRAMES, height: int = SIDE, width: int = SIDE) -> Tensor:
    """Coarse coloured noise [t 3 h w]."""
    coarse = torch.rand(frames, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width))


def write_clips(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        write_master(folder / name, clip(seed))


def folders(root: Path) -> Path:
    """Three pairs with captions; the first has a first frame."""
    write_clips(root, [f"{side}/{name}.mkv" for side in ("chosen", "rejected") for name in "abc"])
    for name, caption in zip("abc", CAPTIONS, strict=True):
        (root / f"{name}.txt").write_text(caption + "\n")
    write_image(root / "a.png", clip(0)[0])
    return root


def table(root: Path, rows: list[dict]) -> Path:
    """`metadata.jsonl` beside the clips that the rows name."""
    names = [value for row in rows for value in row.values() if str(value).endswith(".mkv")]
    write_clips(root, list(dict.fromkeys(names)))
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def published(root: Path, scores: list[list[float | None]], motion: float = 0.5, **settings) -> Path:
    """Published metadata with one group for every list of scores."""
    groups = []
    for g, group in enumerate(scores):
        paths = [f"videos/{g}_{k}.mkv" for k in range(len(group))]
        write_clips(root, paths)
        videos = [
            {"video_path": path, "generation_id": str(k), "motion_norm": motion}
            | ({} if score is None else {"consistency_score": score})
            for k, (path, score) in enumerate(zip(paths, group, strict=True))
        ]
        groups.append({"group_id": f"1K/{g}", "text_prompt": CAPTIONS[g], "videos": videos})
    root.joinpath("meta_data.json").write_text(json.dumps(settings | {"groups": groups}))
    return root / "meta_data.json"
