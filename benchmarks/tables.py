"""The tables of README.md and docs/results.md, made from the results of the benchmarks.

    python benchmarks/tables.py            # writes them; with --check it only says whether they are up to date

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

HOME = Path(__file__).parent
PAGES = (HOME.parent / "README.md", HOME.parent / "docs" / "results.md")
DEMO = "embedded_demo_cpu2_2026-11-30.json"
REWARD = "reward_held_out_cpu2_2026-11-30/metrics.csv"
PRIMARY = "primary_oracle_cpu2_2026-11-30.csv"
PAIRS = "data_efficiency_cpu2_2026-11-30.csv"
PAIRS_BY_DEVELOPMENT = "data_efficiency_development_cpu2_2026-11-30.csv"
PAIRS_BY_CONSISTENCY = "data_efficiency_cpu2_2026-11-28.csv"
BEST_OF = "best_of_cpu2_2026-11-30.csv"
ROUNDS = "rounds_cpu2_2026-11-30.csv"
GAIN = "embedded_gain_cpu2_2026-11-30.csv"
SIZES = "base_size_cpu2_2026-11-30"
TEN_TO_MINUS_FIVE = 1e5
Table = Sequence[Sequence[str]]
"""The head, then the rows."""


def main(check: Annotated[bool, typer.Option("--check", help="write nothing")] = False) -> None:
    """Fill every table of the pages."""
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if check and stale:
        raise SystemExit(
            f"not up to date: {', '.join(page.name for page in stale)}; run {Path(__file__).name}"
        )
    for page in stale:
        page.write_text(filled(page.read_text()))


def filled(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        KeyError: a table that nothing here makes.
    """
    return re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)",
        lambda found: found[1] + _markdown(TABLES[found[2]]()) + found[3],
        page,
        flags=re.DOTALL,
    )


def demo() -> Table:
    """What the demo's LoRA changes on held-out prompts."""
    summary = json.loads((HOME / DEMO).read_text())
    found = {(c["arm"], c["against"], c["metric"]): c for c in summary["comparisons"]}
    shown = {
        summary["primary"]: f"**`{summary['primary']}`** (the primary; lower is better)",
        "oracle_gradient_bias2": "`oracle_gradient_bias2`, ×10⁻⁵ (lower is better)",
        "oracle_bias2": "`oracle_bias2`, ×10⁻⁵ (lower is better)",
        "oracle_psnr": "`oracle_psnr`, dB",
        "oracle_ssim": "`oracle_ssim`",
        "oracle_warp": "`oracle_warp` (lower is better)",
        "oracle_flow_epe": "`oracle_flow_epe`, pixels (lower is better)",
        "oracle_flow_bias2": "`oracle_flow_bias2`, pixels² (lower is better)",
        "perceptual_drift": "`perceptual_drift` (lower is better)",
        "depth_agreement": "`depth_agreement`",
        "edge_agreement": "`edge_agreement` (the reward it was trained by)",
        "consistency": "`consistency`",
        "motion": "`motion` (to be kept)",
        "dynamic_degree": "`dynamic_degree` (to be kept)",
        "sharpness": "`sharpness` (to be kept)",
    }
    rows = []
    for metric, label in shown.items():
        scale = TEN_TO_MINUS_FIVE if "×10⁻⁵" in label else 1.0
        base, arm = (summary["arms"][name][metric] * scale for name in ("base", "dpo"))
        ours, control = found["dpo", "base", metric], found["dpo", "dpo_random", metric]
        # A guard has no better.
        won = "" if ours["family"] == "guard" else percent(ours["win_rate"])
        rows.append(
            (label, number(base, 4), number(arm, 4), _change(ours, scale), won, _change(control, scale))
        )
    head = ("", "base", "DPO", "DPO − base", "better in (prompts)", "DPO − DPO on shuffled labels")
    return [head, *rows]


def reward() -> Table:
    """How rightly our scores and the paper's rank clips whose faults are known."""
    labels = {"consistency": "`consistency`", OURS: "`edge_agreement`", "paper_reward": "the paper's reward"}
    columns = ("judged", "ranking", "monotone", "above_clean", "false_alarms")
    rows = {row["metric"]: row for row in _csv(REWARD)}
    head = (
        *("", "clips judged", "stronger fault scores lower", "in all steps"),
        *("degraded clip above the clean one", "legitimate change punished"),
    )
    cells = [
        (labels[name], *(f"{fixed(100 * float(rows[name][c]), 1)} %" for c in columns)) for name in labels
    ]
    return [head, *cells]


