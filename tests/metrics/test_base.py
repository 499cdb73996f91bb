import dataclasses
import math

import pytest
import torch

from tests.metrics.scenes import exact, rendered, truth
from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, has
from videogpa.plugin import available, load


def test_shared_modules_are_no_metrics():
    assert not {"base", "flow", "perceptual", "reprojection", "warping"} & set(available("metrics"))


@pytest.mark.parametrize("name", available("metrics"))
def test_every_metric_keeps_the_contract(name):
    metric = load("metrics", name)
    assert isinstance(metric.HIGHER_IS_BETTER, bool)
    assert isinstance(metric.UNIT, str)
    assert isinstance(metric.SOURCE, str)
    assert {"geometry", "normals", "albedo", "truth"} >= metric.NEEDS
    render = rendered()
    full = Clip(frames=render.rgb, geometry=exact(render), truth=truth(render))
    declared = Clip(
        frames=render.rgb,
        geometry=full.geometry if "geometry" in metric.NEEDS else None,
        truth=full.truth if "truth" in metric.NEEDS else None,
    )
    value = metric.measure(declared)
    assert isinstance(value, float)
    assert value == metric.measure(full)


@pytest.mark.parametrize("name", [n for n in available("metrics") if "geometry" in load("metrics", n).NEEDS])
def test_cameras_that_are_not_finite_have_no_value(name):
    render = rendered()
    geometry = exact(render)
    broken = dataclasses.replace(geometry, extrinsics_w2c=torch.full_like(geometry.extrinsics_w2c, math.nan))
    with pytest.raises(CannotJudge, match="not finite"):
        load("metrics", name).measure(Clip(frames=render.rgb, geometry=broken))


@pytest.mark.parametrize("need", ["normals", "albedo"])
def test_what_the_geometry_lacks_is_missing(need):
    geometry = exact(rendered())
    without = dataclasses.replace(geometry, **{need: None})
    assert has(Clip(frames=geometry.images, geometry=geometry), need)
    assert not has(Clip(frames=geometry.images, geometry=without), need)
    assert not has(Clip(frames=geometry.images), need)


@pytest.mark.parametrize("name", available("metrics"))
def test_repeats_and_threads_change_nothing(name):
    """The same number again, and on two threads the same to 1e-5: sums are split differently."""
    render = rendered(1, 4, 64, 96)
    clip = Clip(frames=render.rgb, geometry=exact(render), truth=truth(render))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = load("metrics", name).measure(clip)
        assert load("metrics", name).measure(clip) == one
        torch.set_num_threads(2)
        assert load("metrics", name).measure(clip) == pytest.approx(one, rel=1e-5)
    finally:
        torch.set_num_threads(before)
