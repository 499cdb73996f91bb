"""Which pixels show bodies that move by themselves, in a scene that otherwise stands still.

After the camera's motion is undone, a body that moves smoothly keeps one velocity from frame to frame and over its
whole extent. A fault (jitter, wobbling, swimming texture) moves pixels, too, but differently in every frame; wrong
depth or a melting surface moves them smoothly, but its parts apart. So residual optical flow against the frames
around is read as a velocity where it is proportional to time, and as a body where the velocities of a connected
region fit one shift, turn and growth, and the neighbouring frames show the region where it should have moved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import backward_warp, relative_pose, resize_intrinsics
from videogpa.geometry.flow import SMALLEST_SIDE, enlargement, gray_frames
from videogpa.opencv import deterministic_opencv
from videogpa.tensors import Mask, Video

STEPS = 8
"""A clip is looked at in about so many steps, each of one frame or more: in a clip of many frames a body moves little
from one to the next.
"""
NEAR, FAR = (-1, 1), (-2, 2)
"""Steps to the frames compared with each frame; the flow to the near ones starts the search for the far ones."""
SMALLEST_SPEED = 0.008
"""Share of the longer side that a pixel must move in a step, beyond the camera's motion."""
LARGEST_ROUGHNESS = 0.5
"""Deviation from constant velocity, as a share of the velocity."""
SMALLEST_AREA, LARGEST_AREA = 0.015, 0.4
"""Share of the image that one body covers."""
SMALLEST_UNITY, ODD_SHARE = 0.93, 0.2
"""Share of a region's motion (mean square) that one shift, turn and growth must explain, leaving out the odd share of
its pixels where it explains least: outlines, where flow is vague.
"""
SMALLEST_SUPPORT = 0.5
"""Share of a region that the frames around must also show as a body, where it should be by then."""
CLEAR_SPEED = 0.02
"""Share of the longer side in a step. What is slower may be a surface that a generator lets drift, so it must move like
a body in every respect.
"""
SLOW_UNEVENNESS, SLOW_SUPPORT = 0.19, 0.8
"""Largest median deviation from constant velocity, as a share of it, and smallest support."""
SMALLEST_PERSISTENCE, CLEAR_PERSISTENCE = 0.6, 0.4
"""Share of the frames that must show bodies: one that moves by itself does so in most of a clip, while pieces of a
melting or blurring surface look like it now and then. Clearly fast ones leave the picture, and less is enough.
"""
MARGIN = 0.035
"""Bodies are widened by this share of the longer side: flow is vague at outlines."""
SAME_COLOR = 0.2
"""Colour difference (Euclidean, in [0, √3]) up to which a pixel may show the same body as another."""

Region = Bool[Tensor, "h w"]


def moving_bodies(prediction: GeometryPrediction) -> Mask:
    """True on the pixels of bodies that move smoothly against the scene; with fewer than three frames nowhere.

    Bodies move by at least `SMALLEST_SPEED` of the image in a step (`STEPS`) and cover between `SMALLEST_AREA` and
    `LARGEST_AREA` of it.
    """
    count, _, height, width = prediction.images.shape
    if count < 3:
        return torch.zeros(count, height, width, dtype=torch.bool)
    small = _at_most(prediction, SMALLEST_SIDE)
    with deterministic_opencv():
        drifts = [_drift(small, t, max(1, round((count - 1) / STEPS))) for t in range(count)]
    bodies = [_bodies(drift) for drift in drifts]
    shown = torch.stack([_union(b, like=d.known) for b, d in zip(bodies, drifts, strict=True)])
    nearby = _grown(shown, 1)
    confirmed = [
        [region for region in found if _is_body(region, drift, nearby)]
        for found, drift in zip(bodies, drifts, strict=True)
    ]
    if _persistence(confirmed, drifts, small.images) < SMALLEST_PERSISTENCE:
        confirmed = [
            [region for region in found if _is_clear(region, drift)]
            for found, drift in zip(confirmed, drifts, strict=True)
        ]
        if _persistence(confirmed, drifts, small.images) < CLEAR_PERSISTENCE:
            return torch.zeros(count, height, width, dtype=torch.bool)
    masks = _followed(confirmed, drifts, small.images, reach=count)
    masks = _grown(masks, max(1, round(MARGIN * max(masks.shape[-2:]))))
    return F.interpolate(masks[:, None].float(), (height, width), mode="nearest")[:, 0] > 0


def with_movers(prediction: GeometryPrediction) -> GeometryPrediction:
    """The prediction with `moving_bodies` as its mask, unless its model made one."""
    if prediction.dynamic_mask is not None:
        return prediction
    return replace(prediction, dynamic_mask=moving_bodies(prediction))


@dataclass(frozen=True)
class _Drift:
    """What one frame's pixels do beyond the camera's motion.

    velocity [2 h w]: pixels in a step of `step` frames. roughness [h w]: mean deviation from it. known [h w]: seen by
    most of the frames around. landing: by frame, the pixel [h w 2] where a resting point would be.
    """

    velocity: Float[Tensor, "2 h w"]
    roughness: Float[Tensor, "h w"]
    known: Region
    landing: dict[int, Float[Tensor, "h w 2"]]
    time: int
    step: int


