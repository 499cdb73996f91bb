from dataclasses import replace

import pytest

from tests.metrics.scenes import as_clip, depth_flicker, exact, rendered
from videogpa.metrics import alignment, depth_agreement, normal_agreement


def test_is_the_mean_of_its_two_parts():
    clip = rendered(2)
    geometry = replace(depth_flicker(clip, 5), normals=clip.normals)
    parts = (depth_agreement.measure(as_clip(geometry)), normal_agreement.measure(as_clip(geometry)))
    assert alignment.measure(as_clip(geometry)) == pytest.approx(sum(parts) / 2)
    assert alignment.measure(as_clip(geometry)) < alignment.measure(
        as_clip(replace(exact(clip), normals=clip.normals))
    )
