"""What choosing the best of N gains, by our score, by others and by the truth, which bounds it; alone and with a LoRA.

    python benchmarks/best_of.py --out work/best_of --result benchmarks/best_of_cpu2_DATE

Many candidates of every held-out prompt are drawn once and split at random, again and again, into pools of N, of each
of which the best by a label is kept. What one video's metrics gain is a mean over all that were kept; what the seeds'
common error gains, one over products of two that were kept from different pools. Both are expectations, so the share
of prompts that gain is higher than it would be of single choices.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from comparisons import RESAMPLES, SEED
from jaxtyping import Float, Int
from rich.progress import track
from rows import write_rows

from videogpa.artifact import read_rows
from videogpa.metrics.between_seeds import filtered, gradients, unexplained_share
from videogpa.stages import prompts, sample, score
from videogpa.stages.comparison import direction
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig, higher_is_better
from videogpa.statistics import bootstrap_interval, wins
from videogpa.types import Candidate, MetricValues, Prompt, Score
from videogpa.video_io import read_video
from videogpa.world.truth import true_continuation

LABELS = (
    "edge_agreement",
    "consistency",
    "depth_agreement",
    "paper_reward",
    "epipolar",
    "oracle_warp",
    "oracle_psnr",
)
SINGLE = ("oracle_psnr", "oracle_ssim", "oracle_flow_epe", "oracle_warp", "sharpness", "motion")
TOGETHER = ("oracle_bias2", "oracle_gradient_bias2")
PRIMARY = "oracle_unexplained"
SPLITS = 50
BASE, LORA = "base", "lora"
Kept = tuple[str, int, str]
"""What drew the candidates, of how many one is kept, by which label; of one there is no choice and no label."""


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    held_out: Annotated[int, typer.Option(help="prompts")] = 100,
    best_of: Annotated[list[int] | None, typer.Option(help="N, repeatable")] = None,
    model: str = "embedded",
    lora: str = "embedded",
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    torch.set_num_threads(1)
    sizes = sorted(best_of or (2, 4, 8, 16))
    asked = prompts.run_world(WorldPrompts(split="held_out", count=held_out), out / "prompts")
    drawn = SampleConfig(
        model=model, candidates=2 * sizes[-1], seed=1_000, steps=8, keep_latents=False, previews=False
    )
    judge = ScoreConfig(geometry="embedded", metrics=tuple(dict.fromkeys((*LABELS, *SINGLE))))
    means: dict[Kept, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for drawn_by, cfg in {BASE: drawn, LORA: drawn.model_copy(update={"lora": lora})}.items():
        home = out if drawn_by == BASE else out / LORA
        candidates = sample.run(cfg, asked, home / "candidates", workers=workers)
        scores = score.run(judge, candidates, home / "scores", prompts=asked, workers=workers)
        for values, together in track(list(_measured(asked, candidates, scores)), "choosing"):
            kept = {(drawn_by, 1, ""): [np.arange(len(values))]}
            for size, label in itertools.product(sizes, LABELS):
                kept[drawn_by, size, label] = _kept(values, label, size)
            for key, indices in kept.items():
                for metric, value in _means(values, together, indices).items():
                    means[key][metric].append(value)
    rows = [
        _row(*key, against, metric, np.array(values), np.array(means[against, 1, ""][metric]))
        for against in (BASE, LORA)
        for key, found in means.items()
        for metric, values in found.items()
        if key != (against, 1, "")
    ]
    write_rows(rows, result or out / "best_of")


@dataclass(frozen=True, kw_only=True)
class Together:
    """Of every two of a prompt's videos: products of their errors, and of their filtered gradients; these with the
    truth's, too.
    """

    errors: Mapping[str, Float[np.ndarray, "n n"]]
    gram: Float[torch.Tensor, "n n 3 3"]
    along: Float[torch.Tensor, "n 3"]
    energy: float

    def of(self, kept: Int[np.ndarray, " k"]) -> dict[str, float]:
        """What those that were kept have in common, each from a pool of its own."""
        apart = ~np.eye(len(kept), dtype=bool)
        means = {
            name: float(product[np.ix_(kept, kept)][apart].mean()) for name, product in self.errors.items()
        }
        gram = self.gram[kept][:, kept][apart].mean(0)
        along = self.along[kept]
        outer = torch.einsum("ia,jb->ijab", along, along)[apart].mean(0)
        return means | {PRIMARY: unexplained_share((gram + gram.T) / 2, (outer + outer.T) / 2, self.energy)}


def _measured(asked: Path, candidates: Path, scores: Path) -> Iterator[tuple[list[MetricValues], Together]]:
    """Of every prompt its candidates' metrics, and what they say together."""
    metrics = {row.id: row.metrics for row in read_rows(scores, Score)}
    by_prompt: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in read_rows(candidates, Candidate):
        by_prompt[candidate.prompt_id].append(candidate)
    for prompt in read_rows(asked, Prompt):
        rows = by_prompt[prompt.id]
        videos = torch.stack([read_video(candidates / str(row.video)) for row in rows])
        truth = true_continuation(prompt.world or {}, *(videos.shape[i] for i in (1, 3, 4))).frames
        drawn, true = torch.stack([gradients(video) for video in videos]), gradients(truth)
        errors = ((videos - truth)[:, 1:].flatten(1), (drawn - true)[:, 1:].flatten(1))
        seen, target = torch.stack([filtered(video) for video in drawn]), true[1:].flatten().double()
        yield (
            [metrics[row.id] for row in rows],
            Together(
                errors={
                    name: (error @ error.T / error.shape[1]).double().numpy()
                    for name, error in zip(TOGETHER, errors, strict=True)
                },
                gram=torch.einsum("ian,jbn->ijab", seen, seen),
                along=seen @ target,
                energy=(target @ target).item(),
            ),
        )


