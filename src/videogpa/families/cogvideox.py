"""The CogVideoX family (2B, 5B, 5B I2V, 1.5 T2V and I2V) as diffusers folders: v-prediction on latents."""

import functools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXPipeline, CogVideoXTransformer3DModel
from diffusers.loaders import CogVideoXLoraLoaderMixin
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from videogpa.errors import InputError
from videogpa.families.base import Conditioning, LatentSize, SamplerSettings, Samples
from videogpa.families.diffusers_folder import (
    load_frozen,
    load_pipeline,
    load_scheduler,
    read_index,
    repeat_batch,
)
from videogpa.families.first_frame import encoding_by_mode, require_first_frame, require_fit
from videogpa.families.schedule import stratified
from videogpa.tensors import Latents, PerSample

VARIANTS = {
    "2B": {
        "repository": "THUDM/CogVideoX-2b",
        "pipelines": ["CogVideoXPipeline"],
        "told_by": ["use_rotary_positional_embeddings"],
        "architecture": {"use_rotary_positional_embeddings": False},
        "parameters": 1.69,
        "license": "apache-2.0",
    },
    "5B": {
        "repository": "THUDM/CogVideoX-5b",
        "pipelines": ["CogVideoXPipeline"],
        "told_by": ["use_rotary_positional_embeddings", "patch_size_t"],
        "architecture": {
            "num_attention_heads": 48,
            "num_layers": 42,
            "use_rotary_positional_embeddings": True,
            "patch_size_t": None,
        },
        "parameters": 5.57,
        "license": "cogvideox",
    },
    "5B I2V": {
        "repository": "THUDM/CogVideoX-5b-I2V",
        "pipelines": ["CogVideoXImageToVideoPipeline"],
        "told_by": ["patch_size_t"],
        "architecture": {
            "in_channels": 32,
            "num_attention_heads": 48,
            "num_layers": 42,
            "use_rotary_positional_embeddings": True,
            "use_learned_positional_embeddings": True,
            "patch_size_t": None,
        },
        "parameters": 5.57,
        "license": "cogvideox",
    },
    "1.5 5B": {
        "repository": "THUDM/CogVideoX1.5-5B",
        "pipelines": ["CogVideoXPipeline"],
        "told_by": ["patch_size_t"],
        "architecture": {
            "num_attention_heads": 48,
            "num_layers": 42,
            "use_rotary_positional_embeddings": True,
            "patch_size_t": 2,
            "patch_bias": False,
            "sample_height": 300,
            "sample_width": 300,
            "sample_frames": 81,
        },
        "parameters": 5.57,
        "license": "cogvideox",
    },
    "1.5 5B I2V": {
        "repository": "THUDM/CogVideoX1.5-5B-I2V",
        "pipelines": ["CogVideoXImageToVideoPipeline"],
        "told_by": ["patch_size_t"],
        "architecture": {
            "in_channels": 32,
            "num_attention_heads": 48,
            "num_layers": 42,
            "use_rotary_positional_embeddings": True,
            "patch_size_t": 2,
            "patch_bias": False,
            "ofs_embed_dim": 512,
            "sample_height": 300,
            "sample_width": 300,
            "sample_frames": 81,
        },
        "parameters": 5.57,
        "license": "cogvideox",
    },
}
TRANSFORMER = CogVideoXTransformer3DModel
PIPELINES: dict[str, Any] = {
    "CogVideoXPipeline": CogVideoXPipeline,
    "CogVideoXImageToVideoPipeline": CogVideoXImageToVideoPipeline,
}
OFFSET = 2.0
"""What the 1.5 image-to-video pipeline gives as `ofs`, whatever it draws."""


