"""What must be so on a GPU, too; without one all of it is skipped."""

import pytest
import torch

from tests.geometry.test_splat import random_cloud
from videogpa.artifact import read_rows
from videogpa.families.base import SamplerSettings
from videogpa.families.wan import Family
from videogpa.geometry.splat import nearest_pixels, nearest_points
from videogpa.recipes import quick
from videogpa.run import run
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate
from videogpa.video_io import read_video
from videogpa.weights import GENERATOR
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
INTRINSICS = torch.tensor([[400.0, 0, 300], [0, 400, 200], [0, 0, 1]])


def test_the_nearest_point_is_the_same_in_any_order_of_writes():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(300_000, 3, generator=generator) + torch.tensor([0.0, 0, 4])
    points = torch.cat([points, points[:1000], random_cloud(0, 1000)[0]])
    camera = torch.eye(3, 4)
    here = nearest_points(points, camera, INTRINSICS, (400, 600))
    for budget in (1 << 20, 1 << 30):
        there = nearest_points(points.cuda(), camera.cuda(), INTRINSICS.cuda(), (400, 600), budget)
        assert torch.equal(there.cpu(), here)


def test_the_nearest_pixels_are_the_same():
    clip = render(sample_scene(3), 5, 64, 64)
    given = (clip.depth, clip.extrinsics_w2c, clip.intrinsics)
    found = nearest_pixels(*(tensor.cuda() for tensor in given)).cpu()
    assert (found != nearest_pixels(*given)).float().mean() < 1e-4


def test_videos_are_those_of_a_processor(tmp_path):
    rows = prompts.run_world(WorldPrompts(split="held_out", count=2), tmp_path / "prompts")
    videos = {}
    for device in ("cpu", "cuda"):
        made = sample.run(SampleConfig(candidates=2, device=device), rows, tmp_path / device)
        videos[device] = [read_video(made / str(row.video)) for row in read_rows(made, Candidate)]
    for here, there in zip(videos["cpu"], videos["cuda"], strict=True):
        assert (here - there).abs().mean() < 0.01


def test_fewer_videos_at_once_where_memory_is_short():
    family = Family(GENERATOR, device="cuda")
    settings = SamplerSettings(frames=9, height=192, width=192, steps=2)
    together = sample.Together(family, settings, 16)
    whole = together("a red box", None, range(16))
    peak = torch.cuda.max_memory_allocated()
    del whole
    torch.cuda.empty_cache()
    used = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((used + (peak - used) / 2) / total)
    try:
        samples = together("a red box", None, range(16))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert together.at_once < 16
    assert len(samples.videos) == 16


def test_the_whole_loop_runs(tmp_path):
    report = run(quick.recipe(), tmp_path / "run", workers=2)
    assert (report / "index.html").exists()
