"""Videos and images in and out: the only place where uint8 becomes float [0, 1] and back.

Reading is strict. A file that ends before its container says it does, or that the decoder complains about,
is refused as a whole: a clip with made-up pixels must never get a score.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from videogpa.artifact import atomic_path, is_text, require_as_made, require_file
from videogpa.errors import InputError, RowFailed
from videogpa.tensors import Video

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
    ".ts", ".webm", ".wmv", ".y4m",
})
# fmt: on
# Containers only: text files, playlists and image sequences also count as video for FFmpeg, and playlists
# make it open other files and addresses.
DEMUXERS = "aac,asf,avi,flac,flv,gif,h264,hevc,ivf,matroska,mov,mp3,mp4,mpeg,mpegts,ogg,wav,webm,yuv4mpegpipe"
MP4_BOXES = frozenset(
    b"ftyp styp moov moof mdat free skip wide udta uuid meta pnot sidx ssix emsg prft mfra".split()
)
STILL_OR_AUDIO_BRANDS = (b"avif", b"heic", b"heix", b"mif1", b"M4A ", b"M4B ")
BT709 = 1  # in every table of ISO/IEC 23091-2
MOST_PIXELS = 1 << 26
"""Of one picture; 8192x8192."""
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file holds: pixels as displayed (rotated, square), coded pictures, and seconds.

    `duration` is the time from the first to the last picture; None where the file has no usable times.
    """

    height: int
    width: int
    frames: int
    duration: float | None


