from dataclasses import replace

import pytest
import torch

from tests.metrics.scenes import exact, frozen, jitter, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import backward_warp, relative_pose, resize_intrinsics
from videogpa.metrics import consistency, full_size
from videogpa.metrics.base import Clip
from videogpa.metrics.warping import field_of

SIZE = {"frames": 5, "height": 40, "width": 72}


def reader(geometry):
    return lambda t: geometry.images[t]


# Along the rows every pixel lands on a row exactly, and rounding decides between the cells above and below.
@pytest.mark.parametrize(
    ("motion", "tolerance"), [("trucks right", 1e-4), ("orbits left", 1e-5), ("dollies forward", 1e-5)]
)
@pytest.mark.parametrize("tile", [24, 64])
def test_sums_over_tiles_are_the_sums_over_the_frame(motion, tolerance, tile):
    geometry = prediction(motion=motion, **SIZE)
    tiled = full_size.agreement(geometry, reader(geometry), key_frames=5, tile=tile)
    assert tiled == pytest.approx(consistency.agreement(geometry), abs=tolerance)


def test_a_spoiled_clip_scores_lower_at_full_size_than_a_clean_one():
    clip = rendered(**SIZE)
    clean, spoiled = (replace(exact(clip), images=images) for images in (clip.rgb, jitter(clip, 2)))
    coarse = [reduced(g) for g in (clean, spoiled)]
    a, b = (full_size.agreement(c, reader(g)) for c, g in zip(coarse, (clean, spoiled), strict=True))
    assert a > b + 0.05


def reduced(geometry):
    size = (20, 36)
    return replace(
        geometry,
        depth=geometry.depth[:, ::2, ::2],
        confidence=geometry.confidence[:, ::2, ::2],
        images=torch.nn.functional.avg_pool2d(geometry.images, 2),
        intrinsics=resize_intrinsics(geometry.intrinsics, (40, 72), size),
        normals=None,
        albedo=None,
    )


def test_measure_counts_repeated_frames():
    geometry = prediction(**SIZE)
    frames = geometry.images.clone()
    frames[3] = frames[2]
    whole, repeating = (
        full_size.measure(Clip(frames=f, geometry=geometry), reader(geometry))
        for f in (geometry.images, frames)
    )
    assert repeating == pytest.approx(whole * (1 - consistency.COST_OF_REPEATING / 4))


def test_a_camera_that_stands_still_has_no_value():
    geometry = frozen(prediction(**SIZE))
    with pytest.raises(CannotJudge, match="no camera motion"):
        full_size.agreement(geometry, reader(geometry))


def test_a_tile_lands_inside_its_box():
    geometry = prediction(motion="orbits left", **SIZE)
    field = field_of(geometry, geometry.images)
    source = field.only([4])
    tile = full_size.cut(field.only([0]), (slice(8, 24), slice(30, 50)))
    rows, columns = full_size.landing_box(tile, source)
    warp = backward_warp(
        source.maps,
        source.intrinsics,
        1 / tile.inverse_depth,
        tile.intrinsics,
        relative_pose(tile.extrinsics_w2c, source.extrinsics_w2c),
    )
    x, y = warp.pixels[warp.inside].unbind(-1)
    assert columns.start <= x.min()
    assert x.max() <= columns.stop - 1
    assert rows.start <= y.min()
    assert y.max() <= rows.stop - 1


def test_frames_are_gone_through_one_by_one():
    geometry = prediction(**SIZE)
    seen = []

    def track(items):
        for item in items:
            seen.append(item)
            yield item

    full_size.agreement(geometry, reader(geometry), track=track)
    assert seen == [0, 1, 2, 3, 4]
