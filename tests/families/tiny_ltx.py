"""Complete LTX-Video pipeline folders with random weights, small enough to run in a moment."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from tests.families.tiny_cogvideox import text_encoder
from tests.families.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, tokenizer

Variant = Literal["0.9", "0.9.1", "0.9.7"]
WIDTH = 24
NEW_DECODER: dict[str, Any] = {
    "decoder_block_out_channels": (8, 16),
    "decoder_layers_per_block": (1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True),
    "upsample_residual": (True, True),
    "upsample_factor": (2, 2),
    "timestep_conditioning": True,
}
VAES: dict[Variant, dict[str, Any]] = {
    "0.9": {
        "decoder_block_out_channels": (8, 8),
        "decoder_layers_per_block": (1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True),
        "decoder_inject_noise": (False, False, False),
    },
    "0.9.1": NEW_DECODER | {"decoder_inject_noise": (True, True, False)},
    "0.9.7": NEW_DECODER
    | {
        "decoder_inject_noise": (False, False, False),
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("LTXVideo095DownBlock3D",) * 3,
        "layers_per_block": (1, 1, 1, 1),
        "spatio_temporal_scaling": (True, True, True),
        "downsample_type": ("spatial", "temporal", "spatiotemporal"),
        "spatial_compression_ratio": 8,
        "temporal_compression_ratio": 4,
    },
}
"""What tells the published VAEs apart, beside their size."""


def build(folder: Path, variant: Variant = "0.9") -> Path:
    """Write the folder and return it. Frames 4k+1, sides multiples of 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline(variant).save_pretrained(folder)
    return folder


def pipeline(variant: Variant) -> DiffusionPipeline:
    wanted = LTXConditionPipeline if variant == "0.9.7" else LTXPipeline
    return wanted(
        tokenizer=tokenizer(12),
        text_encoder=text_encoder(),
        vae=vae(variant),
        transformer=transformer(),
        scheduler=scheduler(variant),
    )


def scheduler(variant: Variant) -> FlowMatchEulerDiscreteScheduler:
    """As published: shifted for the size up to 0.9.1, not shifted from 0.9.5 on."""
    if variant == "0.9.7":
        return FlowMatchEulerDiscreteScheduler()
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def vae(variant: Variant) -> AutoencoderKLLTXVideo:
    first: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("LTXVideoDownBlock3D",) * 2,
        "layers_per_block": (1, 1, 1),
        "spatio_temporal_scaling": (True, True),
        "downsample_type": ("conv", "conv"),
        "upsample_residual": (False, False),
        "upsample_factor": (1, 1),
    }
    model = AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS, patch_size=2, **(first | VAES[variant])
    ).eval()
    model.latents_mean[:] = torch.tensor([0.1, -0.2, 0.3, 0.0])
    model.latents_std[:] = torch.tensor([0.8, 1.1, 0.9, 1.2])
    for name, parameter in model.named_parameters():
        # Zero in a fresh VAE, which would hide that the decoder draws noise.
        if "per_channel_scale" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        cross_attention_dim=WIDTH,
        num_layers=2,
        caption_channels=TEXT_WIDTH,
    ).eval()
