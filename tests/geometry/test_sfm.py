import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.nn.functional import interpolate

from videogpa.errors import CannotJudge
from videogpa.geometry.bundle import Reconstruction, adjust, project, residuals
from videogpa.geometry.matching import Tracks, corners, match_all
from videogpa.geometry.sfm import Backend
from videogpa.geometry.triangulation import Triangulated, complete, triangulate
from videogpa.opencv import deterministic_opencv
from videogpa.world.paths import CameraMove
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

FRAMES = 5


def first_scene_that(motion, start=0):
    """The first world scene whose camera `motion` is quick."""
    wanted = CameraMove(motion, "quickly")
    return next(s for s in map(sample_scene, range(start, start + 500)) if s.move == wanted)


@pytest.fixture(scope="module", params=["trucks left", "orbits right", "dollies forward"])
def clip(request):
    return render(first_scene_that(request.param), FRAMES, 120, 160)


@pytest.fixture(scope="module")
def prediction(clip):
    return Backend().predict(clip.rgb)


@pytest.fixture(scope="module")
def truck():
    return render(first_scene_that("trucks left"), FRAMES, 96, 128).rgb


@pytest.fixture(scope="module")
def truck_prediction(truck):
    return Backend().predict(truck)


def another_scene():
    return render(first_scene_that("trucks left", start=300), FRAMES, 96, 128).rgb


def angle_deg(a, b):
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def test_recovers_poses_and_depth_of_a_rendered_clip(clip, prediction):
    true, found = clip.extrinsics_w2c.double().numpy(), prediction.extrinsics_w2c.double().numpy()
    turn = found[-1, :, :3] @ found[0, :, :3].T @ (true[-1, :, :3] @ true[0, :, :3].T).T
    assert np.degrees(Rotation.from_matrix(turn).magnitude()) < 1.5
    centres = [-(pose[-1, :, :3].T @ pose[-1, :, 3]) for pose in (found, true)]
    first = true[0, :, :3]
    origin = -(first.T @ true[0, :, 3])
    assert angle_deg(centres[0], first @ (centres[1] - origin)) < 10

    depth = interpolate(clip.depth[:, None], prediction.depth.shape[1:], mode="nearest")[:, 0]
    known = prediction.confidence > 0.1
    assert known.float().mean() > 0.6
    ratio = (prediction.depth / depth)[known]
    assert (ratio / ratio.median() - 1).abs().mean() < 0.12


def test_a_frame_seen_through_anothers_depth_is_sharp(prediction):
    warped, inside = seen_through(prediction, source=3, target=1)
    keep = inside & (prediction.confidence[1] > 0.1)
    aligned = (warped - prediction.images[1]).abs().mean(0)[keep].mean()
    unmoved = (prediction.images[3] - prediction.images[1]).abs().mean(0)[keep].mean()
    assert aligned < 0.35 * unmoved


def seen_through(prediction, source, target):
    """Frame `source` sampled where the pixels of `target` come to lie in it."""
    height, width = prediction.depth.shape[1:]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    camera = prediction.intrinsics[0].numpy()
    points = (pixels - camera[:2, 2]) / camera[0, 0]
    points = (
        np.concatenate([points, np.ones_like(points[..., :1])], -1)
        * prediction.depth[target].numpy()[..., None]
    )
    poses = prediction.extrinsics_w2c.numpy()
    world = (points - poses[target, :, 3]) @ poses[target, :, :3]
    there = world @ poses[source, :, :3].T + poses[source, :, 3]
    x, y = (
        ((there[..., :2] / there[..., 2:]) * camera[0, 0] + camera[:2, 2])
        .astype(np.float32)
        .transpose(2, 0, 1)
    )
    image = cv2.remap(prediction.images[source].permute(1, 2, 0).numpy(), x, y, cv2.INTER_LINEAR)
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(inside)