def primary() -> Table:
    """Change of every candidate for the primary, in per cent, under every cheat."""
    candidates = {
        "unexplained": "**unexplained**",
        "gradient_bias2": "gradient bias²",
        "bias2": "bias²",
        "flow_bias2": "flow bias²",
        "psnr": "PSNR, dB lost",
        "ssim": "SSIM",
        "flow_error": "flow error",
        "warp_error": "true warp error",
        "warp_over_gradient": "warp / gradient",
        "census_warp": "census warp",
        "lost_sharpness": "sharpness lost",
        "lost_dynamics": "dynamics lost",
    }
    arms = {
        "4 steps": "4 sampler steps instead of 8",
        "6 steps": "6 sampler steps",
        "sft_chosen": "SFT on chosen",
        "sft_random": "SFT on random samples",
        "shrunk": "half way to the mean of the seeds",
        "blurred": "blur of .6 pixels",
        "lightly_blurred": "blur of .3 pixels",
        "sharpened": "sharpened by a tenth",
        "stretched": "4 % more contrast",
        "smoothed": "a fifth from the frames around",
        "all of 6 steps": "the last two, of 6 sampler steps",
        "slowed": "a tenth slower",
        "frozen": "last third frozen",
        "dpo_random": "DPO on shuffled labels",
        "dpo": "**DPO**",
        "dpo_240": "DPO on 240 prompts",
    }
    rows = {(row["arm"], row["candidate"]): row for row in _csv(PRIMARY)}
    candidates = {name: label for name, label in candidates.items() if any(name in key for key in rows)}
    cells = [
        (label, *(_percent(rows[arm, name], float(rows[arm, name]["change"])) for name in candidates))
        for arm, label in arms.items()
        if any(arm in key for key in rows)
    ]
    return [("", *candidates.values()), *cells]


def gain(
    file: str,
    labels: Mapping[str, str],
    scenes: str,
    metrics: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
) -> Table:
    """Change of every metric in per cent over all training seeds, and the first one's wins by seed."""
    rows = {
        (row["arm"], row["against"], row["metric"], row["seed"]): row
        for row in _csv(file)
        if row["scenes"] == scenes
    }
    seeds = sorted({seed for *_, seed in rows if seed != "all"})
    metrics = {name: label for name, label in metrics.items() if any(name in key for key in rows)}
    first = next(iter(metrics), "")
    body = []
    for arm, against in pairs:
        if (arm, against, first, "all") not in rows:
            continue
        cells = [_gained(rows[arm, against, name, "all"]) for name in metrics]
        by_seed = " ".join(fixed(float(rows[arm, against, first, seed]["won"] or 0), 2) for seed in seeds)
        label = _sides(rows[arm, against, first, "all"], labels)
        body.append((label, *cells, by_seed))
    return [("", *metrics.values(), f"{metrics.get(first, '')}: won, by training seed"), *body]


def efficiency(file: str) -> Table:
    """Against the base: pairs, the primary's gain as a share of that of 240 prompts, and what the gain's table has."""
    rows = {(row["arm"], row["metric"], row["seed"]): row for row in _csv(file) if row["against"] == "base"}
    metrics = {name: label for name, label in BY_TRUTH.items() if (WHOLE, name, "all") in rows}
    first = next(iter(metrics))
    seeds = sorted({seed for *_, seed in rows if seed != "all"})
    whole = float(rows[WHOLE, first, "all"]["difference"])
    body = []
    for arm in PARTS:
        if (arm, first, "all") in rows:
            overall = rows[arm, first, "all"]
            by_seed = " ".join(fixed(float(rows[arm, first, seed]["won"]), 2) for seed in seeds)
            share = fixed(float(overall["difference"]) / whole, 2)
            cells = [_gained(rows[arm, name, "all"]) for name in metrics]
            label = _sides(overall, PARTS).removesuffix(" − base")
            body.append((label, overall["pairs"], share, *cells, by_seed))
    return [("", "pairs", "share of the gain", *metrics.values(), "won, by training seed"), *body]


