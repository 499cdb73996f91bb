"""Complete CogVideoX pipeline folders with random weights, small enough to run in a moment."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
)
from transformers import T5Config, T5EncoderModel

from tests.families.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, WORDS, tokenizer

Variant = Literal["2b", "5b", "5b_i2v", "1.5_t2v", "1.5_i2v"]
TEXT_LENGTH = 12
TRANSFORMERS: dict[Variant, dict[str, Any]] = {
    "2b": {"use_rotary_positional_embeddings": False},
    "5b": {"use_rotary_positional_embeddings": True},
    "5b_i2v": {
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
        "in_channels": 2 * LATENT_CHANNELS,
    },
    "1.5_t2v": {"use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False},
    "1.5_i2v": {
        "use_rotary_positional_embeddings": True,
        "patch_size_t": 2,
        "patch_bias": False,
        "in_channels": 2 * LATENT_CHANNELS,
        "ofs_embed_dim": 16,
    },
}
"""What tells the published transformers apart, beside their size."""


def build(folder: Path, variant: Variant = "5b") -> Path:
    """Write the folder and return it. Frames 8k+1, sides multiples of 16; 5B I2V takes 32×32 only, 1.5 at most."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline(variant).save_pretrained(folder)
    return folder


def pipeline(variant: Variant) -> DiffusionPipeline:
    # 2B samples with DDIM and a shifted SNR, the others with DPM.
    scheduler = CogVideoXDDIMScheduler if variant == "2b" else CogVideoXDPMScheduler
    wanted = CogVideoXImageToVideoPipeline if variant.endswith("i2v") else CogVideoXPipeline
    return wanted(
        tokenizer=tokenizer(TEXT_LENGTH),
        text_encoder=text_encoder(),
        vae=vae(inverted=variant == "1.5_i2v"),
        transformer=transformer(variant),
        scheduler=scheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0 if variant == "2b" else 1.0,
            timestep_spacing="trailing",
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
        ),
    )


def text_encoder() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(WORDS), d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0
    )
    return T5EncoderModel(config).eval()


def vae(inverted: bool) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
        invert_scale_latents=inverted,
    ).eval()


def transformer(variant: Variant) -> CogVideoXTransformer3DModel:
    settings: dict[str, Any] = {"in_channels": LATENT_CHANNELS} | TRANSFORMERS[variant]
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=TEXT_WIDTH,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=TEXT_LENGTH,
        **settings,
    ).eval()