def _drift(prediction: GeometryPrediction, time: int, step: int) -> _Drift:
    """Measured against the frames one step away and, where something seems to move, those two steps away."""
    near = _residual_flow(prediction, time, step, NEAR, {})
    drift = _as_velocity(time, step, near)
    if _fast(drift).float().mean() < SMALLEST_AREA:
        return drift
    far = _residual_flow(prediction, time, step, FAR, {2 * lag: 2 * f.enlarged for lag, f in near.items()})
    return _as_velocity(time, step, near | far)


@dataclass(frozen=True)
class _Residual:
    """Flow [2 h w] from one frame to another whose camera motion is undone, where it is `seen` there, and the pixel
    [h w 2] of the other frame where a resting point lands. `enlarged` is the flow as it was searched.
    """

    flow: Float[Tensor, "2 h w"]
    seen: Region
    landing: Float[Tensor, "h w 2"]
    enlarged: Float[np.ndarray, "hf wf 2"]


def _residual_flow(
    prediction: GeometryPrediction,
    time: int,
    step: int,
    lags: tuple[int, ...],
    starts: Mapping[int, np.ndarray],
) -> dict[int, _Residual]:
    """By lag in steps, for the frames that exist, searched from `starts` where given.

    The search is dense inverse search (Kroeger et al., ECCV 2016).
    """
    images, poses, intrinsics = prediction.images, prediction.extrinsics_w2c, prediction.intrinsics
    lags = tuple(lag for lag in lags if 0 <= time + lag * step < len(images))
    if not lags:
        return {}
    others, count = [time + lag * step for lag in lags], len(lags)
    warp = backward_warp(
        images[others],
        intrinsics[others],
        prediction.depth[time].expand(count, -1, -1),
        intrinsics[time].expand(count, 3, 3),
        relative_pose(poses[time].expand(count, 3, 4), poses[others]),
    )
    # What is out of view shows the frame itself: no motion, rather than any.
    resting = torch.where(warp.inside[:, None], warp.values, images[time])
    factor = enlargement(resting)
    gray, *grays = gray_frames(torch.cat([images[time, None], resting]))
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [search.calc(gray, other, starts.get(lag)) for other, lag in zip(grays, lags, strict=True)]
    own = F.avg_pool2d(torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2), factor) / factor
    return {lag: _Residual(own[i], warp.inside[i], warp.pixels[i], flows[i]) for i, lag in enumerate(lags)}


def _as_velocity(time: int, step: int, residuals: Mapping[int, _Residual]) -> _Drift:
    """The velocity that explains the residual flows best, by least squares."""
    flow = torch.stack([r.flow for r in residuals.values()])
    seen = torch.stack([r.seen for r in residuals.values()])[:, None].float()
    lag = flow.new_tensor(list(residuals)).view(-1, 1, 1, 1)
    velocity = (seen * lag * flow).sum(0) / (seen * lag.square()).sum(0).clamp_min(1e-6)
    deviation = ((flow - lag * velocity) / lag.abs()).square().sum(1).sqrt()
    return _Drift(
        velocity=velocity,
        roughness=(seen[:, 0] * deviation).sum(0) / seen[:, 0].sum(0).clamp_min(1e-6),
        known=seen[:, 0].mean(0) > 0.5,
        landing={time + lag * step: r.landing for lag, r in residuals.items()},
        time=time,
        step=step,
    )


def _bodies(drift: _Drift) -> list[Region]:
    """Connected regions of one frame that move as one body."""
    moving = _fast(drift) & (drift.roughness < LARGEST_ROUGHNESS * _speed(drift))
    labels, count = ndimage.label(ndimage.binary_opening(moving.numpy()))
    regions = [torch.from_numpy(labels == i + 1) for i in range(count)]
    return [
        region
        for region in regions
        if SMALLEST_AREA <= region.float().mean() <= LARGEST_AREA
        and _unity(region, drift.velocity) >= SMALLEST_UNITY
    ]


def _fast(drift: _Drift) -> Region:
    return drift.known & (_speed(drift) > SMALLEST_SPEED * max(drift.known.shape))


def _speed(drift: _Drift) -> Float[Tensor, "h w"]:
    return drift.velocity.square().sum(0).sqrt()


def _is_body(region: Region, drift: _Drift, shown: Mask) -> bool:
    """Whether the frames around bear the region out; the slower it is, the more it takes."""
    support = _support(region, drift, shown)
    if _is_clear(region, drift):
        return support >= SMALLEST_SUPPORT
    unevenness = (drift.roughness[region] / _speed(drift)[region]).median().item()
    return support >= SLOW_SUPPORT and unevenness <= SLOW_UNEVENNESS


def _is_clear(region: Region, drift: _Drift) -> bool:
    return bool(_speed(drift)[region].median() >= CLEAR_SPEED * max(region.shape))


