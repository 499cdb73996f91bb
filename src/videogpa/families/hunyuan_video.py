"""The HunyuanVideo 1.0 family (text- and image-to-video) as diffusers folders: flow matching on latents."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.loaders import HunyuanVideoLoraLoaderMixin
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
from videogpa.families.first_frame import (
    as_picture,
    require_first_frame,
    require_fit,
    with_first_frame,
    without_first_frame,
)
from videogpa.families.flow_matching import FlowMatching
from videogpa.families.schedule import fixed_shift, shifted, stratified
from videogpa.tensors import Latents, PerSample

VARIANTS = {
    "T2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo",
        "pipelines": ["HunyuanVideoPipeline"],
        "architecture": {},
        "parameters": 12.82,
        "license": "tencent-hunyuan-community",
    },
    "I2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo-I2V",
        "pipelines": ["HunyuanVideoImageToVideoPipeline"],
        "architecture": {"image_condition_type": "token_replace"},
        "parameters": 12.82,
        "license": "tencent-hunyuan-community",
    },
}
TRANSFORMER = HunyuanVideoTransformer3DModel
PIPELINES: dict[str, Any] = {
    "HunyuanVideoPipeline": HunyuanVideoPipeline,
    "HunyuanVideoImageToVideoPipeline": HunyuanVideoImageToVideoPipeline,
}
PROMPT = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
"""What the pipelines take in place of a prompt, by their own names."""
GUIDANCE = 6.0
"""The embedded guidance of a drawing that asks for none, and of given videos: what the authors draw with."""
IMAGE_INTERLEAVE = 4
"""Every which token of the image the prompt's embeddings keep, as the pipeline does for a replaced first frame."""


