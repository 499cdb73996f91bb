"""Rounds of a run: where each lies, and the LoRAs of several as one for the plain base.

The first round's folders lie in the run itself, those of round k in `rounds/<k>`; its arm is `<arm>_round_<k>`.
"""

from itertools import zip_longest
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import CONFIG, MANIFEST, open_artifact, write_json_atomic
from videogpa.dpo.lora_formats import read_loras, stacked, write_diffusers
from videogpa.dpo.training import LOG
from videogpa.errors import InputError
from videogpa.stages.train import LORA, SUMMARY, Taught, taught
from videogpa.types import Row

ROUNDS, EVALUATION = "rounds", "evaluation"


class StackConfig(BaseModel):
    """What is stacked: the LoRA of `rounds` rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=2)


def round_folder(run: Path, number: int) -> Path:
    """Where a round's candidates, scores, pairs and LoRAs lie."""
    return run if number == 1 else run / ROUNDS / str(number)


def require_whole(run: Path) -> None:
    """Refuse the folder of one round in the place of its run's.

    Raises:
        InputError: it is one.
    """
    place = run.absolute()
    if place.name.isdecimal() and place.parent.name == ROUNDS:
        raise InputError(f"{run} is one round: give the folder of the whole run, {place.parent.parent}")


def round_arm(arm: str, number: int) -> str:
    """What the LoRA of so many rounds is called in the evaluation."""
    return arm if number == 1 else f"{arm}_round_{number}"


def arm_before(arm: str) -> str | None:
    """The arm of the round before; None of a first round's."""
    name, _, number = arm.rpartition("_round_")
    return round_arm(name, int(number) - 1) if name and number.isdecimal() else None


def trainings_of(run: Path) -> dict[str, Path]:
    """The folder of every training of a run that has begun, by its arm: the first round's first."""
    return {
        round_arm(folder.name, number): folder
        for number in _numbers(run)
        for folder in sorted((round_folder(run, number) / LORA).glob("*"))
        if (folder / CONFIG).exists() and any(folder.rglob(LOG))
    }


def evaluation_of(run: Path) -> Path:
    """The evaluation of the most rounds that is complete; the first round's where none is."""
    folders = [round_folder(run, number) / EVALUATION for number in _numbers(run)]
    return next((folder for folder in reversed(folders) if (folder / MANIFEST).exists()), folders[0])


def stack(cfg: StackConfig, earlier: Path, new: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write one LoRA for the plain base that does what `new` does on top of `earlier`; returns the folder.

    Beside it stands what taught them: the metric of the newer one's pairs, the licences of both.

    Raises:
        InputError: a LoRA is missing or unreadable.
    """
    with open_artifact(
        out,
        stage="stack",
        config=cfg,
        inputs={"earlier": earlier, "new": new},
        row_type=Row,
        overwrite=overwrite,
    ) as artifact:
        if artifact.complete:
            return out
        # Of two experts each has a LoRA of its own.
        experts = zip_longest(read_loras(earlier), read_loras(new))
        files = write_diffusers([stacked([lora for lora in both if lora]) for both in experts], out)
        before, after = taught(earlier), taught(new)
        both = Taught(preferred_by=after.preferred_by, licenses=before.licenses | after.licenses)
        write_json_atomic(out / SUMMARY, both.model_dump())
        artifact.finish([], [SUMMARY, *(file.name for file in files)])
    return out


def _numbers(run: Path) -> list[int]:
    return [1, *sorted(int(path.name) for path in (run / ROUNDS).glob("*") if path.name.isdecimal())]
