import dataclasses

import torch

from tests.metrics.scenes import prediction
from videogpa.contact_sheet import GAP, contact_sheet


def test_a_sheet_has_three_rows_of_enlarged_frames():
    geometry = prediction(frames=9)
    sheet = contact_sheet(geometry.images, geometry)
    assert sheet.shape == (3, 3 * 144 + 2 * GAP, 6 * 144 + 5 * GAP)
    assert 0 <= sheet.min() <= sheet.max() <= 1
    assert torch.equal(sheet[:, :144:3, :144:3], geometry.images[0])
    assert torch.equal(sheet[:, :144:3, -144::3], geometry.images[-1])


def test_without_geometry_there_are_only_the_frames():
    frames = prediction().images
    assert contact_sheet(frames, None).shape == (3, 144, 5 * 144 + 4 * GAP)


def test_large_frames_keep_their_size():
    assert contact_sheet(torch.rand(2, 3, 150, 200), None).shape == (3, 150, 400 + GAP)


def test_a_spoiled_frame_lights_up():
    geometry = prediction(frames=5)
    spoiled = geometry.images.clone()
    spoiled[2] = spoiled[2].roll(5, -1)
    before = contact_sheet(geometry.images, geometry)
    after = contact_sheet(spoiled, dataclasses.replace(geometry, images=spoiled))
    tile = (slice(None), slice(2 * (144 + GAP), None), slice(2 * (144 + GAP), 2 * (144 + GAP) + 144))
    assert after[tile].mean() > before[tile].mean() + 0.1
