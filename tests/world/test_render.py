import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import closed_forms
from videogpa.world.paths import CameraMove
from videogpa.world.render import (
    FIELD_OF_VIEW_DEGREES,
    Render,
    forward_flow,
    render,
    render_from,
    world_intrinsics,
)
from videogpa.world.scene import Body, Scene, sample_scene
from videogpa.world.texture import Texture
from videogpa.world.train_generator import mirror_caption

FRAMES, HEIGHT, WIDTH = 3, 24, 32
clips = st.builds(
    lambda seed, dynamic: render(sample_scene(seed, dynamic=dynamic), FRAMES, HEIGHT, WIDTH),
    st.integers(0, 10**6),
    st.booleans(),
)
few = settings(max_examples=12, deadline=None)


@few
@given(clips)
def test_pixels_unprojected_by_their_depth_lie_on_the_surface_that_they_show(clip: Render):
    for frame in range(FRAMES):
        points, ids = closed_forms.world_points(clip, frame), clip.object_ids[frame].flatten().numpy()
        for surface in np.unique(ids):
            beyond = closed_forms.distances(clip.scene, surface, points[ids == surface], frame / (FRAMES - 1))
            assert np.abs(beyond.max(1)).max() < 2e-4


@few
@given(clips)
def test_nothing_stands_between_the_camera_and_the_depth(clip: Render):
    frame = FRAMES - 1
    w2c = clip.extrinsics_w2c[frame].double().numpy()
    eye = -w2c[:, :3].T @ w2c[:, 3]
    hits = closed_forms.world_points(clip, frame)
    for share in np.linspace(0.02, 0.98, 25):
        for surface in range(1, len(clip.scene.bodies) + 1):
            beyond = closed_forms.distances(clip.scene, surface, eye + share * (hits - eye), 1.0)
            assert beyond.max(1).min() > -2e-3


@few
@given(clips)
def test_normals_are_those_of_the_surfaces_in_the_camera_frame(clip: Render):
    for frame in range(FRAMES):
        points, ids = closed_forms.world_points(clip, frame), clip.object_ids[frame].flatten().numpy()
        normals = clip.normals[frame].flatten(1).T.numpy()
        for surface in np.unique(ids):
            on, progress = points[ids == surface], frame / (FRAMES - 1)
            outward = closed_forms.outward_normals(clip.scene, surface, on, progress)
            expected = (-outward if surface == 0 else outward) @ clip.extrinsics_w2c[frame, :, :3].numpy().T
            beyond = np.sort(closed_forms.distances(clip.scene, surface, on, progress), axis=1)
            # On an edge two normals are right.
            clear = beyond[:, -1] - beyond[:, -2] > 1e-3 if beyond.shape[1] > 1 else np.full(len(on), True)
            np.testing.assert_allclose(normals[ids == surface][clear], expected[clear], atol=2e-3)