def test_prediction_keeps_the_contract(truck_prediction):
    prediction = truck_prediction
    frames, height, width = prediction.depth.shape
    assert frames == FRAMES
    assert prediction.images.shape == (frames, 3, height, width)
    for values in (prediction.depth, prediction.confidence, prediction.extrinsics_w2c, prediction.intrinsics):
        assert values.isfinite().all()
    assert (prediction.depth > 0).all()
    assert prediction.depth.median().item() == pytest.approx(1, abs=1e-4)
    assert 0 <= prediction.confidence.min() <= prediction.confidence.max() <= 1
    assert 0 <= prediction.images.min() <= prediction.images.max() <= 1
    torch.testing.assert_close(prediction.extrinsics_w2c[0], torch.eye(4)[:3])
    torch.testing.assert_close(
        prediction.intrinsics[0, :2, 2], torch.tensor([(width - 1) / 2, (height - 1) / 2])
    )


def test_same_input_gives_identical_numbers_and_leaves_opencv_as_it_was(truck, truck_prediction):
    threads = cv2.getNumThreads()
    cv2.setRNGSeed(99)
    second = Backend().predict(truck)
    assert cv2.getNumThreads() == threads
    for name in ("depth", "confidence", "extrinsics_w2c", "intrinsics"):
        assert torch.equal(getattr(truck_prediction, name), getattr(second, name))


def test_what_no_rigid_scene_explains_keeps_some_confidence(truck, truck_prediction):
    wobbling = truck.clone()
    for t in range(FRAMES):
        wobbling[t, :, 30:70, 40:90] = truck[t, :, 30:70, 40:90].roll((-1) ** t * 2, dims=-2)
    broken = Backend().predict(wobbling)
    rows, columns = slice(80, 120), slice(110, 150)
    assert (
        broken.confidence[2, rows, columns].mean()
        < 0.8 * truck_prediction.confidence[2, rows, columns].mean()
    )
    assert (broken.confidence[2, rows, columns] > 0).float().mean() > 0.3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v: v[:2], "2 frames"),
        (lambda v: v[:, :, :1, :1], "too small"),
        (lambda v: torch.full_like(v, 0.5), "texture"),
        (lambda v: v[:1].expand_as(v), "stands still"),
        (
            lambda v: torch.rand(v.shape, generator=torch.Generator().manual_seed(0)),
            "scene cut between frames 0 and 1",
        ),
        (lambda v: torch.cat([v[:3], another_scene()[:2]]), "scene cut between frames 2 and 3"),
    ],
    ids=["few", "pixel", "grey", "frozen", "noise", "cut"],
)
def test_says_why_it_cannot_judge(truck, spoil, reason):
    with pytest.raises(CannotJudge, match=reason):
        Backend().predict(spoil(truck))


@pytest.mark.parametrize("motion", ["pans left", "tilts up"])
def test_a_turning_camera_shows_no_depth(motion):
    clip = render(first_scene_that(motion), FRAMES, 96, 128)
    with pytest.raises(CannotJudge, match="no parallax"):
        Backend().predict(clip.rgb)


def test_every_frame_moving_its_own_way_is_no_rigid_scene(truck):
    generator = torch.Generator().manual_seed(3)
    bent = []
    for frame in truck:
        shift = torch.rand(1, 2, 4, 5, generator=generator) * 0.24 - 0.12
        field = interpolate(shift, truck.shape[2:], mode="bicubic").permute(0, 2, 3, 1)
        grid = torch.nn.functional.affine_grid(
            torch.eye(2, 3)[None], [1, 3, *truck.shape[2:]], align_corners=False
        )
        bent.append(
            torch.nn.functional.grid_sample(frame[None], grid + field, "bilinear", "border", False)[0]
        )
    with pytest.raises(CannotJudge):
        Backend().predict(torch.stack(bent))


