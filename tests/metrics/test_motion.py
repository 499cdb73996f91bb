import dataclasses
import math

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, prediction
from videogpa.errors import CannotJudge
from videogpa.metrics import motion


def value(geometry) -> float:
    return motion.measure(as_clip(geometry))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("move", ["orbits left", "pans right"])
def test_scale_and_world_origin_change_nothing(scale, move):
    geometry = prediction(motion=move)
    assert value(scenes.move_world(geometry, scale)) == pytest.approx(value(geometry), rel=1e-3, abs=1e-5)


def test_is_the_path_over_the_depth_plus_the_turn():
    truck = prediction(motion="trucks right")
    assert value(truck) == pytest.approx(0.9 / truck.depth.median().item(), rel=1e-4)
    assert value(prediction(motion="pans left")) == pytest.approx(math.radians(12), rel=1e-4)


def test_hardly_depends_on_the_number_of_frames():
    assert value(prediction(frames=3)) == pytest.approx(value(prediction(frames=9)), rel=0.05)


def test_a_still_camera_has_no_motion():
    geometry = prediction()
    still = geometry.extrinsics_w2c[:1].expand(5, 3, 4)
    assert value(dataclasses.replace(geometry, extrinsics_w2c=still)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("field", ["extrinsics_w2c", "depth"])
def test_nan_is_never_a_number(field):
    geometry = prediction()
    broken = torch.full_like(getattr(geometry, field), math.nan)
    with pytest.raises(CannotJudge):
        value(dataclasses.replace(geometry, **{field: broken}))
