import os
import resource
import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.hardness.damage import png
from videogpa import video_io
from videogpa.errors import InputError, RowFailed


def noise(frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random bytes as floats [t 3 h w]: the hardest thing to keep losslessly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator).float() / 255


def numbered(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames [t h w 3] whose value, 10 times the frame number, survives lossy coding."""
    values = 10 * np.arange(1, frames + 1, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (frames, height, width, 3)).copy()


def numbers(video: torch.Tensor) -> list[int]:
    return [round(float(frame.mean()) * 25.5) - 1 for frame in video]


def encode(
    path: Path,
    images: np.ndarray,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: list[int] | None = None,
    rotation: int | None = None,
    mirror: bool = False,
    aspect: Fraction | None = None,
    **arguments,
) -> Path:
    """A video at 10 frames/s, or with the given presentation times in milliseconds."""
    with av.open(str(path), "w", **arguments) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirror)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("size", [(9, 48, 48), (1, 1, 1), (3, 2, 3), (2, 17, 31), (1, 64, 40)])
def test_master_keeps_every_byte(tmp_path, size):
    video = noise(*size)
    path = tmp_path / "master.mkv"
    video_io.write_master(path, video)
    first = path.read_bytes()
    assert torch.equal(video_io.read_video(path), video)
    video_io.write_master(path, video)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=10)
@given(st.binary(min_size=12, max_size=12))
def test_bytes_survive_the_float_range(content):
    images = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(1, 2, 2, 3)
    video = video_io.from_uint8(images)
    assert video.shape == (1, 3, 2, 2)
    assert torch.equal(video_io.to_uint8(video), images)
    assert torch.equal(video_io.to_uint8(video.half()), images)


def test_other_ranges_are_refused_not_guessed():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        video_io.to_uint8(noise(1, 4, 4) * 255)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        video_io.to_uint8(noise(1, 4, 4) * 2 - 1)
    with pytest.raises(RowFailed, match="NaN"):
        video_io.to_uint8(torch.full((1, 3, 4, 4), torch.nan))


@pytest.mark.parametrize(("size", "shown"), [((3, 48, 48), (288, 288)), ((2, 17, 31), (154, 280))])
def test_preview_is_what_browsers_play(tmp_path, size, shown):
    video = noise(*size)
    path = tmp_path / "preview.mp4"
    video_io.write_preview(path, video, fps=8)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 8
    decoded = video_io.read_video(path)
    assert decoded.shape[2:] == shown
    scale = shown[0] // size[1]
    cells = (
        decoded[:, :, : scale * size[1], : scale * size[2]]
        .unflatten(2, (-1, scale))
        .unflatten(4, (-1, scale))
    )
    assert (cells.mean((3, 5)) - video).abs().mean() < 0.05


def test_previews_do_not_depend_on_what_was_in_memory(tmp_path):
    picture = torch.nn.functional.interpolate(noise(1, 4, 4), 48, mode="bilinear")[0]
    frames = torch.stack([picture * (8 + i) / 16 for i in range(9)]) * 0.95 + noise(9, 48, 48) * 0.05
    written, memory = set(), []
    for i in range(8):
        memory.append(np.ones(997 * i + 13))
        video_io.write_preview(tmp_path / "p.mp4", frames)
        written.add((tmp_path / "p.mp4").read_bytes())
    assert len(written) == 1


def test_preview_keeps_colours(tmp_path):
    colour = torch.tensor([0.8, 0.1, 0.35])[None, :, None, None]
    video_io.write_preview(tmp_path / "p.mp4", colour.expand(2, 3, 64, 64), scale=1)
    decoded = video_io.read_video(tmp_path / "p.mp4")
    assert decoded.shape == (2, 3, 64, 64)
    assert (decoded - colour).abs().max() < 0.02


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(b"before")
    with pytest.raises(RowFailed):
        video_io.write_master(path, torch.full((1, 3, 4, 4), torch.inf))
    assert path.read_bytes() == b"before"


def test_uniform_sampling(tmp_path):
    path = encode(tmp_path / "clip.mp4", numbered(21))
    assert numbers(video_io.read_video(path)) == list(range(21))
    assert numbers(video_io.read_video(path, max_frames=5)) == [0, 5, 10, 15, 20]
    assert numbers(video_io.read_video(path, max_frames=1)) == [0]
    assert (
        len(video_io.read_video(path, max_frames=21)) == len(video_io.read_video(path, max_frames=99)) == 21
    )


def test_sampling_follows_presentation_time_not_frame_number(tmp_path):
    times = [0, 10, 20, 30, 40, 50, 60, 500, 1000]
    path = encode(tmp_path / "vfr.mkv", numbered(9), times=times)
    assert numbers(video_io.read_video(path, max_frames=3)) == [0, 7, 8]
    assert numbers(video_io.read_video(path, max_frames=5)) == [0, 6, 7, 8]
    assert video_io.probe(path).duration == pytest.approx(1.0)


def test_avi_with_reordered_frames(tmp_path):
    path = encode(tmp_path / "clip.avi", numbered(12))
    assert numbers(video_io.read_video(path, max_frames=4)) == [0, 4, 7, 11]


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True).map(sorted),
    st.lists(st.integers(-5, 65), min_size=1, max_size=10).map(sorted),
)
def test_nearest_in_time_equals_brute_force(times, targets):
    expected = sorted({min(times, key=lambda time: (abs(time - target), time)) for target in targets})
    assert list(video_io.nearest_in_time(((time, time) for time in times), targets)) == expected


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation"
)
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_display_matrix(tmp_path, rotation, mirror):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 250  # one bright corner tells all eight orientations apart, with the sides' lengths
    image[:16, 24:] = 120
    path = encode(tmp_path / "r.mp4", np.stack([image] * 3), rotation=rotation, mirror=mirror)
    upright = np.rot90(image, rotation // 90)
    shown = upright[:, ::-1] if mirror else upright
    video = video_io.read_video(path)
    assert video.shape[2:] == shown.shape[:2]
    assert (video[0] - torch.from_numpy(shown / 255).permute(2, 0, 1)).abs().mean() < 0.03
    assert (video_io.probe(path).height, video_io.probe(path).width) == shown.shape[:2]
    assert video_io.read_video(path, max_side=24).shape[2:] == tuple(side // 2 for side in shown.shape[:2])


def test_square_pixels(tmp_path):
    path = encode(tmp_path / "dv.mkv", numbered(2), aspect=Fraction(4, 3))
    assert video_io.read_video(path).shape == (2, 3, 32, 64)


def test_ten_bit_and_odd_sizes_and_wrong_name(tmp_path):
    ten_bit = encode(tmp_path / "ten.mkv", numbered(3), pixels="yuv420p10")
    assert numbers(video_io.read_video(ten_bit)) == [0, 1, 2]
    odd = encode(tmp_path / "odd.avi", numbered(3, 33, 47), codec="ffv1", pixels="bgr0")
    assert video_io.read_video(odd).shape == (3, 3, 33, 47)
    wrong = odd.rename(tmp_path / "clip.txt")
    assert numbers(video_io.read_video(wrong)) == [0, 1, 2]


def test_max_side_reduces_by_averaging_and_never_enlarges(tmp_path):
    path = tmp_path / "checks.mkv"
    board = (torch.arange(64)[:, None] + torch.arange(96)) % 2
    video_io.write_master(path, board.float().expand(2, 3, 64, 96))
    small = video_io.read_video(path, max_side=24)
    assert small.shape == (2, 3, 16, 24)
    assert (small - 0.5).abs().max() < 0.02
    assert video_io.read_video(path, max_side=500).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("limit", [{"max_frames": 0}, {"max_side": 0}])
def test_limits_below_one_are_refused(tmp_path, limit):
    with pytest.raises(InputError, match="at least 1"):
        video_io.read_video(encode(tmp_path / "clip.mp4", numbered(2)), **limit)


def test_single_frame_and_single_pixel_are_readable(tmp_path):
    assert video_io.read_video(encode(tmp_path / "one.mp4", numbered(1))).shape == (1, 3, 32, 48)
    pixel = encode(tmp_path / "pixel.mkv", numbered(2, 1, 1), codec="ffv1", pixels="bgr0")
    assert video_io.read_video(pixel).shape == (2, 3, 1, 1)


FILES = {
    "index last": ("mp4", {}),
    "index first": ("mp4", {"options": {"movflags": "faststart"}}),
    "matroska": ("mkv", {}),
    "avi": ("avi", {}),
}


@pytest.mark.parametrize("kind", FILES)
def test_truncated_anywhere_is_never_taken_for_whole(tmp_path, kind):
    suffix, arguments = FILES[kind]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    content = encode(tmp_path / f"whole.{suffix}", images, **arguments).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in {1, 7, 8, 40, *range(100, len(content), len(content) // 20), len(content) - 1}:
        cut.write_bytes(content[:length])
        with pytest.raises(RowFailed, match=r"cut\.\w+: (truncated|not a video|its video stream holds no)"):
            video_io.read_video(cut, max_frames=2)


def test_damage_is_refused_where_the_decoder_notices(tmp_path):
    path = encode(
        tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    )
    content = path.read_bytes()
    start = content.index(b"mdat")
    path.write_bytes(content[: start + 1000] + bytes(2000) + content[start + 3000 :])
    with pytest.raises(RowFailed, match="damaged after"):
        video_io.read_video(path)


def test_live_recordings_and_trailing_bytes_are_whole(tmp_path):
    live = encode(tmp_path / "live.mkv", numbered(3), options={"live": "1"})
    assert numbers(video_io.read_video(live)) == [0, 1, 2]
    junk = encode(tmp_path / "junk.mp4", numbered(3))
    junk.write_bytes(junk.read_bytes() + b"\0" * 100)
    assert numbers(video_io.read_video(junk)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a video at all\n" * 100, "not a video"),
        (b"#EXTM3U\n#EXTINF:9,\nclip.mkv\n", "not a video"),
        (b"ffconcat version 1.0\nfile clip.mkv\n", "not a video"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 50, "not a video"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 12, "not a video"),
    ],
)
def test_what_is_no_video_says_so(tmp_path, content, reason):
    encode(tmp_path / "clip.mkv", numbered(2))  # what the playlists would lead to
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(RowFailed, match=rf"bad\.mp4: {reason}"):
        video_io.read_video(path)


def test_audio_only_says_so(tmp_path):
    with pytest.raises(RowFailed, match="audio only"):
        video_io.read_video(audio_only(tmp_path / "sound.mp4"))


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        video_io.read_video(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="is a folder"):
        video_io.read_video(tmp_path)


@settings(max_examples=30)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x1a\x45\xdf\xa3", b"\0\0\0\x10ftyp", b"RIFF\x40\0\0\0AVI "]),
)
def test_arbitrary_bytes_fail_as_a_row(tmp_path_factory, content, head):
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(head + content)
    with pytest.raises(RowFailed, match="arbitrary: "):
        video_io.read_video(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_what_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 1080, 1920, "yuv420p"
        for i in range(24):
            image = np.full((1080, 1920, 3), 4 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    used = []

    def oriented(*arguments):
        used.append(resident_bytes())
        return original(*arguments)

    original = video_io._oriented
    monkeypatch.setattr(video_io, "_oriented", oriented)
    before = resident_bytes()
    video = video_io.read_video(path, max_frames=4, max_side=256)
    assert video.shape == (4, 3, 144, 256)
    whole_clip = 24 * 1080 * 1920 * 3
    assert len(used) == 4
    assert max(used) - before < whole_clip / 2


def test_find_videos(tmp_path):
    clip = encode(tmp_path / "b.mp4", numbered(2))
    (tmp_path / "a.MKV").write_bytes(b"broken, but named like a video")
    (tmp_path / "c").write_bytes(clip.read_bytes())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._b.mp4").write_bytes(b"x")
    audio_only(tmp_path / "song.m4a")
    Image.new("RGB", (4, 4)).save(tmp_path / "frame.png")
    (tmp_path / "folder.mp4").mkdir()
    assert [p.name for p in video_io.find_videos(tmp_path)] == ["a.MKV", "b.mp4", "c"]
    assert video_io.find_videos(clip) == [clip]
    with pytest.raises(InputError, match="does not exist"):
        video_io.find_videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match="contains no video"):
        video_io.find_videos(tmp_path / "folder.mp4")


def test_images(tmp_path):
    image = noise(1, 7, 5)[0]
    path = tmp_path / "frame.png"
    video_io.write_image(path, image)
    assert torch.equal(video_io.read_image(path), image)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RowFailed, match=r"frame\.png"):
        video_io.read_image(path)
    path.write_bytes(b"nothing")
    with pytest.raises(RowFailed, match="not an image"):
        video_io.read_image(path)
    with pytest.raises(InputError, match="does not exist"):
        video_io.read_image(tmp_path / "none.png")


def test_image_orientation_and_alpha(tmp_path):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[0, 0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = video_io.read_image(tmp_path / "turned.png")
    assert image.shape == (3, 6, 4)
    assert image[0, 0, 3] == 1


@pytest.mark.parametrize(
    ("frames", "window", "starts"),
    [
        (5, 8, [0]),
        (8, 8, [0]),
        (9, 8, [0, 1]),
        (20, 8, [0, 4, 8, 12]),
        (21, 8, [0, 4, 8, 12, 13]),
        (4, 2, [0, 1, 2]),
    ],
)
def test_windows_overlap_by_half_and_end_with_the_clip(frames, window, starts):
    assert video_io.window_starts(frames, window) == starts


def greys(count):
    """Frame t has the grey of t."""
    return (torch.arange(count) / 255).view(-1, 1, 1, 1).expand(count, 3, 16, 16)


def test_windows_hold_the_frames_that_a_clip_of_their_length_would_be_judged_by(tmp_path):
    path = tmp_path / "clip.mkv"
    video_io.write_master(path, greys(21))
    found = list(video_io.read_windows(path, window=8, max_frames=3))
    assert [w.first for w in found] == [0, 4, 8, 12, 13]
    assert not any(w.whole for w in found)
    video_io.write_master(tmp_path / "part.mkv", greys(8))
    part = video_io.read_video(tmp_path / "part.mkv", max_frames=3)
    for w in found:
        torch.testing.assert_close(w.frames, part + w.first / 255)


def test_a_short_clip_is_one_window(tmp_path):
    video_io.write_master(tmp_path / "clip.mkv", greys(5))
    (whole,) = video_io.read_windows(tmp_path / "clip.mkv", window=8, max_frames=10)
    assert whole.whole
    torch.testing.assert_close(whole.frames, greys(5))


def test_windows_of_one_frame_are_refused(tmp_path):
    video_io.write_master(tmp_path / "clip.mkv", greys(3))
    with pytest.raises(InputError, match="window must be at least 2"):
        list(video_io.read_windows(tmp_path / "clip.mkv", window=1, max_frames=3))


@pytest.mark.parametrize(("window", "last"), [(8, (16, 4)), (100, (0, 20))])
def test_the_last_window_ends_where_the_frames_do(tmp_path, monkeypatch, window, last):
    """A stream cut out of a longer one may announce pictures that cannot be decoded without what came before."""
    path = tmp_path / "clip.mkv"
    video_io.write_master(path, noise(20, 16, 24))
    timing = video_io._timing(path)
    announced = [*timing.times, *(timing.times[-1] + 0.125 * (i + 1) for i in range(4))]
    monkeypatch.setattr(video_io, "_timing", lambda _: replace(timing, times=announced))
    found = list(video_io.read_windows(path, window=window, max_frames=4))
    assert (found[-1].first, found[-1].length) == last
    assert len(found[-1].frames) >= 2


def test_stored_frames_are_those_read(tmp_path):
    path = tmp_path / "clip.mkv"
    video_io.write_master(path, noise(6, 16, 24))
    video = video_io.read_video(path, max_frames=4)
    with video_io.stored_frames(path, max_frames=4) as stored:
        assert (stored.frames, stored.height, stored.width) == (4, 16, 24)
        torch.testing.assert_close(torch.stack([stored.read(t) for t in range(4)]), video)
        file = stored.file
    assert file.closed


@pytest.mark.parametrize(
    ("width", "height", "honest"), [(9000, 9000, True), (30_000, 30_000, True), (2**31 - 1, 9, False)]
)
def test_a_small_file_does_not_unpack_to_gigabytes(tmp_path, width, height, honest):
    (tmp_path / "bomb.png").write_bytes(png(width, height, honest=honest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RowFailed, match=r"bomb\.png"):
            video_io.read_image(tmp_path / "bomb.png")


def test_frames_that_are_too_large_are_refused(tmp_path, monkeypatch):
    video_io.write_master(tmp_path / "clip.mkv", greys(3))
    monkeypatch.setattr(video_io, "MOST_PIXELS", 100)
    with pytest.raises(RowFailed, match="megapixels"):
        video_io.read_video(tmp_path / "clip.mkv")


@pytest.mark.parametrize("read", [video_io.read_image, video_io.read_video])
def test_nobody_waits_for_a_pipe(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.mkv")
    with pytest.raises(InputError, match="is no file"):
        read(tmp_path / "pipe.mkv")


def test_names_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "clip\udcff.mkv").write_bytes(b"x")
    with pytest.raises(InputError, match="not UTF-8 text: rename it"):
        video_io.find_videos(tmp_path)
