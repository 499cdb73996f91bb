from dataclasses import replace

import pytest
import torch

from tests.metrics.scenes import exact, jitter, wobble
from videogpa.geometry import movers
from videogpa.geometry.movers import moving_bodies, with_movers
from videogpa.world.paths import CameraMove
from videogpa.world.render import Render, render
from videogpa.world.scene import sample_scene

SIZE, FRAMES = 48, 9


def sliding(seed: int, way: tuple[float, float, float], motion: str = "trucks right") -> Render:
    """A clip whose first body slides by `way` over the clip."""
    scene = sample_scene(seed, move=CameraMove(motion, "slowly"))
    mover = replace(scene.bodies[0], slide=torch.tensor(way))
    return render(replace(scene, bodies=(mover, *scene.bodies[1:])), FRAMES, SIZE, SIZE)


def unmasked(clip: Render, images: torch.Tensor | None = None):
    return replace(exact(clip), images=clip.rgb if images is None else images)


def test_sliding_bodies_are_found_in_seven_of_eight_clips_and_little_else_is():
    found = 0
    for seed in range(8):
        clip = sliding(seed, (1.0, 0.0, 0.0))
        masks, true = moving_bodies(unmasked(clip)), clip.dynamic_mask
        found += ((masks & true).sum() > 0.75 * true.sum()).item()
        assert (masks & ~true).float().mean() < 0.2
    assert found >= 7


@pytest.mark.parametrize("seed", [1, 7])
def test_nothing_moves_in_a_static_scene(seed):
    clip = sliding(seed, (0.0, 0.0, 0.0))
    assert moving_bodies(unmasked(clip)).float().mean() < 0.01


@pytest.mark.parametrize("spoil", [jitter, wobble])
def test_what_jumps_about_is_no_body(spoil):
    clip = sliding(1, (0.0, 0.0, 0.0))
    assert moving_bodies(unmasked(clip, spoil(clip, 4))).float().mean() < 0.03


def test_what_moves_in_a_few_frames_only_is_no_body(monkeypatch):
    still, moving = sliding(1, (0.0, 0.0, 0.0)), sliding(1, (1.0, 0.0, 0.0))
    images = torch.cat([moving.rgb[:4], still.rgb[4:]])
    assert not moving_bodies(unmasked(still, images)).any()
    monkeypatch.setattr(movers, "SMALLEST_PERSISTENCE", 0.0)
    assert moving_bodies(unmasked(still, images)).any()


@pytest.mark.parametrize("frames", [17, 33])
def test_more_frames_of_the_same_clip_hide_no_body(frames):
    scene = sample_scene(1, move=CameraMove("trucks right", "slowly"))
    mover = replace(scene.bodies[0], slide=torch.tensor([1.0, 0.0, 0.0]))
    clip = render(replace(scene, bodies=(mover, *scene.bodies[1:])), frames, SIZE, SIZE)
    found = moving_bodies(unmasked(clip))
    assert (found & clip.dynamic_mask).sum() > 0.75 * clip.dynamic_mask.sum()


def test_a_fast_body_needs_fewer_frames(monkeypatch):
    fast = sliding(2, (-3.0, 0.0, 0.0))
    found, true = moving_bodies(unmasked(fast)), fast.dynamic_mask
    assert (found & true).sum() > 0.75 * true.sum()
    gone = ~true.flatten(1).any(1)
    assert gone.sum() == 5
    # One step beyond the last frame that shows it, where its outline may still be.
    assert not found[gone][1:].any()
    monkeypatch.setattr(movers, "CLEAR_PERSISTENCE", movers.SMALLEST_PERSISTENCE)
    assert not moving_bodies(unmasked(fast)).any()


@pytest.mark.parametrize(("seed", "way"), [(1, (2.0, 0.0, 0.0)), (3, (3.0, 0.0, 0.0)), (6, (2.0, 0.0, 0.0))])
def test_a_body_is_followed_where_it_is_not_found(monkeypatch, seed, way):
    clip = sliding(seed, way)
    true = clip.dynamic_mask
    found = moving_bodies(unmasked(clip))
    assert (found & true).sum() > 0.85 * true.sum()
    assert (found & ~true).float().mean() < 0.2
    follow = movers._followed
    monkeypatch.setattr(movers, "_followed", lambda *bodies, reach: follow(*bodies, reach=1))
    assert (moving_bodies(unmasked(clip)) & true).sum() < 0.8 * true.sum()


def test_two_frames_cannot_tell():
    clip = sliding(1, (1.0, 0.0, 0.0))
    two = replace(unmasked(clip), normals=None, albedo=None)
    two = replace(
        two,
        **{
            name: getattr(two, name)[:2]
            for name in ("depth", "confidence", "extrinsics_w2c", "intrinsics", "images")
        },
    )
    assert not moving_bodies(two).any()


def test_a_large_clip_is_searched_small_and_masked_large():
    scene = sample_scene(1, move=CameraMove("trucks right", "slowly"))
    mover = replace(scene.bodies[0], slide=torch.tensor([1.0, 0.0, 0.0]))
    clip = render(replace(scene, bodies=(mover, *scene.bodies[1:])), 5, 320, 320)
    found = moving_bodies(unmasked(clip))
    assert found.shape == clip.dynamic_mask.shape
    assert (found & clip.dynamic_mask).sum() > 0.7 * clip.dynamic_mask.sum()


def test_a_mask_that_is_there_is_kept():
    clip = sliding(1, (1.0, 0.0, 0.0))
    own = replace(unmasked(clip), dynamic_mask=torch.zeros_like(clip.dynamic_mask))
    assert with_movers(own) is own
    assert torch.equal(with_movers(unmasked(clip)).dynamic_mask, moving_bodies(unmasked(clip)))
