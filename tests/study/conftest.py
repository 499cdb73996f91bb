import pytest
import torch
from pydantic import BaseModel

from tests.study import postgresql
from videogpa.artifact import open_artifact, read_rows, write_json_atomic
from videogpa.study.material import create
from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.types import EvalRow, Prompt
from videogpa.video_io import write_master

ARMS = ("base", "dpo", "sft")
PROMPTS = 8
SEEDS = (11, 12)


class Nothing(BaseModel):
    pass


def frames(seed: int) -> torch.Tensor:
    """A picture that wanders, seen by eyes as a video."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, (48, 40), mode="bicubic").clamp(0, 1)
    return torch.cat([picture.roll(step, -1)[..., :32, :32] for step in range(9)])


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory):
    """(evaluation, prompts) of three arms, one video of the second failed."""
    home = tmp_path_factory.mktemp("evaluated")
    ids = [f"p{i}" for i in range(PROMPTS)]
    rows = []
    for a, arm in enumerate(ARMS):
        for i, id in enumerate(ids):
            for seed in SEEDS:
                video = f"samples/{arm}/{id}-{seed}.mkv"
                write_master(home / "evaluation" / video, frames(1000 * a + 10 * i + seed), fps=8)
                metrics = {"consistency": 0.1 * a, "sharpness": -0.1 * a, "motion": 1.0}
                rows.append(
                    EvalRow(
                        id=f"{arm}/{id}-{seed}",
                        arm=arm,
                        prompt_id=id,
                        seed=seed,
                        video=video,
                        metrics=metrics,
                    )
                )
    rows[-1] = rows[-1].model_copy(update={"status": "failed", "reason": "for a test", "video": None})
    # Videos first: a folder with files is no artifact yet.
    folder = home / "evaluation"
    moved = folder.rename(home / "videos")
    with open_artifact(folder, stage="evaluation", config=Nothing(), inputs={}, row_type=EvalRow) as artifact:
        (moved / "samples").rename(folder / "samples")
        write_json_atomic(folder / "summary.json", {"arms": {}, "comparisons": []})
        artifact.append(*rows)
        artifact.finish([row.id for row in rows])
    asked = home / "prompts"
    with open_artifact(asked, stage="prompts", config=Nothing(), inputs={}, row_type=Prompt) as artifact:
        artifact.append(*(Prompt(id=id, text=f"a room; the camera pans {id}") for id in ids))
        artifact.finish(ids)
    return folder, asked


CFG = StudyConfig(items=6, checks=1, repeats=1, seed=3)


@pytest.fixture(scope="session")
def study(evaluation, tmp_path_factory):
    return create(CFG, *evaluation, tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(scope="session")
def items(study):
    return read_rows(study, StudyItem)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'votes.sqlite3'}"
        return
    server = request.getfixturevalue("postgresql_server")
    yield from server.database()


@pytest.fixture(scope="session")
def postgresql_server():
    bin = postgresql.binaries()
    if bin is None:
        pytest.skip("PostgreSQL is not installed")
    with postgresql.Server(bin) as server:
        yield server
