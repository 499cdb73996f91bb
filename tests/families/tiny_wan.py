"""Complete Wan pipeline folders with random weights, small enough to run in a moment."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

Variant = Literal["ti2v", "t2v", "i2v", "i2v_clip", "a14b_t2v", "a14b_i2v"]
BOUNDARIES = {"a14b_t2v": 0.875, "a14b_i2v": 0.9}
"""Of two experts; the published ratios."""
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "box", "camera", "orbits", "left", "right"]
LATENT_CHANNELS = 4
TEXT_WIDTH = 16


def build(folder: Path, variant: Variant = "ti2v", width: int = 24) -> Path:
    """Write the folder and return it. Frames 4k+1, sides multiples of 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline(variant, width).save_pretrained(folder)
    return folder


def pipeline(variant: Variant, width: int) -> DiffusionPipeline:
    image_width = 32 if variant == "i2v_clip" else None
    parts = {
        "tokenizer": tokenizer(512 if image_width else 12),
        "text_encoder": text_encoder(),
        "vae": vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)
        if variant == "ti2v"
        else UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
        ),
        "transformer": transformer(
            LATENT_CHANNELS if variant in ("ti2v", "t2v", "a14b_t2v") else 2 * LATENT_CHANNELS + 4,
            width,
            image_width,
        ),
    }
    boundary = BOUNDARIES.get(variant)
    if boundary:
        parts["transformer_2"] = transformer(parts["transformer"].config.in_channels, width, None)
    if variant in ("t2v", "a14b_t2v"):
        return WanPipeline(**parts, boundary_ratio=boundary)
    if image_width:
        parts["image_encoder"] = image_encoder(image_width)
        parts["image_processor"] = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    return WanImageToVideoPipeline(**parts, expand_timesteps=variant == "ti2v", boundary_ratio=boundary)


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=len(WORDS), d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0
    )
    return UMT5EncoderModel(config).eval()


def vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.8, 1.1, 0.9, 1.2],
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    ).eval()


def transformer(in_channels: int, width: int, image_width: int | None) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=width // 2,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=48,
        num_layers=2,
        image_dim=image_width,
        added_kv_proj_dim=width if image_width else None,
        rope_max_seq_len=32,
    ).eval()


def image_encoder(width: int) -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return CLIPVisionModel(config).eval()
