"""Depth, normal and Marigold model folders with random weights, small enough to run in a moment."""

import json
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MarigoldIntrinsicsPipeline,
    MarigoldNormalsPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    PreTrainedModel,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)

CARD = "---\nlicense: apache-2.0\n---\n"
DINO = {"model_type": "dinov2", "hidden_size": 16, "num_attention_heads": 2, "mlp_ratio": 2}


def depth_anything(kind: str = "relative") -> tuple[PreTrainedModel, dict]:
    backbone = DINO | {
        "num_hidden_layers": 4,
        "image_size": 28,
        "patch_size": 14,
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone | {"out_indices": [1, 2, 3, 4], "apply_layernorm": True},
        reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=8,
        depth_estimation_type=kind, max_depth=10,
    )  # fmt: skip
    size = {"height": 56, "width": 56}
    return DepthAnythingForDepthEstimation(config), {
        "size": size, "ensure_multiple_of": 14, "keep_aspect_ratio": True, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip


def dpt() -> tuple[PreTrainedModel, dict]:
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        use_auxiliary_head=False, backbone_config=None,
    )  # fmt: skip
    return DPTForDepthEstimation(config), _half({"height": 32, "width": 32})


def zoedepth() -> tuple[PreTrainedModel, dict]:
    backbone = {
        "model_type": "beit", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 32, "patch_size": 8, "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False, "use_relative_position_bias": True,
    }  # fmt: skip
    config = ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, bottleneck_features=8,
        num_relative_features=8, bin_embedding_dim=8, num_attractors=[4, 2, 2, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.5, "max_depth": 10.0}],
    )  # fmt: skip
    kept = {"keep_aspect_ratio": True, "ensure_multiple_of": 32}
    return ZoeDepthForDepthEstimation(config), _half({"height": 32, "width": 32}) | kept


def depth_pro() -> tuple[PreTrainedModel, dict]:
    dino = DINO | {"num_hidden_layers": 4, "image_size": 16, "patch_size": 4, "use_mask_token": False}
    config = DepthProConfig(
        patch_size=16, fusion_hidden_size=8, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.5], scaled_images_feature_dims=[8, 8],
        merge_padding_value=1, use_fov_model=True, num_fov_head_layers=2, image_model_config=dino,
        patch_model_config=dino, fov_model_config=dino,
    )  # fmt: skip
    return DepthProForDepthEstimation(config), _half({"height": 32, "width": 32})


def save(folder: Path, network: PreTrainedModel, preprocessor: dict) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "README.md").write_text(CARD)
    return folder


def marigold(folder: Path, targets: tuple[str, ...] = ("albedo", "material")) -> Path:
    """An intrinsics pipeline with these target maps, a normals pipeline without any."""
    shared = {
        "vae": _vae(),
        "text_encoder": _text_encoder(),
        "tokenizer": _tokenizer(),
        "scheduler": DDIMScheduler(),
    }
    if targets:
        pipeline = MarigoldIntrinsicsPipeline(
            unet=_unet(len(targets)), prediction_type="intrinsics", target_properties={"target_names": list(targets)},
            default_denoising_steps=2, default_processing_resolution=32, **shared,
        )  # fmt: skip
    else:
        pipeline = MarigoldNormalsPipeline(
            unet=_unet(1), prediction_type="normals", use_full_z_range=True, default_denoising_steps=2,
            default_processing_resolution=32, **shared,
        )  # fmt: skip
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def _half(size: dict) -> dict:
    return {"size": size, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _unet(targets: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=4 * (1 + targets), out_channels=4 * targets, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip


def _tokenizer() -> CLIPTokenizer:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)
