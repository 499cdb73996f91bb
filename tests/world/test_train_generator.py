import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from videogpa.weights import model_folder
from videogpa.world.generator import FLOW_SHIFT, build_text_encoder, build_tokenizer
from videogpa.world.paths import MOVES, parse_move
from videogpa.world.scene import sample_scene
from videogpa.world.train_generator import embed, flow_loss, mirror_caption, stratified_sigmas, train

seeds = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(MOVES), st.booleans())
def test_a_mirrored_caption_names_the_mirrored_move_and_mirrors_back(seed, move, dynamic):
    caption = sample_scene(seed, move=move, dynamic=dynamic).caption
    mirrored = mirror_caption(caption)
    assert parse_move(mirrored) == move.mirrored
    assert mirror_caption(mirrored) == caption
    moves_sideways = "left" in caption or "right" in caption
    assert (mirrored != caption) == moves_sideways


@given(seeds, st.integers(1, 64))
def test_sigmas_are_one_from_each_nth_of_the_shifted_schedule(seed: int, n: int):
    sigma = stratified_sigmas(np.random.default_rng(seed), n).double()
    assert sigma.min() >= 0
    assert sigma.max() <= 1
    # Undo sigma = s u / (1 + (s - 1) u).
    u = sigma / (FLOW_SHIFT - (FLOW_SHIFT - 1) * sigma)
    strata = (u.sort().values * n).clamp(max=n - 1e-3)
    assert ((strata - torch.arange(n)) > -1e-3).all()
    assert ((strata - torch.arange(n)) < 1 + 1e-3).all()


def loss_of(velocity, image_given: float, *, frames: int = 3):
    """Runs `flow_loss` with a stand-in for the transformer; returns the loss and what the stand-in saw."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 4, frames, 4, 6, generator=generator) for _ in range(2))
    seen = {}

    def forward(x, timestep, prompt_embeds, return_dict):
        seen.update(x=x, timestep=timestep)
        return (velocity(x0, eps),)

    transformer = Mock(spec=WanTransformer3DModel, side_effect=forward)
    sigma = torch.tensor([0.3, 0.8])
    given_images = torch.full((2,), image_given)
    loss = flow_loss(transformer, torch.zeros(2, 5, 8), x0, eps, sigma, given_images)
    return loss, seen, x0, eps, sigma


def test_the_true_velocity_has_no_loss_and_the_loss_is_per_sample():
    for image_given in (0.0, 1.0):
        loss, *_ = loss_of(lambda x0, eps: eps - x0, image_given)
        assert torch.equal(loss, torch.zeros(2))
    off, *_ = loss_of(lambda x0, eps: eps - x0 + torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1), 1.0)
    torch.testing.assert_close(off, torch.tensor([1.0, 4.0]))


def test_a_given_first_frame_is_clean_at_timestep_zero_and_not_counted():
    def wrong_first_frame(x0, eps):
        velocity = (eps - x0).clone()
        velocity[:, :, 0] += 1
        return velocity

    loss, seen, x0, eps, sigma = loss_of(wrong_first_frame, 1.0)
    assert torch.equal(loss, torch.zeros(2))
    torch.testing.assert_close(seen["x"][:, :, 0], x0[:, :, 0])
    tokens = 2 * 3
    assert torch.equal(seen["timestep"][:, :tokens], torch.zeros(2, tokens))
    torch.testing.assert_close(seen["timestep"][:, tokens:], 1000 * sigma[:, None].expand(2, 2 * tokens))
    s = sigma.view(2, 1, 1, 1, 1)
    torch.testing.assert_close(seen["x"][:, :, 1:], ((1 - s) * x0 + s * eps)[:, :, 1:])


def test_without_a_given_image_every_frame_counts():
    def wrong_first_frame(x0, eps):
        velocity = (eps - x0).clone()
        velocity[:, :, 0] += 1
        return velocity

    loss, seen, *_ = loss_of(wrong_first_frame, 0.0)
    torch.testing.assert_close(loss, torch.full((2,), 1 / 3))
    assert (seen["timestep"] > 0).all()


def test_prompt_embeddings_are_zero_after_the_end_and_do_not_depend_on_the_padding():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(len(tokenizer)).eval()
    caption = sample_scene(0).caption
    short = tokenizer(caption, return_tensors="pt").input_ids
    padded = tokenizer(caption, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        alone, among_padding = embed(encoder, short), embed(encoder, padded)
    torch.testing.assert_close(among_padding[:, : short.shape[1]], alone)
    assert torch.equal(
        among_padding[:, short.shape[1] :], torch.zeros_like(among_padding[:, short.shape[1] :])
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    frames = np.random.default_rng(0).integers(0, 256, (65, 9, 48, 48, 3), np.uint8)
    np.save(folder / "00000000.npy", frames)
    (folder / "00000000.json").write_text(json.dumps(["a room"] * 65))
    return folder


PLAN = {"steps": 0, "batch": 1, "seed": 0, "lr": 1e-3, "cooldown": 0.5, "threads": 1, "compile_blocks": False}


def test_a_model_that_is_trained_further_by_no_step_is_the_same(tmp_path, clips):
    shipped = model_folder("embedded")
    train(tmp_path / "out", clips, **PLAN, start_from=shipped)
    for part in ("transformer/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"):
        ours, theirs = (
            load_file(folder / f"{part}.safetensors") for folder in (tmp_path / "out/pipeline", shipped)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((tmp_path / "out/training.json").read_text())["continued"]
    assert "_name_or_path" not in json.loads((tmp_path / "out/pipeline/vae/config.json").read_text())


def test_a_model_of_another_size_keeps_it_when_trained_further(tmp_path, clips):
    small = tmp_path / "small"
    train(small, clips, **PLAN, heads=2, layers=1, channels=16, start_from=None)
    train(tmp_path / "out", clips, **PLAN, start_from=small / "pipeline")
    shape = WanTransformer3DModel.load_config(tmp_path / "out/pipeline/transformer")
    assert (shape["num_attention_heads"], shape["num_layers"], shape["ffn_dim"]) == (2, 1, 384)
    assert shape["in_channels"] == shape["out_channels"] == 16
    told = json.loads((tmp_path / "out/training.json").read_text())
    assert (told["heads"], told["layers"], told["channels"]) == (2, 1, 16)