def sizes() -> Table:
    """What other sizes and codes of the base learn in as many steps, and what the recipe gains on each."""
    labels = {
        "narrower": "narrower: 2 heads of 48 instead of 4",
        "as shipped": "as shipped",
        "wider": "wider: 6 heads",
        "deeper": "deeper: 12 layers instead of 6",
        "coarser code": "code of 16 channels instead of 32",
        "finer code": "code of 48 channels",
    }
    columns = {"psnr": 2, "flow_epe": 2, "sharpness": 2, "unexplained": 3, "bias2": 5, "variance": 5}
    gained = {
        (row["size"], row["arm"], row["against"], row["metric"]): row for row in _csv(f"{SIZES}_gain.csv")
    }
    body = []
    for row in _csv(f"{SIZES}.csv"):
        found = {name: float(row[name]) for name in ("parameters", "code_psnr", "psnr_blurred", *columns)}
        body.append((
            labels[row["size"]],
            f"{found['parameters'] / 1e6:.1f} M",
            fixed(found["code_psnr"], 1),
            *(fixed(found[name], places) for name, places in columns.items()),
            fixed(found["psnr_blurred"] - found["psnr"], 2, signed=True),
            *(_gained(gained[row["size"], arm, "base", "oracle_unexplained"]) for arm in ("dpo", "dpo_random")),
        ))  # fmt: skip
    head = (
        *(
            "",
            "weights",
            "PSNR of the code alone",
            "PSNR",
            "flow error",
            "sharpness",
            "unexplained share",
            "bias²",
        ),
        *("variance", "blur of .6 pixels, dB", "the recipe's gain", "on shuffled labels"),
    )
    return [head, *body]


def best_of() -> Table:
    """Change of every metric in per cent against one draw by the base: its best of N, the LoRA, and its best."""
    rows = {
        (row["drawn_by"], int(row["best_of"]), row["by"], row["metric"]): row
        for row in _csv(BEST_OF)
        if row["against"] == "base"
    }
    metrics = {
        name: label
        for name, label in (BY_TRUTH | {"motion": "motion"}).items()
        if ("base", 8, OURS, name) in rows
    }
    sizes = sorted({size for _, size, *_ in rows if size > 1})
    shown = [("base", size, OURS) for size in sizes]
    shown += [("base", 8, by) for by in JUDGES if by != OURS]
    shown += [("lora", 1, ""), *(("lora", size, OURS) for size in sizes)]
    body = []
    for drawn_by, size, by in shown:
        # What is kept of many pools is a mean: the share of prompts that it is better for.
        cells = [
            _gained(row | {"won": row["gained"]}) for row in (rows[drawn_by, size, by, m] for m in metrics)
        ]
        chosen = f"best of {size} by {JUDGES[by]}" if by else "one draw"
        body.append((f"the LoRA's {chosen}" if drawn_by == "lora" else chosen, *cells))
    return [("", *metrics.values()), *body]


def rounds() -> Table:
    """Every round against the base and the one before, and one training of as many steps; what the doctor says."""
    rows = {(row["arm"], row["against"], row["metric"], row["seed"]): row for row in _csv(ROUNDS)}
    overall = "all" if any(seed == "all" for *_, seed in rows) else "0"
    metrics = {name: label for name, label in BY_ROUND.items() if any(name in key for key in rows)}
    later = sorted({arm for arm, *_ in rows if arm.startswith("dpo_round_")})
    names = {"dpo": "one round"} | {arm: f"{arm.removeprefix('dpo_round_')} rounds" for arm in later}
    names |= {"longer": f"one round of up to {len(later) + 1} times the steps"}
    shown = [(arm, "base") for arm in names] + list(zip(later, ["dpo", *later], strict=False))
    shown += [(later[-1], "longer")]
    body = []
    for arm, against in shown:
        cells = [_gained(rows[arm, against, name, overall]) for name in metrics]
        said = {
            verdict.split(":")[0]
            for key, row in rows.items()
            if key[0] == arm and row["doctor"]
            for verdict in row["doctor"].split(" | ")
        }
        doctor = ", ".join(sorted(said)) or "healthy" if against == "base" else ""
        body.append((_sides(rows[arm, against, next(iter(metrics)), overall], names), *cells, doctor))
    return [("", *metrics.values(), "doctor"), *body]


