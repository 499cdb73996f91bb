"""What every metric that compares warped pictures has in common."""

from itertools import pairwise

import pytest

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, rendered
from videogpa.metrics import consistency, cross_view, edge_agreement


@pytest.mark.parametrize("metric", [consistency, cross_view, edge_agreement])
@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.jitter, scenes.wobble])
def test_falls_strictly_as_the_pictures_disagree_more(spoil, size, metric):
    clip = rendered(3, 5, *size)
    values = [metric.measure(as_clip(exact(clip), spoil(clip, s))) for s in (0, 0.5, 1, 2, 4)]
    assert all(a > b for a, b in pairwise(values))
