"""Two processes on one machine, talking through gloo, train what one process trains."""

import csv
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from tests.stages.test_train import CFG, PROMPTS, pair, write_candidates, write_lora, write_pairs
from videogpa.engines.local import preload
from videogpa.stages.train import run

WEIGHTS = Path("lora/pytorch_lora_weights.safetensors")
CASES = {
    "even": CFG.model_copy(update={"batch_pairs": 4}),
    # One process has two pairs, the other one.
    "uneven": CFG.model_copy(update={"batch_pairs": 3, "micro_pairs": 1}),
    "cached": CFG.model_copy(update={"batch_pairs": 4, "reference_draws": 2, "steps": 8}),
    "sharded": CFG.model_copy(update={"batch_pairs": 4, "shard": True}),
    "sharded_on_top": CFG.model_copy(update={"batch_pairs": 4, "shard": True}),
}


def train_all(inputs, earlier, folder):
    for name, cfg in CASES.items():
        run(cfg, **inputs, out=folder / name, earlier=earlier if name.endswith("on_top") else None)


def train_in(rank, port, inputs, earlier, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    sys.stderr = (folder / f"stderr{rank}").open("w")
    train_all(inputs, earlier, folder)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, ti2v_folder):
    root = tmp_path_factory.mktemp("processes")
    inputs = {
        "pairs": write_pairs(root / "pairs", [pair(i) for i in range(PROMPTS)]),
        "candidates": write_candidates(root / "candidates"),
        "model": ti2v_folder,
    }
    (root / "two").mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    earlier = write_lora(root / "earlier", ti2v_folder, 5)
    # Both are forked from one process that has imported everything, unless it started before.
    preload("videogpa.families.wan", "videogpa.stages.train")
    arguments = (port, inputs, earlier, root / "two")
    multiprocessing.start_processes(train_in, arguments, nprocs=2, start_method="forkserver")
    train_all(inputs, earlier, root / "one")
    return root


def losses(folder):
    with (folder / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_trains(trained, name):
    one, two = (trained / count / name for count in ("one", "two"))
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    expected, found = load_file(one / WEIGHTS), load_file(two / WEIGHTS)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=1e-3)
