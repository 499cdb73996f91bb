"""Complete HunyuanVideo 1.0 pipeline folders with random weights, small enough to run in a moment."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from tests.families.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, WORDS, tokenizer

Variant = Literal["t2v", "i2v"]
SPECIAL = ["<pad>", "<s>", "<unk>", "<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
PIECES = [
    *SPECIAL,
    "system",
    "\n\n",
    "a",
    "red",
    "blue",
    "box",
    "came",
    "ra",
    "orbi",
    "ts",
    "left",
    "righ",
    "t",
]
SHIFT = 7.0


def build(folder: Path, variant: Variant = "t2v", **settings: Any) -> Path:
    """Write the folder, with other `settings` of the transformer, and return it. Frames 4k+1, sides multiples of 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline(variant, **settings).save_pretrained(folder)
    return folder


def pipeline(variant: Variant, **settings: Any) -> DiffusionPipeline:
    kind = {"image_condition_type": None if variant == "t2v" else "token_replace"}
    parts: dict[str, Any] = {
        "tokenizer": pieces_tokenizer(),
        "text_encoder": llama() if variant == "t2v" else llava(),
        "tokenizer_2": tokenizer(77),
        "text_encoder_2": clip(),
        "vae": vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        "transformer": transformer(**kind | settings),
    }
    if variant == "t2v":
        return HunyuanVideoPipeline(**parts)
    processor = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=48)
    return HunyuanVideoImageToVideoPipeline(**parts, image_processor=processor)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """Four letters a token, so that the prompt begins behind where the pipelines cut their template off."""
    words = Tokenizer(WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="<unk>"))
    pattern = Regex(r"<[^>]+>|\n\n|system|\w{1,4}|[^\w\s]")
    words.pre_tokenizer = Split(pattern, behavior="removed", invert=True)
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", unk_token="<unk>", padding_side="right"
    )


def llama_config() -> LlamaConfig:
    # The pipelines take the states before the last two layers.
    return LlamaConfig(
        vocab_size=len(PIECES),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=PIECES.index("<|eot_id|>"),
    )


def llama() -> LlamaModel:
    return LlamaModel(llama_config()).eval()


def llava() -> LlavaForConditionalGeneration:
    # 24x24 patches: the 576 tokens that the pipeline leaves room for.
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=48,
        patch_size=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=llama_config(),
        image_token_index=PIECES.index("<image>"),
        pad_token_id=0,
    )
    return LlavaForConditionalGeneration(config).eval()


def clip() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
    )
    return CLIPTextModel(config).eval()


def vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        block_out_channels=(4, 4, 4, 4),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    ).eval()


def transformer(**settings: Any) -> HunyuanVideoTransformer3DModel:
    return HunyuanVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
        **settings,
    ).eval()