@few
@given(clips)
def test_normals_are_unit_vectors_that_face_the_camera(clip: Render):
    torch.testing.assert_close(clip.normals.norm(dim=1), torch.ones(FRAMES, HEIGHT, WIDTH), atol=1e-4, rtol=0)
    pixels = torch.stack(torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy"))
    k = clip.intrinsics[0]
    rays = torch.cat([(pixels - k[:2, 2].view(2, 1, 1)) / k[0, 0], torch.ones(1, HEIGHT, WIDTH)])
    assert ((clip.normals * rays).sum(1) < 1e-5).all()


@few
@given(clips)
def test_on_planes_neighbouring_depths_span_the_surface_that_the_normal_stands_on(clip: Render):
    points = torch.from_numpy(closed_forms.world_points(clip, 0)).view(HEIGHT, WIDTH, 3)
    down, right = points[1:, :-1] - points[:-1, :-1], points[:-1, 1:] - points[:-1, :-1]
    spanned = F.normalize(torch.linalg.cross(down, right), dim=-1)
    normals = clip.normals[0].permute(1, 2, 0).double() @ clip.extrinsics_w2c[0, :, :3].double()
    ids = clip.object_ids[0]
    flat = torch.tensor([True] + [body.kind == "box" for body in clip.scene.bodies])[ids[:-1, :-1]]
    for other, its_id in ((normals[1:, :-1], ids[1:, :-1]), (normals[:-1, 1:], ids[:-1, 1:])):
        flat &= (ids[:-1, :-1] == its_id) & ((normals[:-1, :-1] - other).norm(dim=-1) < 1e-4)
    agreement = (spanned * normals[:-1, :-1]).sum(-1)[flat]
    assert flat.sum() > 0
    assert agreement.min() > 0.999


@few
@given(clips)
def test_the_dynamic_mask_is_the_body_that_slides(clip: Render):
    moving = [i + 1 for i, body in enumerate(clip.scene.bodies) if body.slide.any()]
    assert torch.equal(
        clip.dynamic_mask, torch.isin(clip.object_ids, torch.tensor(moving, dtype=torch.int64))
    )


@few
@given(clips)
def test_color_is_the_mean_of_the_shaded_rays_a_quarter_of_a_pixel_off_the_centre(clip: Render):
    # The centre rays of an image twice as large are exactly those rays.
    large = render(clip.scene, FRAMES, 2 * HEIGHT, 2 * WIDTH)
    world_normals = torch.einsum("tcij,tcd->tdij", large.normals, large.extrinsics_w2c[:, :, :3])
    lambert = torch.einsum("tdij,d->tij", world_normals, clip.scene.light).clamp_min(0)
    light = clip.scene.ambient + (1 - clip.scene.ambient) * lambert
    expected = F.avg_pool2d(large.albedo * light[:, None], 2)
    difference = (clip.rgb - expected).abs().amax(1)
    # Where a ray grazes an edge, rounding decides what it hits.
    assert (difference < 1e-4).double().mean() > 0.99


@settings(max_examples=4, deadline=None)
@given(clips)
def test_color_is_close_to_a_render_of_many_more_rays(clip: Render):
    fine = F.avg_pool2d(render(clip.scene, FRAMES, 4 * HEIGHT, 4 * WIDTH).rgb, 4)
    assert (clip.rgb - fine).square().mean().sqrt() < 0.03
    for colors in (clip.rgb, clip.albedo):
        assert colors.min() >= 0
        assert colors.max() <= 1


@given(st.integers(4, 200), st.integers(4, 200), st.integers(1, 4))
def test_intrinsics_at_two_resolutions_describe_one_camera(height: int, width: int, factor: int):
    small = world_intrinsics(height, width, 1)[0].double()
    large = world_intrinsics(factor * height, factor * width, 1)[0].double()
    # Pixel edges, half a pixel before the first centre, are what two resolutions share.
    for row, sides in ((0, (width, factor * width)), (1, (height, factor * height))):
        edges = [
            (torch.tensor([-0.5, n - 0.5]) - k[row, 2]) / k[row, row]
            for n, k in zip(sides, (small, large), strict=True)
        ]
        torch.testing.assert_close(edges[0], edges[1], rtol=1e-5, atol=1e-6)
    longer = max(height, width)
    assert math.degrees(2 * math.atan(longer / 2 / small[0, 0])) == pytest.approx(
        FIELD_OF_VIEW_DEGREES, abs=1e-3
    )


def test_more_frames_only_refine_the_same_clip_in_time():
    scene = sample_scene(5, dynamic=True)
    coarse, fine = render(scene, 3, HEIGHT, WIDTH), render(scene, 5, HEIGHT, WIDTH)
    torch.testing.assert_close(fine.depth[::2], coarse.depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fine.extrinsics_w2c[::2], coarse.extrinsics_w2c)


@few
@given(clips, st.integers(0, FRAMES - 1), st.integers(0, FRAMES - 1))
def test_flow_is_the_projection_of_the_moved_point(clip: Render, source: int, target: int):
    flow, visible = forward_flow(clip, source, target)
    points, ids = closed_forms.world_points(clip, source), clip.object_ids[source].flatten().numpy()
    slides = np.stack([np.zeros(3)] + [body.slide.numpy() for body in clip.scene.bodies])
    moved = points + slides[ids] * (target - source) / (FRAMES - 1)
    pixels, z = closed_forms.project(clip, target, moved)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    expected = (pixels - np.stack([u, v], -1).reshape(-1, 2)).T.reshape(2, HEIGHT, WIDTH)
    ahead = (z > 0.1).reshape(HEIGHT, WIDTH)
    np.testing.assert_allclose(flow[0].numpy()[:, ahead], expected[:, ahead], atol=5e-3)
    assert not visible[0].numpy()[~ahead].any()
    if source == target:
        assert visible.all()


@few
@given(clips)
def test_flow_is_visible_exactly_where_the_depth_test_says_so(clip: Render):
    _, visible = forward_flow(clip, 0, FRAMES - 1)
    points, ids = closed_forms.world_points(clip, 0), clip.object_ids[0].flatten()
    slides = torch.stack([torch.zeros(3)] + [body.slide for body in clip.scene.bodies])
    pixels, z = closed_forms.project(clip, FRAMES - 1, points + slides[ids].numpy())
    z, seen = torch.from_numpy(z), visible.flatten()
    inside = torch.from_numpy(((pixels > 0) & (pixels < [WIDTH - 1, HEIGHT - 1])).all(1))
    corner = torch.from_numpy(np.clip(np.floor(pixels), 0, [WIDTH - 2, HEIGHT - 2])).long()
    around = torch.stack([(corner[:, 1] + dy) * WIDTH + corner[:, 0] + dx for dy in (0, 1) for dx in (0, 1)])
    depths, owners = clip.depth[-1].flatten()[around], clip.object_ids[-1].flatten()[around]
    behind = inside & (z > 1.05 * depths.amax(0))
    in_front = inside & (owners == ids).all(0) & ((depths / z - 1).abs() < 0.02).all(0)
    assert not seen[behind].any()
    assert seen[in_front].double().mean() > 0.98
    outside = torch.from_numpy(((pixels < -0.5) | (pixels > [WIDTH - 0.5, HEIGHT - 0.5])).any(1))
    assert not seen[outside].any()


@few
@given(st.integers(0, 10**6))
def test_with_a_still_camera_only_the_sliding_body_flows(seed: int):
    clip = render(sample_scene(seed, dynamic=True), FRAMES, HEIGHT, WIDTH)
    still = replace(clip, extrinsics_w2c=clip.extrinsics_w2c[:1].expand(FRAMES, -1, -1))
    flow, _ = forward_flow(still, 0, FRAMES - 1)
    length = flow[0].norm(dim=0)
    mask = clip.dynamic_mask[0]
    assert length[~mask].max() < 1e-3
    if mask.any():
        assert length[mask].median() > 0.3


@few
@given(st.integers(0, 10**6), st.booleans())
def test_the_mirrored_scene_is_the_clip_in_a_mirror_and_has_the_mirrored_caption(seed: int, dynamic: bool):
    scene = sample_scene(seed, dynamic=dynamic)
    other = _mirrored(scene)
    assert other.caption == mirror_caption(scene.caption)
    clip, reflection = (render(s, FRAMES, HEIGHT, HEIGHT) for s in (scene, other))
    difference = (clip.rgb.flip(-1) - reflection.rgb).abs().amax(1)
    assert (difference < 1e-3).double().mean() > 0.99


def _mirrored(scene: Scene) -> Scene:
    across = torch.tensor([-1.0, 1.0, 1.0])

    def texture(t: Texture) -> Texture:
        return replace(t, frame=t.frame * across, waves=t.waves * across)

    def body(b: Body) -> Body:
        return replace(
            b, center=b.center * across, yaw=-b.yaw, slide=b.slide * across, texture=texture(b.texture)
        )

    swap = {"slides left": "slides right", "slides right": "slides left"}
    return replace(
        scene,
        room_center=scene.room_center * across,
        room_yaw=-scene.room_yaw,
        room_textures=tuple(texture(t) for t in scene.room_textures),
        bodies=tuple(body(b) for b in scene.bodies),
        light=scene.light * across,
        move=scene.move.mirrored,
        slide=swap.get(scene.slide, scene.slide),
    )


@pytest.mark.parametrize("motion", ["dollies forward", "pans left"])
def test_rendering_is_a_function_of_the_scene(motion: str):
    move = CameraMove(motion, "quickly")  # type: ignore[arg-type]
    first, second = (render(sample_scene(11, move=move), 2, 16, 16) for _ in range(2))
    assert torch.equal(first.rgb, second.rgb)
    assert torch.equal(first.depth, second.depth)


def test_a_moved_principal_point_gives_a_part_of_the_picture():
    clip = render(sample_scene(3), 2, 24, 32)
    top, rows = 5, 7
    camera = clip.intrinsics.clone()
    camera[:, 1, 2] -= top
    progress = torch.linspace(0, 1, len(clip.rgb))
    part = render_from(clip.scene, clip.extrinsics_w2c, camera, progress, rows, 32)
    torch.testing.assert_close(part.rgb, clip.rgb[:, :, top : top + rows], atol=1e-4, rtol=0)
    torch.testing.assert_close(part.depth, clip.depth[:, top : top + rows], atol=1e-4, rtol=1e-4)
