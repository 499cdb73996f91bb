"""The Wan family (2.1 text- and image-to-video, 2.2 TI2V and A14B) as diffusers folders: flow matching on latents."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from jaxtyping import Bool, Float
from PIL.Image import Image
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
from videogpa.families.first_frame import (
    as_picture,
    require_first_frame,
    require_fit,
    with_first_frame,
    without_first_frame,
)
from videogpa.families.flow_matching import FlowMatching
from videogpa.families.schedule import shifted, stratified
from videogpa.tensors import Latents, PerSample

VARIANTS = {
    "2.1 T2V 1.3B": {
        "repository": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "pipelines": ["WanPipeline"],
        "architecture": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        "parameters": 1.42,
        "license": "apache-2.0",
    },
    "2.1 T2V 14B": {
        "repository": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "pipelines": ["WanPipeline"],
        "architecture": {},
        "parameters": 14.29,
        "license": "apache-2.0",
    },
    "2.1 I2V 14B": {
        "repository": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "pipelines": ["WanImageToVideoPipeline"],
        "architecture": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
        "parameters": 16.4,
        "license": "apache-2.0",
    },
    "2.2 T2V A14B": {
        "repository": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        "pipelines": ["WanPipeline"],
        "architecture": {},
        "parameters": 14.29,
        "license": "apache-2.0",
    },
    "2.2 I2V A14B": {
        "repository": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "pipelines": ["WanImageToVideoPipeline"],
        "architecture": {"in_channels": 36},
        "parameters": 14.29,
        "license": "apache-2.0",
    },
    "2.2 TI2V 5B": {
        "repository": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "pipelines": ["WanPipeline"],
        "architecture": {
            "num_attention_heads": 24,
            "num_layers": 30,
            "ffn_dim": 14336,
            "in_channels": 48,
            "out_channels": 48,
        },
        "parameters": 5.0,
        "license": "apache-2.0",
    },
}
EXPERTS = ("transformer", "transformer_2")
"""Of a 2.2 A14B folder the first sees timesteps from the boundary on, the second those below."""
TRANSFORMER = WanTransformer3DModel
PIPELINES = {"WanPipeline": WanPipeline, "WanImageToVideoPipeline": WanImageToVideoPipeline}
LONGEST_PROMPT = 512


class Family(FlowMatching):
    """A Wan model folder behind the `VideoFamily` contract.

    TI2V folders (`expand_timesteps`) draw with and without a first frame; the frame is the clean first latent
    at timestep 0 and no part of the loss. Image-to-video folders (2.1, A14B) concatenate the image latents and
    their mask to the input channels. Of a folder with two experts (`boundary_ratio`) `transformer` is the one that
    is asked for, and timesteps are drawn from its part of the schedule; videos are drawn by both. Conditioning keys:
    `prompt_embeds` [b l d]; with an image `first_frame` [b c 1 h w] (TI2V) or `image_latents` [b 4+c f h w] and,
    where the folder has an image encoder, `image_embeds` [b l d] (2.1).

    Raises:
        InputError: the folder is missing, is no Wan pipeline, or its weights do not fit its configuration.
    """

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    lora_loader = WanLoraLoaderMixin

    def __init__(
        self,
        folder: Path | str,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        expert: Literal["transformer", "transformer_2"] = "transformer",
    ):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype
        index = read_index(self.folder, "wan", PIPELINES)
        self.expert = expert
        self.boundary: float | None = index.get("boundary_ratio")
        self.class_name = index["_class_name"]
        self.expand_timesteps = bool(index.get("expand_timesteps", False))
        self.transformer: Any = load_frozen(TRANSFORMER, self.folder, expert, dtype, self.device)
        self.scheduler = load_scheduler(self.folder, index)
        self.shift = _training_shift(self.folder, self.scheduler.config)
        self.num_train_timesteps = self.scheduler.config.num_train_timesteps

    @functools.cached_property
    def pipeline(self) -> DiffusionPipeline:
        """The folder's own pipeline around this transformer; the VAE stays float32 as diffusers advises."""
        return load_pipeline(
            PIPELINES[self.class_name],
            self.folder,
            self.dtype,
            self.device,
            scheduler=self.scheduler,
            **{self.expert: self.transformer},
        )

    @property
    def transformers(self) -> dict[str, Any]:
        """All experts by name; with two of them, the pipeline is loaded."""
        if self.boundary is None:
            return {self.expert: self.transformer}
        return {name: getattr(self.pipeline, name) for name in EXPERTS}

    @property
    def max_sequence_length(self) -> int:
        """Prompt length in tokens: the tokenizer's own, at most the 512 of the published models."""
        return min(self.pipeline.tokenizer.model_max_length, LONGEST_PROMPT)

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
        self._check_size(settings.frames, settings.height, settings.width)
        pipeline = self._pipeline_for(image)
        conditioning = self._conditioning(text, image, settings.frames, settings.height, settings.width)
        negative = self._encode_text("") if settings.guidance_scale > 1 else None
        given_image = {} if image is None else {"image": self._as_pipeline_input(image)}
        count = len(seeds)
        latents = pipeline(
            **given_image,
            prompt_embeds=conditioning["prompt_embeds"].repeat(count, 1, 1),
            negative_prompt_embeds=None if negative is None else negative.repeat(count, 1, 1),
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).frames
        return Samples(
            videos=self.decode(latents), latents=latents, conditioning=repeat_batch(conditioning, count)
        )

    @torch.no_grad()
    def encode(
        self,
        videos: Float[Tensor, "b t 3 height width"],
        text: str,
        image: Float[Tensor, "3 height width"] | None,
    ) -> tuple[Latents, Conditioning]:
        """Latents (the VAE's mode, normalised) and conditioning of videos in [0, 1].

        Raises:
            InputError: as `sample`.
        """
        count, frames, _, height, width = videos.shape
        self._check_size(frames, height, width)
        self._pipeline_for(image)
        conditioning = repeat_batch(self._conditioning(text, image, frames, height, width), count)
        vae = self.pipeline.vae
        pixels = (2 * videos - 1).transpose(1, 2).to(self.device, vae.dtype)
        mean, inverse_std = self._latent_statistics(torch.float32)
        latents = (vae.encode(pixels).latent_dist.mode().float() - mean) * inverse_std
        return with_first_frame(latents, conditioning), conditioning

    @torch.no_grad()
    def decode(self, latents: Latents) -> Float[Tensor, "b t 3 height width"]:
        """Videos in [0, 1], by the steps that end the diffusers pipelines."""
        vae = self.pipeline.vae
        mean, inverse_std = self._latent_statistics(vae.dtype)
        pixels = vae.decode(latents.to(self.device, vae.dtype) / inverse_std + mean, return_dict=False)[0]
        return self.pipeline.video_processor.postprocess_video(pixels, output_type="pt")

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """t = 1000 sigma, sigma shifted by the flow shift of the scheduler configuration, whatever the size; of two
        experts, this one's part of the schedule.
        """
        lowest, highest = 0.0, 1.0
        if self.boundary is not None:
            # sigma = boundary, before the shift.
            border = self.boundary / (self.shift - (self.shift - 1) * self.boundary)
            lowest, highest = (border, 1.0) if self.expert == EXPERTS[0] else (0.0, border)
        sigma = shifted(lowest + (highest - lowest) * stratified(generator, n), self.shift)
        return (sigma * self.num_train_timesteps).float().to(self.device)

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """False on the first latent frame where it is given."""
        return without_first_frame(latents, conditioning)

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """The velocity at x_t, called as the pipelines call the transformer: per-token timesteps with 0 on
        the clean first frame (TI2V), image latents as further channels (2.1).
        """
        model_input, timestep = x_t, t
        if self.expand_timesteps:
            model_input = with_first_frame(x_t, conditioning)
            noisy = self.loss_mask(x_t, conditioning)[0, 0, :, ::2, ::2].flatten()
            timestep = noisy * t[:, None]
        elif "image_latents" in conditioning:
            model_input = torch.cat([x_t, conditioning["image_latents"]], dim=1)
        image_embeds = conditioning.get("image_embeds")
        return self.transformer(
            hidden_states=model_input.to(self.dtype),
            timestep=timestep,
            encoder_hidden_states=conditioning["prompt_embeds"].to(self.dtype),
            encoder_hidden_states_image=None if image_embeds is None else image_embeds.to(self.dtype),
            return_dict=False,
        )[0]

    def _encode_text(self, text: str) -> Float[Tensor, "1 l d"]:
        embeds, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            device=self.device,
        )
        return embeds.to(self.dtype)

    def _conditioning(
        self, text: str, image: Tensor | None, frames: int, height: int, width: int
    ) -> dict[str, Tensor]:
        """Conditioning of one video (b = 1); the image latents come from the pipeline's own preparation."""
        conditioning = {"prompt_embeds": self._encode_text(text)}
        if image is None:
            return conditioning
        require_fit(image, frames, height, width)
        pipeline = self._pipeline_for(image)
        given = self._as_pipeline_input(image)
        pixels = pipeline.video_processor.preprocess(given, height=height, width=width)
        # Latents are passed so that preparing them draws nothing from the global generator.
        prepared = pipeline.prepare_latents(
            pixels.to(self.device, torch.float32),
            1,
            num_frames=frames,
            height=height,
            width=width,
            dtype=torch.float32,
            device=self.device,
            latents=torch.zeros(1),
        )
        conditioning["first_frame" if self.expand_timesteps else "image_latents"] = prepared[1]
        if self.transformer.config.image_dim is not None:
            conditioning["image_embeds"] = pipeline.encode_image(given, self.device).to(self.dtype)
        return conditioning

    def _pipeline_for(self, image: Tensor | None) -> DiffusionPipeline:
        """The pipeline class that takes this input, around the shared components."""
        channels = self.transformer.config.in_channels
        takes_image = self.expand_timesteps or channels != self.transformer.config.out_channels
        if not (self.expand_timesteps and image is None):
            require_first_frame(self.folder, takes_image, image)
        wanted = WanPipeline if image is None else WanImageToVideoPipeline
        if isinstance(self.pipeline, wanted):
            return self.pipeline
        names = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
        shared = {name: self.pipeline.components[name] for name in names}
        twin = wanted(**shared, expand_timesteps=self.expand_timesteps)
        twin.set_progress_bar_config(disable=True)
        return twin

    def _as_pipeline_input(self, image: Float[Tensor, "3 height width"]) -> Tensor | Image:
        """CLIP's image processor expects 8-bit images; everything else takes the tensor as it is."""
        if self.transformer.config.image_dim is None:
            return image[None]
        return as_picture(image)

    def _check_size(self, frames: int, height: int, width: int) -> None:
        config = self.pipeline.vae.config
        temporal, spatial = config.scale_factor_temporal, config.scale_factor_spatial
        # 16: what the pipelines demand; twice the VAE's factor: what the patches demand.
        multiple = max(16, 2 * spatial)
        if frames % temporal != 1:
            raise InputError(f"{frames} frames do not fit {self.folder}: choose k*{temporal}+1 frames")
        if any(side < 1 or side % multiple for side in (height, width)):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: "
                f"width and height must be multiples of {multiple}"
            )

    def _latent_statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation of the VAE's channels, [1 c 1 1 1]."""
        config = self.pipeline.vae.config
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(self.device, dtype)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1.0 / std


def _training_shift(folder: Path, config: Any) -> float:
    """The shift of the flow schedule; the name differs between flow matching and multistep schedulers."""
    is_flow = config.get("prediction_type", "flow_prediction") == "flow_prediction"
    if not is_flow or config.get("use_dynamic_shifting"):
        raise InputError(f"the scheduler of {folder} is no flow schedule with a fixed shift")
    return float(config.get("flow_shift", config.get("shift", 1.0)))