def _unity(region: Region, velocity: Float[Tensor, "2 h w"]) -> float:
    """Share of the region's mean square velocity that a shift, a turn and a growth explain, outlines aside."""
    y, x = (axis.float() - axis.float().mean() for axis in region.nonzero(as_tuple=True))
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    columns = torch.stack([torch.cat(pair) for pair in ((one, zero), (zero, one), (x, y), (-y, x))], -1)
    moved = velocity[:, region].flatten()
    left = moved - columns @ torch.linalg.lstsq(columns, moved[:, None]).solution[:, 0]
    left, moved = (squares.square().view(2, -1).sum(0) for squares in (left, moved))
    usual = left <= left.quantile(1 - ODD_SHARE)
    return (1 - left[usual].sum() / moved[usual].sum()).item()


def _support(region: Region, drift: _Drift, shown: Mask) -> float:
    """Share of the region that the frames around show as a body where its velocity takes it; 0 if none sees it."""
    shares = []
    for other, landing in drift.landing.items():
        column, row, inside = _ahead(region, drift, other, landing)
        if inside.float().mean() > 0.3:
            shares.append(shown[other, row[inside], column[inside]].float().mean().item())
    return float(np.mean(shares)) if shares else 0.0


def _persistence(bodies: list[list[Region]], drifts: list[_Drift], images: Video) -> float:
    """Share of the frames that show bodies, or must by what is seen one step away."""
    return _followed(bodies, drifts, images, reach=1).flatten(1).any(1).float().mean().item()


def _followed(bodies: list[list[Region]], drifts: list[_Drift], images: Video, *, reach: int) -> Mask:
    """The bodies, and where each must be up to `reach` steps before and after: they may be on their way out of view, or
    too fast to be found. Where a frame shows them itself, they are followed from there.
    """
    shown = torch.stack([_union(b, like=d.known) for b, d in zip(bodies, drifts, strict=True)])
    masks = shown.clone()
    regions = [(region, drift) for found, drift in zip(bodies, drifts, strict=True) for region in found]
    for region, drift in regions:
        for step in (-drift.step, drift.step):
            for time, y, x in islice(_way(region, drift, step, drifts, images), reach):
                masks[time, y, x] = True
                if shown[time, y, x].float().mean() > 0.5:
                    break
    return masks


def _way(
    region: Region, drift: _Drift, step: int, drifts: list[_Drift], images: Video
) -> Iterator[tuple[int, Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """Frame, rows and columns of a body, step by step, as long as it looks like itself and until most of it is out of
    view: what is left then is soon no more than the background that its region took in.
    """
    y, x = region.nonzero(as_tuple=True)
    fewest = len(x) / 2
    colors, velocity = images[drift.time][:, region], drift.velocity[:, region] * (step / drift.step)
    here = drift.time
    while (there := here + step) in drifts[here].landing:
        column, row, inside = _landed(x + velocity[0], y + velocity[1], drifts[here].landing[there])
        x, y, colors, velocity = column[inside], row[inside], colors[:, inside], velocity[:, inside]
        alike = (images[there][:, y, x] - colors).square().sum(0).sqrt() < SAME_COLOR
        if not len(x) or alike.float().mean() <= 0.5:
            return
        yield there, y, x
        if len(x) < fewest:
            return
        here = there


def _ahead(
    region: Region, drift: _Drift, other: int, landing: Float[Tensor, "h w 2"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Column and row in another frame where the region's pixels move to, and whether that is in view."""
    y, x = region.nonzero(as_tuple=True)
    shift = drift.velocity[:, region] * ((other - drift.time) / drift.step)
    return _landed(x + shift[0], y + shift[1], landing)


def _landed(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"], landing: Float[Tensor, "h w 2"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Column and row in another frame of positions in this one, and whether that is in view."""
    height, width = landing.shape[:2]
    at = landing[y.round().long().clamp(0, height - 1), x.round().long().clamp(0, width - 1)]
    column, row = at.nan_to_num(-1).round().long().unbind(-1)
    return column, row, (column >= 0) & (column < width) & (row >= 0) & (row < height)


def _union(regions: list[Region], like: Region) -> Region:
    return torch.stack(regions).any(0) if regions else torch.zeros_like(like)


def _grown(masks: Mask, pixels: int) -> Mask:
    return F.max_pool2d(masks[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


def _at_most(prediction: GeometryPrediction, shorter: int) -> GeometryPrediction:
    """The prediction at a size whose shorter side is at most about `shorter` pixels."""
    height, width = prediction.images.shape[-2:]
    ratio = shorter / min(height, width)
    if ratio > 0.75:
        return prediction
    size = (round(height * ratio), round(width * ratio))
    return replace(
        prediction,
        images=F.interpolate(prediction.images, size, mode="bilinear", antialias=True),
        depth=F.interpolate(prediction.depth[:, None], size, mode="nearest-exact")[:, 0],
        confidence=F.interpolate(prediction.confidence[:, None], size, mode="nearest-exact")[:, 0],
        intrinsics=resize_intrinsics(prediction.intrinsics, (height, width), size),
        normals=None,
        albedo=None,
        dynamic_mask=None,
    )