class Family:
    """A CogVideoX model folder behind the `VideoFamily` contract.

    Latents are [b c f h w], as everywhere here; the transformer's own order, frames before channels, stays inside. A
    transformer with temporal patches (1.5) takes latent frames in twos: an odd number is padded in front, by the
    pipeline itself when it draws and by a copy of the first one in `encode`, and the padding is no part of the loss.
    Conditioning keys: `prompt_embeds` [b l d]; `padding` [b], the number of padded latent frames; with an image
    `image_latents` [b c f h w], from the mode of the VAE's distribution, so that all candidates of a prompt share them
    (the plain pipeline draws them anew for each video).

    Raises:
        InputError: the folder is missing, is no CogVideoX pipeline, or its weights do not fit its configuration.
    """

    prediction_type: Literal["v_prediction"] = "v_prediction"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    lora_loader = CogVideoXLoraLoaderMixin

    def __init__(
        self, folder: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype
        index = read_index(self.folder, "cogvideox", PIPELINES)
        self.pipeline_class = PIPELINES[index["_class_name"]]
        self.takes_image = self.pipeline_class is CogVideoXImageToVideoPipeline
        self.transformer: Any = load_frozen(TRANSFORMER, self.folder, "transformer", dtype, self.device)
        self.scheduler = load_scheduler(self.folder, index)
        predicts_v = self.scheduler.config.get("prediction_type") == "v_prediction"
        if not (predicts_v and hasattr(self.scheduler, "alphas_cumprod")):
            raise InputError(f"the scheduler of {self.folder} does not predict v, as CogVideoX does")

    @functools.cached_property
    def pipeline(self) -> Any:
        """The folder's own pipeline around this transformer."""
        return load_pipeline(
            self.pipeline_class,
            self.folder,
            self.dtype,
            self.device,
            transformer=self.transformer,
            scheduler=self.scheduler,
        )

    @torch.no_grad()
    def sample(
        self,
        text: str,
        image: Float[Tensor, "3 height width"] | None,
        seeds: Sequence[int],
        settings: SamplerSettings,
    ) -> Samples:
        """One video per seed in one pipeline call; each seed has its own generator on the CPU.

        Raises:
            InputError: frames or size do not fit the model, or it needs (or cannot take) a first frame.
        """
        self._check(image, settings.frames, settings.height, settings.width)
        conditioning = self._conditioning(text, image, settings.frames)
        count = len(seeds)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        given: dict[str, Any] = {} if image is None else {"image": image.expand(count, -1, -1, -1)}
        negative = self._encode_text("") if settings.guidance_scale > 1 else None
        with encoding_by_mode(self.pipeline.vae):
            latents = self.pipeline(
                **given,
                prompt_embeds=conditioning["prompt_embeds"].repeat(count, 1, 1),
                negative_prompt_embeds=None if negative is None else negative.repeat(count, 1, 1),
                height=settings.height,
                width=settings.width,
                num_frames=settings.frames,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                generator=generators,
                output_type="latent",
            ).frames.transpose(1, 2)
        padding = int(conditioning["padding"][0])
        return Samples(
            videos=self.decode(latents[:, :, padding:]),
            latents=latents,
            conditioning=repeat_batch(conditioning, count),
        )

    @torch.no_grad()
    def encode(
        self,
        videos: Float[Tensor, "b t 3 height width"],
        text: str,
        image: Float[Tensor, "3 height width"] | None,
    ) -> tuple[Latents, Conditioning]:
        """Latents (the VAE's mode, scaled) and conditioning of videos in [0, 1].

        Raises:
            InputError: as `sample`.
        """
        count, frames, _, height, width = videos.shape
        self._check(image, frames, height, width)
        conditioning = self._conditioning(text, image, frames)
        vae = self.pipeline.vae
        pixels = (2 * videos - 1).transpose(1, 2).to(self.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
        padded = torch.cat([latents[:, :, : int(conditioning["padding"][0])], latents], dim=2)
        return padded, repeat_batch(conditioning, count)

    @torch.no_grad()
    def decode(self, latents: Latents) -> Float[Tensor, "b t 3 height width"]:
        """Videos in [0, 1] from latents without padding, by the steps that end the diffusers pipelines."""
        vae = self.pipeline.vae
        pixels = self.pipeline.decode_latents(latents.transpose(1, 2).to(self.device, vae.dtype))
        return self.pipeline.video_processor.postprocess_video(pixels, output_type="pt")

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """Whole timesteps 0 to T - 1 of the training schedule, uniform, whatever the size."""
        count = self.scheduler.config.num_train_timesteps
        return (stratified(generator, n) * count).floor().float().to(self.device)

    def noise(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """x_t = √a x0 + √(1 - a) eps, with the scheduler's a (its shift and zero terminal SNR included)."""
        signal, rest = self._shares(t, x0)
        return signal * x0 + rest * eps

    def target(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """v = √a eps - √(1 - a) x0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D)."""
        signal, rest = self._shares(t, x0)
        return signal * eps - rest * x0

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """False on padded latent frames, which no video shows."""
        frame = torch.arange(latents.shape[2], device=latents.device).view(1, 1, -1, 1, 1)
        shown = frame >= conditioning["padding"].to(latents.device).view(-1, 1, 1, 1, 1)
        return shown.expand_as(latents[:, :1])

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """v at x_t, called as the pipelines call the transformer: rotary embeddings where it uses them, image latents
        as further channels, the offset embedding of 1.5.
        """
        model_input = x_t
        if "image_latents" in conditioning:
            model_input = torch.cat([x_t, conditioning["image_latents"].to(x_t.dtype)], dim=1)
        offset = {}
        if self.transformer.config.ofs_embed_dim is not None:
            offset["ofs"] = torch.full((1,), OFFSET, dtype=self.dtype, device=x_t.device)
        return self.transformer(
            hidden_states=model_input.transpose(1, 2).to(self.dtype),
            encoder_hidden_states=conditioning["prompt_embeds"].to(self.dtype),
            timestep=t,
            image_rotary_emb=self._rotary(x_t),
            return_dict=False,
            **offset,
        )[0].transpose(1, 2)

    def _rotary(self, x_t: Latents) -> tuple[Tensor, Tensor] | None:
        if not self.transformer.config.use_rotary_positional_embeddings:
            return None
        frames, height, width = x_t.shape[2:]
        # The pipeline's own code, which asks for the transformer and, to get from pixels to latents, for the VAE's
        # factor: sides are given in latents, and no pipeline has to be loaded.
        stand_in = SimpleNamespace(transformer=self.transformer, vae_scale_factor_spatial=1)
        return self.pipeline_class._prepare_rotary_positional_embeddings(
            stand_in, height, width, frames, x_t.device
        )

    def _shares(self, t: PerSample, like: Latents) -> tuple[Tensor, Tensor]:
        a = self.scheduler.alphas_cumprod.to(t.device)[t.long()].to(like.dtype).view(-1, 1, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()

    def _encode_text(self, text: str) -> Float[Tensor, "1 l d"]:
        embeds, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.transformer.config.max_text_seq_length,
            device=self.device,
        )
        return embeds.to(self.dtype)

    def _conditioning(self, text: str, image: Tensor | None, frames: int) -> dict[str, Tensor]:
        """Conditioning of one video (b = 1); the image latents come from the pipeline's own preparation."""
        pipeline = self.pipeline
        padding = self._padding((frames - 1) // pipeline.vae_scale_factor_temporal + 1)
        conditioning = {"prompt_embeds": self._encode_text(text), "padding": torch.tensor([padding])}
        if image is None:
            return conditioning
        height, width = image.shape[1:]
        pixels = pipeline.video_processor.preprocess(image[None], height=height, width=width)
        with encoding_by_mode(pipeline.vae):
            # Latents are passed so that preparing them draws nothing from the global generator.
            _, prepared = pipeline.prepare_latents(
                pixels.to(self.device, self.dtype),
                num_channels_latents=self.transformer.config.in_channels // 2,
                num_frames=frames + padding * pipeline.vae_scale_factor_temporal,
                height=height,
                width=width,
                dtype=self.dtype,
                device=self.device,
                latents=torch.zeros(1),
            )
        return conditioning | {"image_latents": prepared.transpose(1, 2)}

    def _padding(self, latent_frames: int) -> int:
        return -latent_frames % (self.transformer.config.patch_size_t or 1)

    def _check(self, image: Tensor | None, frames: int, height: int, width: int) -> None:
        require_first_frame(self.folder, self.takes_image, image)
        require_fit(image, frames, height, width)
        temporal, spatial = self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial
        if frames % (2 * temporal) != 1:
            # The VAE decodes an even number of latent frames to another number of frames, without a word.
            raise InputError(f"{frames} frames do not fit {self.folder}: choose k*{2 * temporal}+1 frames")
        config = self.transformer.config
        multiple = spatial * config.patch_size
        if any(side < 1 or side % multiple for side in (height, width)):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: width and height must be multiples of {multiple}"
            )
        own_height, own_width = config.sample_height * spatial, config.sample_width * spatial
        if config.use_learned_positional_embeddings and (height, width) != (own_height, own_width):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: it draws {own_width}x{own_height} only"
            )
        if config.patch_size_t is not None and (height > own_height or width > own_width):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: it draws at most {own_width}x{own_height}"
            )