def to_uint8(frames: Video) -> UInt8[Tensor, "t h w 3"]:
    """Frames [t 3 h w] in [0, 1] to bytes, rounded to nearest; the inverse of `from_uint8`.

    Raises:
        RowFailed: not finite (a model that overflowed).
        ValueError: outside [0, 1] by more than a rounding error: another value range.
    """
    if not torch.isfinite(frames).all():
        raise RowFailed("the frames contain NaN or infinite values")
    low, high = torch.aminmax(frames)
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(f"frames must be in [0, 1], not [{low:.3g}, {high:.3g}]")
    return (frames.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_uint8(frames: UInt8[Tensor, "t h w 3"]) -> Video:
    """Bytes [t h w 3] to frames [t 3 h w] in [0, 1]."""
    return frames.permute(0, 3, 1, 2).contiguous().float() / 255


def find_videos(path: Path) -> list[Path]:
    """The file itself, or the videos directly inside a folder, sorted by name.

    In a folder, files count by their extension, and files with an unknown or no extension by their content.

    Raises:
        InputError: the path does not exist, or the folder holds no video.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_file():
        return [path]
    videos = sorted(p for p in path.iterdir() if _is_video(p))
    for video in videos:
        # What it is called is written down as text.
        if not is_text(video.name):
            raise InputError(f"{path} holds {video.name!r}, which is not UTF-8 text: rename it")
    if not videos:
        raise InputError(f"{path} contains no video (its subfolders are not searched)")
    return videos


def probe(path: Path) -> VideoInfo:
    """Size, number of frames and duration; only the first frame is decoded.

    Raises:
        InputError: the path does not exist or is a folder.
        RowFailed: empty, truncated, or without a video stream that can be decoded.
    """
    timing = _timing(path)
    with _video(path) as (container, stream):
        first = next(_decode(container, stream, path))
        height, width, _ = _Display(first, stream, None).show(first).shape
    duration = timing.end - timing.start if timing.in_seconds else None
    return VideoInfo(height=height, width=width, frames=timing.frames, duration=duration)


def frame_rate(video: Path) -> float:
    """Frames a second; 8 where the file has no times.

    Raises:
        InputError, RowFailed: as `probe`.
    """
    info = probe(video)
    return (info.frames - 1) / info.duration if info.duration else 8.0


def read_video(path: Path, *, max_frames: int | None = None, max_side: int | None = None) -> Video:
    """Frames [t 3 h w] in [0, 1] as a player shows them: rotated, with square pixels, in order of time.

    With more than `max_frames` frames, those nearest to `max_frames` equally spaced times from the first
    to the last frame, each at most once (a clip with long pauses gives fewer). Frames larger than
    `max_side` pixels on their longer side are reduced to it while decoding. Only the chosen frames are kept
    in memory, but the whole file is decoded, so that damage anywhere is noticed; a format without a declared
    length (MPEG-TS, raw H.264) cannot show that its end is missing.

    Raises:
        InputError: the path does not exist or is a folder, a limit is below 1, or a stage made another file of it.
        RowFailed: empty, truncated, damaged, or without a video stream that can be decoded.
    """
    return _as_video(list(_shown(path, max_frames, max_side)))


@dataclass(frozen=True, kw_only=True)
class StoredFrames:
    """Decoded frames as bytes [t h w 3] in a file: read one at a time, never mapped, so that memory holds only one."""

    file: BinaryIO
    frames: int
    height: int
    width: int

    def read(self, frame: int) -> Float[Tensor, "3 h w"]:
        """One frame in [0, 1]."""
        size = self.height * self.width * 3
        pixels = bytearray(os.pread(self.file.fileno(), size, frame * size))
        return from_uint8(torch.frombuffer(pixels, dtype=torch.uint8).view(1, self.height, self.width, 3))[0]


@contextmanager
def stored_frames(path: Path, *, max_frames: int | None = None) -> Iterator[StoredFrames]:
    """The frames that `read_video` would give, at their own size, kept in a temporary file meanwhile (`TMPDIR`
    says where: 25 MB a frame of 3840×2160). The file has no name, so nothing is left of it however the process ends.

    Raises:
        InputError: as `read_video`.
        RowFailed: as `read_video`.
    """
    with TemporaryFile(buffering=0) as file:
        count = height = width = 0
        for image in _shown(path, max_frames, None):
            height, width, _ = image.shape
            file.write(image.data)
            count += 1
        yield StoredFrames(file=file, frames=count, height=height, width=width)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Frames [t 3 h w] chosen from the `length` consecutive frames of a clip that begin with frame `first`; `whole` if
    the clip has no others.
    """

    first: int
    length: int
    whole: bool
    frames: Video


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of windows that overlap by half and cover a clip, the last one ending with it."""
    if frames <= window:
        return [0]
    return [*range(0, frames - window, max(1, window // 2)), frames - window]


def read_windows(
    path: Path, *, window: int, max_frames: int, max_side: int | None = None
) -> Iterator[Window]:
    """Windows of `window` frames in order of time, each with at most `max_frames` frames as `read_video` chooses them.

    A file that gives fewer frames than it announces ends in a shorter window. One pass; only the chosen frames of the
    windows that are not complete yet are kept. Damage is noticed when the file gets there, so the last window says
    whether the clip is whole.

    Raises:
        InputError: as `read_video`, or the window is shorter than 2 frames.
        RowFailed: as `read_video`.
    """
    _require_at_least(2, window=window)
    _require_at_least(1, max_frames=max_frames, max_side=max_side)
    times = _timing(path).times
    length = min(window, len(times))
    waiting = [
        (start, _spread(times[start : start + length], max_frames))
        for start in window_starts(len(times), length)
    ]
    open_windows: dict[int, list[np.ndarray]] = {}
    display, count = None, 0

    def complete(start: int, frames: int) -> Window:
        chosen = _as_video(open_windows.pop(start))
        return Window(first=start, length=frames, whole=length == len(times), frames=chosen)

    with _video(path) as (container, stream):
        for i, frame in enumerate(_decode(container, stream, path)):
            takers = [start for start, chosen in waiting if i - start in chosen]
            if takers:
                display = display or _Display(frame, stream, max_side)
                image = display.show(frame)
                for start in takers:
                    open_windows.setdefault(start, []).append(image)
            while waiting and i == waiting[0][0] + length - 1:
                yield complete(waiting.pop(0)[0], length)
            count = i + 1
    if waiting and waiting[0][0] in open_windows:
        yield complete(waiting[0][0], count - waiting[0][0])


def _spread(times: Sequence[float], most: int) -> set[int]:
    """Indices of the times nearest to at most `most` equally spaced ones from the first to the last."""
    if len(times) <= most:
        return set(range(len(times)))
    return set(
        nearest_in_time(
            zip(times, range(len(times)), strict=True), np.linspace(times[0], times[-1], most).tolist()
        )
    )


def _require_at_least(least: int, **limits: int | None) -> None:
    for name, limit in limits.items():
        if limit is not None and limit < least:
            raise InputError(f"{name} must be at least {least}, not {limit}")


def _shown(path: Path, max_frames: int | None, max_side: int | None) -> Iterator[np.ndarray]:
    """The frames that `read_video` describes as bytes [h w 3], one after the other."""
    _require_at_least(1, max_frames=max_frames, max_side=max_side)
    timing = _timing(path)
    with _video(path) as (container, stream):
        chosen = _decode(container, stream, path)
        if max_frames is not None and timing.frames > max_frames:
            timeline = ((f.time if timing.in_seconds else i, f) for i, f in enumerate(chosen))
            chosen = nearest_in_time(timeline, np.linspace(timing.start, timing.end, max_frames).tolist())
        display = None
        for frame in chosen:
            display = display or _Display(frame, stream, max_side)
            yield display.show(frame)


def _as_video(images: Sequence[np.ndarray]) -> Video:
    video = torch.empty(len(images), 3, *images[0].shape[:2])
    for i, image in enumerate(images):
        video[i] = from_uint8(torch.from_numpy(image)[None])[0]
    return video


def nearest_in_time(
    timeline: Iterable[tuple[float | int, Item]], targets: Sequence[float | int]
) -> Iterator[Item]:
    """For each target time the nearest item (the earlier of two), each item at most once, in one pass.

    Both the timeline and the targets are in ascending order; the timeline is always read to its end.
    """
    waiting = list(reversed(targets))
    before = given = None
    for now in timeline:
        while waiting and now[0] >= waiting[-1]:
            target = waiting.pop()
            nearest = before if before and target - before[0] <= now[0] - target else now
            if nearest is not given:
                yield nearest[1]
            given = nearest
        before = now
    if waiting and before and before is not given:
        yield before[1]


def write_master(path: Path, frames: Iterable[Float[Tensor, "3 h w"]], *, fps: float | int = 8) -> None:
    """A lossless Matroska file (H.264 RGB, crf 0): `read_video` gives the same bytes back.

    The same frames always give the same file. H.264 rather than FFV1, because FFmpeg's FFV1 decoder
    patches damage over without reporting it. frames: [t 3 h w] in [0, 1], or its frames one after the other.

    Raises:
        RowFailed: the frames are not finite.
    """
    images = (to_uint8(frame[None])[0].numpy() for frame in frames)
    with atomic_path(path) as temporary:
        _encode(temporary, images, fps, "matroska", "libx264rgb", "rgb24", {"crf": "0", "preset": "veryfast"})


def write_preview(
    path: Path, frames: Video, *, fps: float | int = 8, scale: int | None = None, crf: int = 18
) -> None:
    """An MP4 that browsers play (H.264, 4:2:0): for eyes only, never scored. The same frames always give the same file.

    `scale` repeats every pixel that many times each way; None makes the longer side at least 256 pixels.
    `crf` is H.264's rate factor: 18 looks like the original, 51 is the worst there is. Odd sizes get a repeated
    last row or column. frames: [t 3 h w] in [0, 1].

    Raises:
        RowFailed: the frames are not finite.
    """
    images = to_uint8(frames).numpy()
    if scale is None:
        scale = -(-256 // max(images.shape[1:3]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    _, height, width, _ = images.shape
    images = np.pad(images, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # x264's faster code for this processor reads memory that nothing was written to, and decides by it.
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": "cpu-independent=1"}
    with atomic_path(path) as temporary:
        _encode(temporary, images, fps, "mp4", "libx264", "yuv420p", options)


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """An image in [0, 1], turned as its EXIF tag says, without its alpha channel.

    Raises:
        InputError: the path does not exist or is a folder, or a stage made another file of it.
        RowFailed: not an image, or truncated.
    """
    require_file(require_as_made(path))
    try:
        with warnings.catch_warnings():
            # Beside the bound, which is lower, the warning says nothing.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened as image:
            _require_bounded(path, *image.size)
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise RowFailed(f"{path}: not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise RowFailed(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise RowFailed(f"{path}: the image cannot be decoded: {error}") from error
    return from_uint8(torch.from_numpy(pixels)[None])[0]


def write_image(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """A PNG; image [3 h w] in [0, 1].

    Raises:
        RowFailed: the image is not finite.
    """
    pixels = to_uint8(image[None])[0].numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _is_video(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or _looks_like_video(path)


def _looks_like_video(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return not head.startswith(STILL_OR_AUDIO_BRANDS, 8)
    return head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def _require_bounded(path: Path, width: int, height: int) -> None:
    """A few kilobytes can unpack to gigabytes."""
    if width * height > MOST_PIXELS:
        raise RowFailed(
            f"{path}: {width}x{height} is more than {MOST_PIXELS >> 20} megapixels; make it smaller"
        )


def _require_whole(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise RowFailed(f"{path}: the file is empty")
    with path.open("rb") as file:
        declared = _declared_size(file, size)
    if declared > size:
        raise RowFailed(f"{path}: truncated, only {size} of {declared} bytes are there")


def _declared_size(file: BinaryIO, size: int) -> int:
    """Bytes that the file should have according to its own container; 0 where it does not say."""
    head = file.read(12)
    if head[:4] == b"RIFF":
        length = int.from_bytes(head[4:8], "little")
        return 0 if length == 0xFFFFFFFF else 8 + length
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_size(file)
    return _mp4_size(file, size) if head[4:8] in MP4_BOXES else 0


def _mp4_size(file: BinaryIO, size: int) -> int:
    """End of the last top-level box (ISO/IEC 14496-12, 4.2); whatever follows the boxes is not counted."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if header[4:8] not in MP4_BOXES or length < 8:
            break
        end += length
    return end


def _matroska_size(file: BinaryIO) -> int:
    """End of the segment (RFC 8794, RFC 9559); 0 where a live recorder left it open."""
    file.seek(4)
    header_length = _ebml_number(file)
    file.seek(header_length or 0, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_number(file)
    return 0 if length is None else file.tell() + length


def _ebml_number(file: BinaryIO) -> int | None:
    """A variable-size integer (RFC 8794, section 4); None for the reserved value "unknown"."""
    first = int.from_bytes(file.read(1), "big")
    more = 8 - first.bit_length()
    bits = 7 * (more + 1)
    value = int.from_bytes(bytes([first]) + file.read(more), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


@contextmanager
def _video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened container and its video stream, after the checks that need no decoding."""
    require_file(path)
    try:
        _require_whole(path)
        container = av.open(
            str(path),
            metadata_errors="replace",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except PermissionError as error:
        raise RowFailed(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError) as error:
        raise RowFailed(f"{path}: not a video that can be read, or cut short before its index") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise RowFailed(f"{path}: no video stream{' (audio only)' if container.streams.audio else ''}")
        if streams[0].codec_context is None:
            raise RowFailed(f"{path}: no decoder for its video codec")
        # Otherwise the decoder makes up the pixels that are missing.
        streams[0].codec_context.options = {"err_detect": "explode"}
        # With several threads FFmpeg drops the error of a clip's last frames.
        streams[0].thread_type = "NONE"
        yield container, streams[0]


@dataclass(frozen=True, kw_only=True)
class _Timing:
    """Presentation times of the pictures, ascending: seconds, or picture numbers if times are missing."""

    times: list[float]
    in_seconds: bool

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def start(self) -> float:
        return self.times[0]

    @property
    def end(self) -> float:
        return self.times[-1]


def _timing(path: Path) -> _Timing:
    times: list[float | None] = []
    require_as_made(path)
    try:
        with _video(path) as (container, stream):
            # AVI has a constant rate and no presentation times: those of reordered frames would be wrong.
            has_times = container.format.name != "avi"
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise RowFailed(f"{path}: truncated or damaged after {len(times)} frames")
                if packet.size and not packet.is_discard:
                    times.append(None if packet.pts is None else float(packet.pts * packet.time_base))
    except (av.FFmpegError, OSError) as error:
        raise RowFailed(f"{path}: truncated or damaged after {len(times)} frames") from error
    if not times:
        raise RowFailed(f"{path}: its video stream holds no frames")
    known = [time for time in times if time is not None]
    if len(known) == len(times) and has_times:
        return _Timing(times=sorted(known), in_seconds=True)
    return _Timing(times=[float(i) for i in range(len(times))], in_seconds=False)


def _decode(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    count = 0
    try:
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise RowFailed(f"{path}: truncated or damaged after {count} frames")
            _require_bounded(path, frame.width, frame.height)
            yield frame
            count += 1
    except (av.FFmpegError, OSError) as error:
        raise RowFailed(f"{path}: truncated or damaged after {count} frames") from error
    if count == 0:
        raise RowFailed(f"{path}: its video stream holds no frames")


class _Display:
    """Turns decoded frames into what a player shows, at the size and orientation of a clip's first frame."""

    def __init__(self, first: av.VideoFrame, stream: VideoStream, max_side: int | None):
        sides = first.height, first.width * (stream.sample_aspect_ratio or 1)
        shrink = min(1, max_side / max(sides)) if max_side else 1
        self._height, self._width = (max(1, round(side * shrink)) for side in sides)
        self._reformatter = VideoReformatter()
        # Asked once: a frame that was asked for its side data is freed only by the garbage collector.
        matrix = first.side_data.get("DISPLAYMATRIX")
        self._matrix = None if matrix is None else np.frombuffer(matrix, np.int32).tolist()  # type: ignore[call-overload]

    def show(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB bytes [h w 3]."""
        shrinks = self._height < frame.height or self._width < frame.width
        rgb = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb24",
            interpolation="AREA" if shrinks else "BICUBIC",
            threads=1,
        )
        return np.ascontiguousarray(_oriented(rgb.to_ndarray(), self._matrix))


def _oriented(image: np.ndarray, matrix: list[int] | None) -> np.ndarray:
    """The image [h w 3] after a display matrix: x' = a x + c y, y' = b x + d y (libavutil/display.h).

    Only quarter turns and mirrorings; anything between is left as it is, as its pixels would have to be mixed.
    """
    if matrix is None:
        return image
    a, b, _, c, d, *_ = matrix
    if a == d == 0 and b and c:
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _encode(
    path: Path,
    images: Iterable[np.ndarray],
    fps: float | int,
    container: str,
    codec: str,
    pixels: str,
    options: dict[str, str],
) -> None:
    muxer_options = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if container == "mp4" else {})
    with av.open(str(path), "w", format=container, options=muxer_options) as output:
        stream = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = pixels
        # One thread: the file must not depend on the machine.
        stream.codec_context.thread_count = 1
        if pixels == "yuv420p":
            # Players guess the colours of untagged files from their size.
            stream.codec_context.colorspace = stream.codec_context.color_primaries = BT709
            stream.codec_context.color_trc, stream.codec_context.color_range = BT709, ColorRange.MPEG
        for i, image in enumerate(images):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pixels == "yuv420p":
                frame = frame.reformat(format=pixels, dst_colorspace="ITU709")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
