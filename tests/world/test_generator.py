import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.world.generator import (
    FLOW_SHIFT,
    FRAMES,
    MAX_TOKENS,
    SIZE,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    save_pipeline,
)
from videogpa.world.linear_autoencoder import LinearVideoAutoencoder
from videogpa.world.paths import MOVES
from videogpa.world.scene import caption_words, sample_scene
from videogpa.world.train_generator import mirror_caption

TOKENIZER = build_tokenizer()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MOVES), st.booleans())
def test_captions_and_their_mirrors_have_no_unknown_word_and_fit(seed, move, dynamic):
    caption = sample_scene(seed, move=move, dynamic=dynamic).caption
    for text in (caption, mirror_caption(caption)):
        tokens = TOKENIZER(text).input_ids
        assert TOKENIZER.unk_token_id not in tokens
        assert tokens[-1] == TOKENIZER.eos_token_id
        assert len(tokens) <= MAX_TOKENS
        assert (
            TOKENIZER.convert_ids_to_tokens(tokens[:-1]) == text.replace(",", " ,").replace(";", " ;").split()
        )


def test_every_word_has_one_token_and_other_words_none():
    assert len(TOKENIZER) == len(caption_words()) + 3
    assert len({TOKENIZER(word).input_ids[0] for word in caption_words()}) == len(caption_words())
    assert TOKENIZER("zebra").input_ids[0] == TOKENIZER.unk_token_id
    assert TOKENIZER("").input_ids == [TOKENIZER.eos_token_id]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("embedded")
    save_pipeline(
        path,
        tokenizer=TOKENIZER,
        text_encoder=build_text_encoder(len(TOKENIZER)),
        transformer=build_transformer(),
        vae=LinearVideoAutoencoder(),
    )
    return path


def test_the_folder_is_a_diffusers_pipeline_without_pickle(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ == "WanImageToVideoPipeline"
    assert pipeline.config.expand_timesteps
    assert isinstance(pipeline.vae, LinearVideoAutoencoder)
    assert pipeline.scheduler.config.shift == FLOW_SHIFT
    assert pipeline.vae_scale_factor_spatial == 4
    assert pipeline.vae_scale_factor_temporal == 2
    assert SIZE % (pipeline.vae_scale_factor_spatial * pipeline.transformer.config.patch_size[1]) == 0
    assert (FRAMES - 1) % pipeline.vae_scale_factor_temporal == 0
    assert sum(p.numel() for p in pipeline.transformer.parameters()) < 6_000_000
    assert not [p for p in folder.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".ckpt", ".py"}]
