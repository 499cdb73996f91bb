import dataclasses

import torch

from tests.report.exhibits import geometry
from videogpa.report.redrawn import redrawn_from_others


def test_a_consistent_clip_is_redrawn_as_it_is():
    drawn, seen = redrawn_from_others(geometry())
    assert seen.float().mean() > 0.7
    difference = (drawn - geometry().images).abs().amax(1)
    assert difference[seen].median() < 0.06
    assert (drawn.movedim(1, -1)[~seen] == 0).all()


def test_a_frame_does_not_explain_itself():
    spoiled = geometry().images.clone()
    spoiled[2] = 1 - spoiled[2]
    clean, _ = redrawn_from_others(geometry())
    drawn, _ = redrawn_from_others(dataclasses.replace(geometry(), images=spoiled))
    assert torch.equal(drawn[2], clean[2])
    assert not torch.equal(drawn[1], clean[1])


def test_frames_that_are_not_to_be_used_show_up_nowhere():
    confidence = geometry().confidence.clone()
    confidence[1:] = 0
    _, seen = redrawn_from_others(dataclasses.replace(geometry(), confidence=confidence))
    assert not seen[0].any()
    assert seen[1].any()
