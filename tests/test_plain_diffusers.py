"""What the package ships and trains works in a script that imports diffusers alone."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.families import tiny_wan
from videogpa.artifact import read_rows
from videogpa.dpo.lora import add_lora, lora_parameters, save_lora
from videogpa.families.wan import Family
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video
from videogpa.weights import GENERATOR

SCRIPT = """
import sys
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import load_image
from safetensors.torch import save_file

assert "videogpa.world.linear_autoencoder" not in sys.modules
torch.set_num_threads(1)
folder, lora, image, caption, seed, size, steps, tokens, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
drawn = {}
for name in ("base", "lora"):
    if name == "lora":
        pipe.load_lora_weights(lora)
    drawn[name] = pipe(
        image=load_image(image), prompt=caption, height=int(size), width=int(size), num_frames=9,
        num_inference_steps=int(steps), guidance_scale=1.0, max_sequence_length=int(tokens),
        generator=[torch.Generator().manual_seed(int(seed))], output_type="pt",
    ).frames[0].contiguous()
save_file(drawn, out)
"""


@pytest.mark.parametrize("kind", ["embedded", "stock"])
def test_lora_changes_the_sample_exactly_as_ours_does(kind, tmp_path):
    size = 48
    folder = GENERATOR if kind == "embedded" else tiny_wan.build(tmp_path / "model")
    family = Family(folder)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora_parameters(family).values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_lora(family, tmp_path / "lora")
    tokens = family.max_sequence_length

    rows = prompts.run_world(WorldPrompts(count=1, size=size), tmp_path / "prompts")
    (prompt,) = read_rows(rows, Prompt)
    ours = {}
    for name, lora in (("base", None), ("lora", str(tmp_path / "lora"))):
        cfg = SampleConfig(model=str(folder), lora=lora, candidates=1, steps=3, height=size, width=size)
        out = sample.run(cfg, rows, tmp_path / f"drawn_{name}")
        (row,) = read_rows(out, Candidate)
        ours[name] = read_video(out / row.video)
    command = [
        sys.executable, "-c", SCRIPT, folder, tmp_path / "lora", rows / prompt.image, prompt.text, row.seed, size, 3,
        tokens, tmp_path / "plain.safetensors",
    ]  # fmt: skip
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    plain = load_file(tmp_path / "plain.safetensors")
    for name, video in plain.items():
        assert torch.equal((video * 255).round(), (ours[name] * 255).round())
    assert (plain["base"] - plain["lora"]).abs().mean() > 1e-3
