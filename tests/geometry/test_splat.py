import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.geometry.cameras import NEAR, world_points
from videogpa.geometry.splat import BYTES_PER_POINT, CACHE_BYTES, nearest_pixels, nearest_points, paint

SIZE = (5, 7)
CAMERA = torch.eye(3, 4)
INTRINSICS = torch.tensor([[4.0, 0, 3], [0, 4, 2], [0, 0, 1]])


def splat(points, colors, camera, intrinsics, size, budget_bytes=CACHE_BYTES) -> torch.Tensor:
    """The coloured points [n 3] seen by one camera, as an image [c h w]; pixels without a point are 0."""
    return paint(nearest_points(points, camera, intrinsics, size, budget_bytes), colors).permute(2, 0, 1)


def splat_slowly(points, colors, camera, intrinsics, size) -> torch.Tensor:
    """`splat` as a loop over points: the definition that the fast version is tested against."""
    image = colors.new_zeros(colors.shape[-1], *size)
    nearest = torch.full(size, math.inf)
    projection = (intrinsics.double() @ camera.double()).tolist()
    for (x, y, z), color in zip(points.tolist(), colors, strict=True):
        u, v, depth = (a * x + b * y + c * z + d for a, b, c, d in projection)
        if not NEAR < depth < math.inf or not math.isfinite(u + v):
            continue
        column, row = round(u / depth), round(v / depth)
        inside = 0 <= column < size[1] and 0 <= row < size[0]
        if inside and torch.tensor(depth) < nearest[row, column]:
            nearest[row, column] = depth
            image[:, row, column] = color
    return image


def random_cloud(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a coarse grid, so that pixels and depths collide often; a few are behind or not finite."""
    g = torch.Generator().manual_seed(seed)
    points = torch.randint(-4, 5, (count, 3), generator=g) / 2.0
    points[torch.rand(count, generator=g) < 0.05, 0] = math.nan
    points[torch.rand(count, generator=g) < 0.05, 2] = math.inf
    return points, torch.rand(count, 3, generator=g)


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(0, 40), st.integers(1, 20 * BYTES_PER_POINT))
def test_fast_equals_slow_for_any_chunking(seed, count, budget):
    points, colors = random_cloud(seed, count)
    fast = splat(points, colors, CAMERA, INTRINSICS, SIZE, budget)
    assert torch.equal(fast, splat_slowly(points, colors, CAMERA, INTRINSICS, SIZE))


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10)
def test_fast_equals_slow_for_a_general_camera(seed):
    g = torch.Generator().manual_seed(seed)
    points, colors = torch.randn(50, 3, generator=g), torch.rand(50, 3, generator=g)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=g))[0]
    camera = torch.cat([rotation, torch.tensor([[0.0], [0.0], [2.0]])], -1)
    fast = splat(points, colors, camera, INTRINSICS, SIZE)
    assert torch.equal(fast, splat_slowly(points, colors, camera, INTRINSICS, SIZE))


@given(st.integers(0, 2**31 - 1), st.integers(1, 20 * BYTES_PER_POINT))
@settings(max_examples=10)
def test_pixels_of_all_frames_are_drawn_like_their_cloud(seed, budget):
    """Cameras that look anywhere, depths from in front of the lens to unknown."""
    g = torch.Generator().manual_seed(seed)
    depth = torch.rand(3, *SIZE, generator=g) * 4
    depth[torch.rand(depth.shape, generator=g) < 0.1] = 0
    depth[torch.rand(depth.shape, generator=g) < 0.1] = math.nan
    rotation = torch.linalg.qr(torch.eye(3) + 0.3 * torch.randn(3, 3, 3, generator=g))[0]
    cameras = torch.cat([rotation, torch.randn(3, 3, 1, generator=g)], -1).double()
    intrinsics = INTRINSICS.double().expand(3, 3, 3)
    colors = torch.rand(depth.numel(), 3, generator=g)
    found = paint(nearest_pixels(depth, cameras, intrinsics, budget), colors)
    cloud = world_points(depth.double(), cameras, intrinsics).view(-1, 3)
    cloud[~(depth > 0).flatten()] = math.nan
    for image, camera in zip(found, cameras, strict=True):
        torch.testing.assert_close(
            image.permute(2, 0, 1), splat_slowly(cloud, colors, camera, INTRINSICS, SIZE)
        )


def test_nearest_wins_and_ties_go_to_the_lowest_index():
    points = torch.tensor([[0.0, 0, 3], [0, 0, 2], [0, 0, 2], [0, 0, -1]])
    assert nearest_points(points, CAMERA, INTRINSICS, SIZE)[2, 3] == 1


def test_holes_are_zero_and_have_no_index():
    points = torch.tensor([[0.0, 0, 1]])
    assert (nearest_points(points, CAMERA, INTRINSICS, SIZE) == -1).sum() == 5 * 7 - 1
    assert splat(points, torch.ones(1, 3), CAMERA, INTRINSICS, SIZE).sum() == 3


@pytest.fixture
def thread_count():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_result_does_not_depend_on_the_number_of_threads_or_the_order_of_points(thread_count):
    g = torch.Generator().manual_seed(0)
    count, size = 200_000, (60, 80)
    points = torch.cat([torch.randn(count, 2, generator=g), torch.rand(count, 1, generator=g) + 1], -1)
    colors = torch.rand(count, 3, generator=g)
    k = torch.tensor([[40.0, 0, 39.5], [0, 40, 29.5], [0, 0, 1]])
    images = []
    for threads in (1, 2, 4, 2, 4):
        thread_count(threads)
        images.append(splat(points, colors, CAMERA, k, size, 64 << 20))
    assert all(torch.equal(images[0], image) for image in images[1:])
    shuffled = torch.randperm(count, generator=g)
    # No two random depths of one pixel tie, so even the order of the points is irrelevant.
    assert torch.equal(images[0], splat(points[shuffled], colors[shuffled], CAMERA, k, size))
