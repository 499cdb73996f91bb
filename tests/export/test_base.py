import dataclasses

import pytest
import torch

from tests.export.clips import POINTS, small
from videogpa.errors import CannotJudge
from videogpa.export.base import points_of


def test_a_clip_without_points_has_nothing_to_export():
    empty = dataclasses.replace(small(), confidence=small().confidence * 0)
    with pytest.raises(CannotJudge, match="no pixel has a known depth and a confidence above 0"):
        points_of(empty, 0)
    lost = dataclasses.replace(small(), extrinsics_w2c=small().extrinsics_w2c * torch.nan)
    with pytest.raises(CannotJudge, match="not finite"):
        points_of(lost, 0)


def test_the_filter_leaves_out_what_is_not_above_it_and_thinning_keeps_the_rest_even():
    assert len(points_of(small(), 0).points) == POINTS
    assert len(points_of(small(), 0.25).points) == POINTS - 1
    assert len(points_of(small(), 0, 100).points) == 100
