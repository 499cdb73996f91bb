"""Complete HunyuanVideo 1.5 pipeline folders with random weights, small enough to run in a moment."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from transformers import (
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from tests.families.tiny_hunyuan_video import PIECES, pieces_tokenizer
from tests.families.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH

Variant = Literal["t2v", "i2v"]
IMAGE_WIDTH = 8
SHIFT = 5.0
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def build(folder: Path, variant: Variant = "t2v", **settings: Any) -> Path:
    """Write the folder, with other `settings` of the transformer, and return it. Frames 4k+1, sides multiples of 16;
    I2V takes 32×32 and what has its area.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline(variant, **settings).save_pretrained(folder)
    return folder


def pipeline(variant: Variant, **settings: Any) -> DiffusionPipeline:
    parts: dict[str, Any] = {
        "tokenizer": chat_tokenizer(),
        "text_encoder": qwen(),
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": byt5(),
        "vae": vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
        "transformer": transformer(**settings),
    }
    if variant == "t2v":
        return HunyuanVideo15Pipeline(**parts)
    processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    return HunyuanVideo15ImageToVideoPipeline(**parts, image_encoder=siglip(), feature_extractor=processor)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = pieces_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def qwen() -> Qwen2_5_VLTextModel:
    # The pipelines take the states before the last two layers.
    config = Qwen2_5_VLTextConfig(
        vocab_size=len(PIECES),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=PIECES.index("<|eot_id|>"),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    )
    return Qwen2_5_VLTextModel(config).eval()


def byt5() -> T5EncoderModel:
    config = T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
    return T5EncoderModel(config).eval()


def siglip() -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return SiglipVisionModel(config).eval()


def vae() -> AutoencoderKLHunyuanVideo15:
    return AutoencoderKLHunyuanVideo15(
        block_out_channels=(8, 8, 8, 8, 8),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        scaling_factor=0.7,
    ).eval()


def transformer(**settings: Any) -> HunyuanVideo15Transformer3DModel:
    return HunyuanVideo15Transformer3DModel(
        in_channels=2 * LATENT_CHANNELS + 1,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=16,
        image_embed_dim=IMAGE_WIDTH,
        rope_axes_dim=(4, 6, 6),
        target_size=32,
        **settings,
    ).eval()