def exact_scene(seed, frames=4, points=60):
    """A known reconstruction and its noise-free tracks, all anchored in frame 0 or 1."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(size=(frames, 3)) * 0.05).as_matrix()
    translation = rng.normal(size=(frames, 3)) * 0.2
    anchor = np.arange(points) % 2
    scene = Reconstruction(
        rotation, translation, 200.0, np.array([99.5, 79.5]), rng.uniform(0.1, 0.5, points)
    )
    observed = np.zeros((points, frames, 2))
    observed[np.arange(points), anchor] = rng.uniform([20, 20], [180, 140], (points, 2))
    return scene, Tracks(anchor, project(scene, Tracks(anchor, observed)))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_adjustment_returns_to_an_exact_reconstruction(seed):
    truth, tracks = exact_scene(seed)
    rng = np.random.default_rng(seed + 1)
    rotation = truth.rotation.copy()
    rotation[1:] = Rotation.from_rotvec(rng.normal(size=(3, 3)) * 0.004).as_matrix() @ rotation[1:]
    start = Reconstruction(rotation, truth.translation, 204.0, truth.centre, truth.inverse_depth * 1.05)
    end = adjust(start, tracks, prior_focal=200.0, iterations=40)
    assert np.nanmax(residuals(end, tracks)) < 0.2
    assert np.nanmedian(residuals(end, tracks)) < 0.05 * np.nanmedian(residuals(start, tracks))


@given(
    rho=st.floats(0.05, 2.0),
    x=st.floats(-0.5, 0.5),
    y=st.floats(-0.5, 0.5),
    outlier=st.floats(0.2, 0.4),
)
def test_triangulation_is_exact_and_ignores_an_outlier(rho, x, y, outlier):
    ray = np.array([x, y, 1.0])
    translation = np.array([[0.2, 0, 0], [-0.2, 0, 0], [0, 0.2, 0], [0.1, -0.2, 0], [-0.2, -0.1, 0]])
    seen = (ray + rho * translation)[:, :2]
    exact = triangulate(np.tile(ray, (5, 1))[:, None], seen[:, None], translation[:, None], 200.0)
    assert exact.inverse_depth[0] == pytest.approx(rho, rel=1e-6)
    assert exact.misfit_px[0] < 1e-3
    seen[4, 0] = np.nan
    unseen = triangulate(np.tile(ray, (5, 1))[:, None], seen[:, None], translation[:, None], 200.0)
    assert unseen.inverse_depth[0] == pytest.approx(rho, rel=1e-6)


def test_completion_keeps_what_is_certain_and_is_smooth_between():
    rows = np.linspace(0.5, 1.5, 64, dtype=np.float32)
    truth = np.tile(rows[:, None], (1, 64))
    deviation = np.full_like(truth, 1e-3)
    deviation[20:40, 20:40] = 1e6
    measured = np.where(deviation > 1, 37.0, truth).astype(np.float32)
    filled = complete(Triangulated(measured, deviation, np.zeros_like(truth)), prior_deviation=0.1)
    assert np.abs(filled - truth)[deviation < 1].max() < 0.01
    assert np.abs(filled - truth)[deviation > 1].max() < 0.2


def test_a_shifted_image_is_matched_to_a_fraction_of_a_pixel():
    noise = np.random.default_rng(0).random((160, 260)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    gray = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    with deterministic_opencv():
        matches = match_all([gray[:120, :200].copy(), gray[8:128, 45:245].copy()])
    match = matches[0, 1]
    rows, columns = np.mgrid[20:100, 60:180]
    assert match.seen[20:100, 60:180].mean() > 0.95
    error = match.target[20:100, 60:180] - np.stack([columns - 45, rows - 8], -1)
    assert np.median(np.linalg.norm(error, axis=-1)) < 0.1
    assert not match.seen[:, :40].any()


def test_a_grey_image_has_no_corners():
    assert len(corners(np.full((64, 64), 128, np.uint8), 50)) == 0
