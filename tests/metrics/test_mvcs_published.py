import math

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, prediction
from videogpa.errors import CannotJudge
from videogpa.metrics import mvcs_published


def score(geometry) -> float:
    return mvcs_published.measure(as_clip(geometry))


def published_slowly(geometry) -> float:
    """The definition once more, pixel by pixel, from the pinhole equations alone."""
    t, h, w = geometry.depth.shape
    poses, ks, depth = geometry.extrinsics_w2c.double(), geometry.intrinsics.double(), geometry.depth.double()

    def at(j: int, row: int, column: int) -> float:
        return depth[j, row, column].item() if 0 <= row < h and 0 <= column < w else 0.0

    errors = []
    for i in range(t - 1):
        squares = []
        for y in range(h):
            for x in range(w):
                ray = torch.linalg.solve(ks[i], torch.tensor([x, y, 1.0], dtype=torch.float64))
                world = torch.linalg.solve(poses[i, :, :3], ray * depth[i, y, x] - poses[i, :, 3])
                moved = poses[i + 1, :, :3] @ world + poses[i + 1, :, 3]
                u, v, z = (ks[i + 1] @ moved).tolist()
                u, v = u / z, v / z
                if not (z > 0 and 0 <= u < w and 0 <= v < h):
                    continue
                row, column = math.floor(v), math.floor(u)
                b, a = v - row, u - column
                top = (1 - a) * at(i + 1, row, column) + a * at(i + 1, row, column + 1)
                bottom = (1 - a) * at(i + 1, row + 1, column) + a * at(i + 1, row + 1, column + 1)
                squares.append(((1 - b) * top + b * bottom - z) ** 2)
        errors.append(sum(squares) / len(squares))
    return math.exp(-sum(errors) / len(errors))


def test_equals_an_independent_slow_loop():
    geometry = prediction(seed=1, frames=3, height=10, width=12, motion="orbits left")
    assert score(geometry) == pytest.approx(published_slowly(geometry), abs=1e-4)


def test_keeps_the_published_weaknesses():
    """The unit of length decides, and a frozen clip is perfect."""
    values = [score(scenes.move_world(prediction(), scale)) for scale in (0.1, 1, 10)]
    assert values[0] > 0.99
    assert 0.5 < values[1] < 0.95
    assert values[2] < 1e-3
    assert score(scenes.frozen(prediction())) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("spoil", [scenes.far_apart, lambda g: scenes.scale_depth(g, math.nan)])
def test_a_failure_is_never_a_number(spoil):
    with pytest.raises(CannotJudge):
        score(spoil(prediction()))
    with pytest.raises(CannotJudge):
        score(prediction(frames=1))
