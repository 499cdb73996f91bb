"""The parts of the embedded video model: a Wan TI2V pipeline folder in miniature."""

import json
from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from videogpa.artifact import write_json_atomic
from videogpa.world.linear_autoencoder import LinearVideoAutoencoder
from videogpa.world.scene import caption_words

FRAMES, SIZE = 9, 48
Z_DIM = 32
FLOW_SHIFT = 3.0
MAX_TOKENS = 40
TEXT_WIDTH = 64
HEAD_WIDTH = 48


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the caption vocabulary."""
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *caption_words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder, to be trained together with the transformer."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary_size,
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def build_transformer(heads: int = 4, layers: int = 6, channels: int = Z_DIM) -> WanTransformer3DModel:
    """The video transformer, each head 48 wide, for codes of so many channels; as shipped 3.9 M parameters."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=HEAD_WIDTH,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=4 * heads * HEAD_WIDTH,
        num_layers=layers,
    )


def save_pipeline(
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: UMT5EncoderModel,
    transformer: WanTransformer3DModel,
    vae: LinearVideoAutoencoder,
) -> None:
    """Write the complete diffusers folder; it loads with `DiffusionPipeline.from_pretrained(folder)`."""
    pipeline = WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT),
        transformer=transformer,
        expand_timesteps=True,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # By the package alone: it is imported together with torch, its modules are not.
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["videogpa", "LinearVideoAutoencoder"]
    write_json_atomic(folder / "model_index.json", index)
    # Where the autoencoder was read from is nobody's business and would change the folder's hash.
    config = json.loads((folder / "vae" / "config.json").read_text())
    config.pop("_name_or_path", None)
    write_json_atomic(folder / "vae" / "config.json", config)
