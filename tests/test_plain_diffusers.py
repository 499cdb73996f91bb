"""What the package ships and trains works in a script that imports diffusers alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

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
import json
import sys
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import load_image
from safetensors.torch import save_file

assert "videogpa.world.linear_autoencoder" not in sys.modules
torch.set_num_threads(1)
for told in map(json.loads, sys.argv[1:]):
    pipe = DiffusionPipeline.from_pretrained(told["folder"], torch_dtype=torch.float32)
    drawn = {}
    for name in ("base", "lora"):
        if name == "lora":
            pipe.load_lora_weights(told["lora"])
        drawn[name] = pipe(
            image=load_image(told["image"]), prompt=told["caption"], height=told["size"], width=told["size"],
            num_frames=9, num_inference_steps=3, guidance_scale=1.0, max_sequence_length=told["tokens"],
            generator=[torch.Generator().manual_seed(told["seed"])], output_type="pt",
        ).frames[0].contiguous()
    save_file(drawn, told["out"])
"""


SIZE = 48
# The stock model first: nothing of this package is loaded then.
KINDS = ("stock", "embedded")


def written_lora(family: Family, folder: Path) -> Path:
    """One that changes something."""
    add_lora(family, rank=4, alpha=8.0, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora_parameters(family).values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_lora(family, folder)
    return folder


def drawn_by_us(kind: str, home: Path) -> tuple[dict[str, Tensor], dict[str, str | int]]:
    """The videos without and with a LoRA, and what the script has to be told to draw the same."""
    folder = GENERATOR if kind == "embedded" else tiny_wan.build(home / "model")
    family = Family(folder)
    lora = written_lora(family, home / "lora")
    rows = prompts.run_world(WorldPrompts(count=1, size=SIZE), home / "prompts")
    (prompt,) = read_rows(rows, Prompt)
    ours = {}
    for name, given in (("base", None), ("lora", str(lora))):
        cfg = SampleConfig(model=str(folder), lora=given, candidates=1, steps=3, height=SIZE, width=SIZE)
        out = sample.run(cfg, rows, home / f"drawn_{name}")
        (row,) = read_rows(out, Candidate)
        ours[name] = read_video(out / row.video)
    told = {
        "folder": str(folder), "lora": str(lora), "image": str(rows / prompt.image), "caption": prompt.text,
        "seed": row.seed, "size": SIZE, "tokens": family.max_sequence_length, "out": str(home / "plain.safetensors"),
    }  # fmt: skip
    return ours, told


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """By kind, our videos and those of a script."""
    ours, told = {}, {}
    for kind in KINDS:
        ours[kind], told[kind] = drawn_by_us(kind, tmp_path_factory.mktemp(kind))
    command = [sys.executable, "-c", SCRIPT, *map(json.dumps, told.values())]
    subprocess.run(command, check=True, capture_output=True)
    return {kind: (ours[kind], load_file(told[kind]["out"])) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_lora_changes_the_sample_exactly_as_ours_does(kind, drawn):
    ours, plain = drawn[kind]
    assert plain.keys() == ours.keys()
    for name, video in plain.items():
        assert torch.equal((video * 255).round(), (ours[name] * 255).round())
    assert (plain["base"] - plain["lora"]).abs().mean() > 1e-3
