"""`consistency` on every pixel of frames that are too large to be held at once.

What belongs to the clip as a whole is taken from the geometry of the reduced frames: cameras, fused depth, exposure,
moving bodies, and which frames are far enough apart. Depth is brought to full size frame by frame, and every frame is
compared tile by tile with a few frames spread over the clip, each tile with the part of the other frame in which it can
lie: sums over tiles are the sums over the frame.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import NEAR, project, relative_pose, transform
from videogpa.geometry.enlargement import enlarged
from videogpa.metrics import consistency, cross_view
from videogpa.metrics.base import Clip, geometry_of
from videogpa.metrics.cross_view import FrameSums
from videogpa.metrics.warping import Field, field_of, frame_field, see

KEY_FRAMES = 5
"""Frames, spread evenly, that all frames are compared with; these stay in memory, 25 bytes a pixel."""
TILE = 512
"""Side of a tile in pixels."""

ReadFrame = Callable[[int], Float[Tensor, "3 h w"]]
Track = Callable[[list[int]], Iterable[int]]
Box = tuple[slice, slice]
"""Rows and columns."""


def measure(clip: Clip, read: ReadFrame, *, track: Track = iter) -> float:
    """What `consistency.measure` would return for the frames that `read` gives, one at a time in [0, 1] at full size;
    the clip holds the same frames reduced. `track` goes through them and may show how far it is.

    Raises:
        CannotJudge: as `consistency`.
    """
    return consistency.less_repeats(agreement(geometry_of(clip), read, track=track), clip.frames)


def agreement(
    geometry: GeometryPrediction,
    read: ReadFrame,
    *,
    key_frames: int = KEY_FRAMES,
    tile: int = TILE,
    track: Track = iter,
) -> float:
    """What `consistency.agreement` would return with all frames at full size, each compared with `key_frames` others;
    `geometry` is that of the reduced frames.

    Raises:
        CannotJudge: as `consistency`.
    """
    coarse = consistency.prepared(geometry)
    count = len(coarse.images)
    # Exposure is a factor a frame, whatever it was found by.
    gain = coarse.images.sum((1, 2, 3)) / geometry.images.sum((1, 2, 3)).clamp_min(1e-6)
    contrasts: dict[int, float] = {}

    def whole(frame: int) -> Field:
        image = read(frame) * gain[frame]
        contrasts[frame] = consistency.contrasts(image[None]).item()
        return _frame_field(_only(coarse, frame), image)

    keys = sorted(
        {round(i * (count - 1) / (min(key_frames, count) - 1)) for i in range(min(key_frames, count))}
    )
    pairs = _far_apart(coarse, keys)
    used = {s for sources in pairs for s in sources}
    if not used:
        raise CannotJudge("no camera motion, or no frame sees what another one saw")
    fields = {s: whole(s) for s in keys if s in used}
    sums = [
        _frame_sums(fields.get(t) or whole(t), [(abs(s - t), fields[s]) for s in pairs[t]], tile)
        for t in track(list(range(count)))
    ]
    # Which frame is the sharpest is known at the end: until then the contrast of all is 1.
    sharpest = max(contrasts.values())
    return cross_view.agreement([replace(s, contrast=s.contrast * sharpest) for s in sums])


def _only(prediction: GeometryPrediction, frame: int) -> GeometryPrediction:
    values: dict[str, Any] = {k: v[frame, None] for k, v in vars(prediction).items() if isinstance(v, Tensor)}
    return replace(prediction, **values)


def _frame_field(coarse: GeometryPrediction, image: Float[Tensor, "3 h w"]) -> Field:
    """All that is compared of one frame, at full size."""
    fine = enlarged(coarse, image[None])
    return frame_field(fine, consistency.compared_maps(fine, torch.tensor(1.0)))


def _far_apart(coarse: GeometryPrediction, keys: list[int]) -> list[list[int]]:
    """For every frame the key frames that are far enough from it to prove something."""
    field = field_of(coarse, coarse.images[:, :0])
    candidates = [[s for s in keys if s != t] for t in range(len(coarse.images))]
    return [
        [s for s, apart in zip(sources, cross_view.moved(see(field, t, sources)), strict=True) if apart]
        for t, sources in enumerate(candidates)
    ]


Sources = list[tuple[int, Field]]
"""Frames, and how many frames they are away from the target."""


def _frame_sums(target: Field, sources: Sources, tile: int) -> FrameSums:
    """One frame against its sources, tile by tile."""
    height, width = target.inverse_depth.shape[1:]
    boxes = list(_tiles(height, width, tile))
    return sum((_tile_sums(cut(target, box), sources) for box in boxes), FrameSums())


def _tile_sums(target: Field, sources: Sources) -> FrameSums:
    far_enough = torch.ones(1, dtype=torch.bool)
    judged = torch.zeros_like(target.inverse_depth[0], dtype=torch.bool)
    total = FrameSums()
    for apart, source in sources:
        box = landing_box(target, source)
        if box is not None:
            errors = cross_view.pair_errors(target, cut(source, box), far_enough)
            judged |= errors.mask[0]
            total += cross_view.sums_of(consistency.weighted(errors, [apart]))
    return replace(total, judged=int(judged.sum()), pixels=judged.numel())


def _tiles(height: int, width: int, side: int) -> Iterator[Box]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def cut(field: Field, box: Box) -> Field:
    """The part of a field in a box of at least 2×2 pixels: the same rays, only the principal point moves."""
    rows, columns = box
    cells = slice(rows.start, rows.stop - 1), slice(columns.start, columns.stop - 1)
    origin = field.intrinsics.new_tensor([[0, 0, columns.start], [0, 0, rows.start], [0, 0, 0]])
    return replace(
        field,
        maps=field.maps[..., rows, columns],
        inverse_depth=field.inverse_depth[..., rows, columns],
        smooth=field.smooth[..., *cells],
        intrinsics=field.intrinsics - origin,
    )


def landing_box(target: Field, source: Field) -> Box | None:
    """The part of the source in which the target's pixels can lie; None where they all miss it.

    What a tile sees between its nearest and farthest depth is convex, and so is its picture: the corners bound it.
    """
    inverse = target.inverse_depth[0]
    known = inverse[inverse > 0]
    if not len(known):
        return None
    height, width = inverse.shape
    last = inverse.new_tensor([width - 1, height - 1])
    corners = inverse.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) * last
    focal, centre = target.intrinsics[0].diagonal()[:2], target.intrinsics[0, :2, 2]
    rays = torch.cat([(corners - centre) / focal, torch.ones(4, 1)], -1)
    points = torch.cat([rays / known.amin(), rays / known.amax()])[None]
    moved = transform(relative_pose(target.extrinsics_w2c, source.extrinsics_w2c), points)
    pixels, z = project(moved, source.intrinsics)
    rows, columns = source.inverse_depth.shape[1:]
    if (z <= NEAR).any():
        # Part of it is behind the camera, where the corners bound nothing.
        return slice(0, rows), slice(0, columns)
    low, high = pixels[0].amin(0).floor().long() - 1, pixels[0].amax(0).ceil().long() + 2
    left, top = low.tolist()
    right, bottom = high.tolist()
    box = slice(max(top, 0), min(bottom, rows)), slice(max(left, 0), min(right, columns))
    return box if all(side.stop - side.start >= 2 for side in box) else None