class Family(FlowMatching):
    """A HunyuanVideo 1.0 model folder behind the `VideoFamily` contract.

    The models are distilled to draw in one call what guidance takes two for: `guidance_scale` above 1 is the strength
    that the transformer is told, up to 1 it is told `GUIDANCE`, and training tells it what sampling did. With an image
    the first frame is the clean first latent and no part of the loss, and the prompt's embeddings show it.
    Conditioning keys: `prompt_embeds` [b l d], `prompt_attention_mask` [b l], `pooled_prompt_embeds` [b d], `guidance`
    [b]; with an image `first_frame` [b c 1 h w].

    Raises:
        InputError: the folder is missing, is no HunyuanVideo 1.0 pipeline, its weights do not fit its configuration,
            or its transformer or scheduler is of another kind than those of the two published models.
    """

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    lora_loader = HunyuanVideoLoraLoaderMixin

    def __init__(
        self, folder: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype
        index = read_index(self.folder, "hunyuan_video", PIPELINES)
        self.pipeline_class = PIPELINES[index["_class_name"]]
        self.takes_image = self.pipeline_class is HunyuanVideoImageToVideoPipeline
        self.transformer: Any = load_frozen(TRANSFORMER, self.folder, "transformer", dtype, self.device)
        self._check_transformer()
        self.scheduler = load_scheduler(self.folder, index)
        self.shift = fixed_shift(self.folder, self.scheduler)
        self.num_train_timesteps = self.scheduler.config.num_train_timesteps

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
        guidance = settings.guidance_scale if settings.guidance_scale > 1 else GUIDANCE
        count = len(seeds)
        conditioning = repeat_batch(self._conditioning(text, image, guidance), count)
        given: dict[str, Any] = {} if image is None else {"image": [as_picture(image)] * count}
        latents = self.pipeline(
            **given,
            **{name: conditioning[name] for name in PROMPT},
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).frames
        return Samples(videos=self.decode(latents), latents=latents, conditioning=conditioning)

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
        conditioning = repeat_batch(self._conditioning(text, image, GUIDANCE), count)
        vae = self.pipeline.vae
        pixels = (2 * videos - 1).transpose(1, 2).to(self.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
        return with_first_frame(latents, conditioning), conditioning

    @torch.no_grad()
    def decode(self, latents: Latents) -> Float[Tensor, "b t 3 height width"]:
        """Videos in [0, 1], by the steps that end the diffusers pipelines."""
        vae = self.pipeline.vae
        scaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        pixels = vae.decode(scaled, return_dict=False)[0]
        return self.pipeline.video_processor.postprocess_video(pixels, output_type="pt")

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """t = 1000 sigma, sigma shifted by the scheduler's shift, whatever the size."""
        sigma = shifted(stratified(generator, n), self.shift)
        return (sigma * self.num_train_timesteps).float().to(self.device)

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """False on the first latent frame where it is given."""
        return without_first_frame(latents, conditioning)

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """The velocity at x_t, called as the pipelines call the transformer, which itself knows that a given first
        frame is clean.
        """
        return self.transformer(
            hidden_states=with_first_frame(x_t, conditioning).to(self.dtype),
            timestep=t,
            encoder_hidden_states=conditioning["prompt_embeds"].to(self.dtype),
            encoder_attention_mask=conditioning["prompt_attention_mask"].to(self.dtype),
            pooled_projections=conditioning["pooled_prompt_embeds"].to(self.dtype),
            guidance=conditioning["guidance"].to(self.dtype) * 1000.0,
            return_dict=False,
        )[0]

    def _conditioning(self, text: str, image: Tensor | None, guidance: float) -> dict[str, Tensor]:
        """Conditioning of one video (b = 1); the first frame comes from the pipeline's own preparation."""
        pipeline = self.pipeline
        shown: dict[str, Any] = {}
        if image is not None:
            shown = {"image": as_picture(image), "image_embed_interleave": IMAGE_INTERLEAVE}
        embeds, pooled, mask = pipeline.encode_prompt(prompt=text, device=self.device, **shown)
        conditioning = {
            "prompt_embeds": embeds.to(self.dtype),
            "pooled_prompt_embeds": pooled.to(self.dtype),
            "prompt_attention_mask": mask,
            "guidance": torch.tensor([guidance], device=self.device),
        }
        if image is None:
            return conditioning
        height, width = image.shape[1:]
        pixels = pipeline.video_processor.preprocess(shown["image"], height, width)
        # Latents are passed so that preparing them draws nothing from the global generator.
        _, first_frame = pipeline.prepare_latents(
            pixels.to(self.device, pipeline.vae.dtype),
            1,
            num_channels_latents=self.transformer.config.in_channels,
            height=height,
            width=width,
            num_frames=1,
            dtype=torch.float32,
            device=self.device,
            latents=torch.zeros(1),
            image_condition_type="token_replace",
        )
        return conditioning | {"first_frame": first_frame}

    def _check(self, image: Tensor | None, frames: int, height: int, width: int) -> None:
        require_first_frame(self.folder, self.takes_image, image)
        require_fit(image, frames, height, width)
        temporal, spatial = self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial
        if frames % temporal != 1:
            raise InputError(f"{frames} frames do not fit {self.folder}: choose k*{temporal}+1 frames")
        # 16: what the pipelines demand, whatever the VAE.
        multiple = max(16, spatial * self.transformer.config.patch_size)
        if any(side < 1 or side % multiple for side in (height, width)):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: width and height must be multiples of {multiple}"
            )

    def _check_transformer(self) -> None:
        config = self.transformer.config
        if config.image_condition_type == "latent_concat":
            raise InputError(
                f"{self.folder} concatenates its first frame and draws 4 frames less than it is asked for: "
                "choose HunyuanVideo-I2V, which replaces the first latent"
            )
        if (config.image_condition_type == "token_replace") != self.takes_image or not config.guidance_embeds:
            raise InputError(
                f"the transformer of {self.folder} does not fit its {self.pipeline_class.__name__}: it must be told "
                "its guidance (guidance_embeds), and replace the first latent if it takes a first frame"
            )