def _kept(values: Sequence[MetricValues], label: str, size: int) -> list[np.ndarray]:
    """The indices of the best of every pool, a list for each split; what has no label comes last."""
    sign = 1 if higher_is_better(label) else -1
    ranks = np.array([-np.inf if (value := v.get(label)) is None else sign * value for v in values])
    generator, kept = np.random.default_rng(SEED), []
    for _ in range(SPLITS):
        pools = generator.permutation(len(ranks))[: len(ranks) // size * size].reshape(-1, size)
        kept.append(np.take_along_axis(pools, ranks[pools].argmax(1)[:, None], 1)[:, 0])
    return kept


def _means(
    values: Sequence[MetricValues], together: Together, kept: Sequence[np.ndarray]
) -> dict[str, float]:
    means = {}
    for metric in SINGLE:
        column = np.array([np.nan if v.get(metric) is None else v[metric] for v in values], float)
        means[metric] = float(np.nanmean([np.nanmean(column[indices]) for indices in kept]))
    common = [together.of(indices) for indices in kept]
    return means | {name: float(np.mean([found[name] for found in common])) for name in common[0]}


def _row(
    drawn_by: str, size: int, label: str, against: str, metric: str, ours: np.ndarray, theirs: np.ndarray
) -> dict[str, Any]:
    """A CSV's row: the difference to one draw by `against`."""
    differences, better = ours - theirs, direction(metric)
    known = np.isfinite(differences)
    differences, theirs = differences[known], theirs[known]
    level, names = abs(theirs.mean()), [str(i) for i in range(len(theirs))]
    low, high = bootstrap_interval(differences, names, RESAMPLES, SEED)
    gained = "" if better is None else f"{wins(differences if better else -differences).mean():.3f}"
    return {
        "drawn_by": drawn_by,
        "best_of": size,
        "by": label,
        "against": against,
        "metric": metric,
        "level": f"{theirs.mean():.6g}",
        "difference": f"{differences.mean():.6g}",
        "relative": f"{differences.mean() / level:+.4f}",
        "low": f"{low / level:+.3g}",
        "high": f"{high / level:+.3g}",
        "gained": gained,
        "prompts": len(theirs),
    }


if __name__ == "__main__":
    typer.run(main)