OURS = "edge_agreement"
JUDGES = {
    OURS: "**`edge_agreement`**",
    "consistency": "`consistency`",
    "depth_agreement": "depth agreement",
    "paper_reward": "the paper's reward",
    "epipolar": "epipolar reward",
    "oracle_warp": "the true warp error",
    "oracle_psnr": "the true PSNR",
}
WHOLE = "prompts_240"
PARTS = {
    "prompts_8": "8 prompts × 6 candidates",
    "prompts_24": "24 × 6",
    "prompts_64": "64 × 6",
    WHOLE: "**240 × 6**",
    "prompts_240_short": "240 × 6, half the steps",
    "prompts_720": "720 × 6",
    "candidates_2": "720 × 2",
    "candidates_3": "480 × 3",
    "prompts_64_short": "64 × 6, half the steps",
    "prompts_96": "96 × 6",
    "prompts_96_short": "96 × 6, half the steps",
    "prompts_96_margin_short": "96 × 6, half the steps, weighted by margin",
    "prompts_144": "144 × 6",
    "two_pairs": "240 × 6, two pairs a prompt",
    "two_pairs_short": "240 × 6, two pairs a prompt, half the steps",
    "two_pairs_margin_short": "240 × 6, two pairs a prompt, half the steps, weighted by margin",
    "best_worst": "240 × 6, the best against the worst",
    "all_pairs": "240 × 6, all pairs",
    "any_motion": "240 × 6, whatever moves",
    "margin_weighted": "240 × 6, weighted by margin",
    "rank_4": "240 × 6, half the steps, rank 4",
    "rank_64": "240 × 6, half the steps, rank 64",
    "half_rate": "240 × 6, half the steps, half the rate",
    "double_rate": "240 × 6, half the steps, twice the rate",
    "weak_beta": "240 × 6, half the steps, β 500",
    "strong_beta": "240 × 6, half the steps, β 8000",
    "cosine": "240 × 6, half the steps, a falling rate",
    "ema": "240 × 6, half the steps, weights averaged (.95)",
    "batch_16": "240 × 6, half the steps of 16 pairs",
}
LABELS = {
    "base": "base",
    "ours": "**ours**",
    "ours_shuffled": "ours, labels shuffled",
    "consistency": "`consistency`",
    "consistency_shuffled": "`consistency`, labels shuffled",
    "paper": "the paper's reward",
    "paper_shuffled": "the paper's, labels shuffled",
    "epipolar": "epipolar reward",
    "epipolar_shuffled": "epipolar, labels shuffled",
    "anchored": "ours, anchored",
    "safeguarded": "ours, safeguarded",
    "dense": "ours, dense",
    "shared_noise": "ours, half the noise shared",
    "margin_weighted": "ours, weighted by margin",
    "best_worst": "ours, best against worst",
    "paper_1.2": "the paper's, 1.2 times as strong",
    "sft_chosen": "SFT on chosen",
    "sft_random": "SFT on random samples",
    "six_steps": "the base with six sampler steps",
    "six_steps_filtered": "these, smoothed and stretched",
    "faultless": "the base before it saw faults",
}
AGAINST_BASE = [(arm, "base") for arm in LABELS if arm != "base"]
AGAINST_OURS = [
    *(("ours", arm) for arm in LABELS if arm not in ("base", "ours", "faultless")),
    *((arm, f"{arm}_shuffled") for arm in ("consistency", "paper", "epipolar")),
]
BY_TRUTH = {
    "oracle_unexplained": "**unexplained**",
    "oracle_gradient_bias2": "gradient bias²",
    "oracle_bias2": "bias²",
    "oracle_flow_bias2": "flow bias²",
    "oracle_psnr": "PSNR, dB",
    "oracle_flow_epe": "flow error",
    "oracle_warp": "warp error",
    "sharpness": "sharpness",
    "dynamic_degree": "dynamics",
    "oracle_variance": "variance",
}
BY_ROUND = BY_TRUTH | {
    "edge_agreement": "`edge_agreement`",
    "consistency": "consistency",
    "perceptual_drift": "drift",
    "depth_agreement": "depth agreement",
    "motion": "motion",
}
BY_GEOMETRY = {
    "perceptual_drift": "drift",
    "depth_agreement": "depth agreement",
    "consistency": "consistency",
    "motion_smoothness": "motion smoothness",
    "motion": "motion",
    "dynamic_degree": "dynamics",
    "sharpness": "sharpness",
}


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """So many significant digits, no zero before the point, a true minus."""
    exponent = int(f"{value:e}".split("e")[1])
    return fixed(value, max(0, digits - 1 - exponent), signed=signed)


def fixed(value: float, places: int, *, signed: bool = False) -> str:
    """So many decimal places, no zero before the point, a true minus."""
    text = f"{abs(value):.{places}f}"
    if not float(text):
        return "0"
    sign = "−" if value < 0 else "+" if signed else ""
    return sign + text.removeprefix("0")


def percent(share: float) -> str:
    """Rounded."""
    return f"{100 * share:.0f} %"


def _change(compared: dict[str, Any], scale: float) -> str:
    low, high = (number(v * scale, 3, signed=True) for v in compared["ci95"])
    return f"{number(compared['mean_difference'] * scale, 3, signed=True)} [{low}, {high}]"


def _percent(row: dict[str, str], change: float) -> str:
    """'−.8* (.83)': the change in per cent, a star where it is clear, the share of prompts won."""
    clear = _star(row)
    won = f" ({fixed(float(row['won']), 2)})" if row["won"] else ""
    places = 2 if abs(change) < 0.01 else 1
    return f"{fixed(100 * change, places, signed=True)}{clear}{won}"


def _gained(row: dict[str, str]) -> str:
    """As `_percent`; of PSNR the change in dB, since dB have no ratio."""
    if row["metric"] != "oracle_psnr":
        # What is rounded in the file is not to be rounded again.
        return _percent(row, float(row["difference"]) / float(row["level"]))
    clear = _star(row)
    return f"{fixed(float(row['difference']), 2, signed=True)}{clear} ({fixed(float(row['won']), 2)})"


def _sides(row: dict[str, str], names: Mapping[str, str]) -> str:
    """'ours − base', with a dagger after whoever breaks a guard."""
    sides = (("arm", "arm_breaks"), ("against", "against_breaks"))
    return " − ".join(
        names.get(row[side], row[side]) + " †" * bool(row.get(breaks)) for side, breaks in sides
    )


def _star(row: dict[str, str]) -> str:
    """Where the interval is clear of zero, and the test, corrected for all comparisons of its family, says so, too."""
    clear = float(row["low"]) * float(row["high"]) > 0 and float(row.get("holm_p") or 0) < 0.05
    return "*" if clear and row.get("verdict") != "unclear" else ""


def _csv(name: str) -> list[dict[str, str]]:
    with (HOME / name).open() as file:
        return list(csv.DictReader(file))


def _markdown(table: Table) -> str:
    head, *rows = table
    lines: Iterable[Sequence[str]] = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


TABLES: dict[str, Callable[[], Table]] = {
    "demo": demo,
    "reward": reward,
    "primary": primary,
    "efficiency": partial(efficiency, PAIRS),
    "efficiency_development": partial(efficiency, PAIRS_BY_DEVELOPMENT),
    "efficiency_before": partial(efficiency, PAIRS_BY_CONSISTENCY),
    "sizes": sizes,
    "best_of": best_of,
    "rounds": rounds,
    "gain": partial(gain, GAIN, LABELS, "static", BY_TRUTH, AGAINST_BASE),
    "gain_against": partial(gain, GAIN, LABELS, "static", BY_TRUTH, AGAINST_OURS),
    "gain_six_steps": partial(gain, GAIN, LABELS, "static, six steps", BY_TRUTH, AGAINST_BASE + AGAINST_OURS),
    "gain_moving": partial(gain, GAIN, LABELS, "dynamic", BY_TRUTH, AGAINST_BASE + AGAINST_OURS),
    "gain_geometry": partial(
        gain, GAIN, LABELS, "static by geometry", BY_GEOMETRY, AGAINST_BASE + AGAINST_OURS
    ),
    "gain_captions": partial(gain, GAIN, LABELS, "captions", BY_GEOMETRY, AGAINST_BASE + AGAINST_OURS),
}

if __name__ == "__main__":
    typer.run(main)
