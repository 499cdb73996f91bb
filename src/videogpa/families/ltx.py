"""The LTX-Video family (0.9 to 0.9.7, text- and image-to-video) as diffusers folders: flow matching on latents."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.loaders import LTXVideoLoraLoaderMixin
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from videogpa.errors import InputError
from videogpa.families.base import Conditioning, LatentSize, SamplerSettings, Samples
from videogpa.families.diffusers_folder import (
    cannot_load,
    load_frozen,
    load_pipeline,
    load_scheduler,
    read_index,
    repeat_batch,
)
from videogpa.families.first_frame import (
    encoding_by_mode,
    require_fit,
    with_first_frame,
    without_first_frame,
)
from videogpa.families.flow_matching import FlowMatching
from videogpa.families.schedule import shifted, stratified
from videogpa.tensors import Latents, PerSample

VARIANTS = {
    "0.9 2B": {
        "repository": "Lightricks/LTX-Video",
        "pipelines": ["LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"],
        "told_by": ["attention_head_dim"],
        "architecture": {"attention_head_dim": 64},
        "parameters": 1.92,
        # Every 2B version has a licence of its own, and nothing in a folder tells the versions apart.
        "license": "unknown",
    },
    "0.9.1 2B": {
        "repository": "Lightricks/LTX-Video-0.9.1",
        "pipelines": ["LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"],
        "told_by": ["attention_head_dim"],
        "architecture": {"attention_head_dim": 64},
        "parameters": 1.92,
        "license": "unknown",
    },
    "0.9.5 2B": {
        "repository": "Lightricks/LTX-Video-0.9.5",
        "pipelines": ["LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"],
        "told_by": ["attention_head_dim"],
        "architecture": {"attention_head_dim": 64},
        "parameters": 1.92,
        "license": "unknown",
    },
    "0.9.7 13B": {
        "repository": "Lightricks/LTX-Video-0.9.7-dev",
        "pipelines": ["LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"],
        "told_by": ["attention_head_dim"],
        "architecture": {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
        "parameters": 13.04,
        "license": "LTX-Video-Open-Weights-License-0.X",
    },
}
TRANSFORMER = LTXVideoTransformer3DModel
PIPELINES: dict[str, Any] = {
    "LTXPipeline": LTXPipeline,
    "LTXImageToVideoPipeline": LTXImageToVideoPipeline,
    "LTXConditionPipeline": LTXConditionPipeline,
}
FRAME_RATE = 25
"""Frames a second of what is drawn, as all LTX pipelines take it unless told otherwise: positions are in seconds."""
DECODE_TIMESTEP, DECODE_NOISE = 0.05, 0.025
"""What the authors give a VAE that takes out the last noise itself (0.9.1 and later)."""


class Family(FlowMatching):
    """An LTX-Video folder behind the `VideoFamily` contract.

    Latents are [b c f h w], as everywhere here; the transformer's own tokens [b n c] stay inside. Every folder draws
    with and without a first frame, which is the clean first latent at timestep 0 and no part of the loss. It is the
    mode of the VAE's distribution, so that all candidates of a prompt share it (the plain pipelines draw it anew for
    each video), and no noise is put on it (`image_cond_noise_scale` 0; `LTXConditionPipeline` would put 0.15).
    Conditioning keys: `prompt_embeds` [b l d], `prompt_mask` [b l], with an image `first_frame` [b c 1 h w].

    Raises:
        InputError: the folder is missing, is no LTX pipeline, its weights do not fit its configuration, or its
            scheduler, VAE or patches are of a kind that the LTX pipelines of diffusers cannot draw with.
    """

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    lora_loader = LTXVideoLoraLoaderMixin

    def __init__(
        self, folder: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype
        index = read_index(self.folder, "ltx", PIPELINES)
        self.pipeline_class = PIPELINES[index["_class_name"]]
        self.takes_conditions = self.pipeline_class is LTXConditionPipeline
        self.scheduler = load_scheduler(self.folder, index)
        self._check_scheduler()
        self.frames_per_latent, self.pixels_per_latent = _compression(self.folder)
        self.transformer: Any = load_frozen(TRANSFORMER, self.folder, "transformer", dtype, self.device)
        self._check_patches()
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
            InputError: frames, size or steps do not fit the model, or the size not the first frame.
        """
        self._check(image, settings.frames, settings.height, settings.width)
        if settings.steps < 2 and self.scheduler.config.shift_terminal:
            # The scheduler would stretch its only sigma by 0 / 0.
            raise InputError(
                f"{settings.steps} step does not fit the scheduler of {self.folder}: choose 2 or more"
            )
        conditioning = self._conditioning(text, image)
        count = len(seeds)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        given: dict[str, Any] = {}
        if image is not None and self.takes_conditions:
            given = {"image": image[None], "image_cond_noise_scale": 0.0}
        elif image is not None:
            given = {"image": image.expand(count, -1, -1, -1)}
        if settings.guidance_scale > 1:
            embeds, mask = self._encode_text("")
            given["negative_prompt_embeds"] = embeds.repeat(count, 1, 1)
            given["negative_prompt_attention_mask"] = mask.repeat(count, 1)
        with encoding_by_mode(self.pipeline.vae):
            latents = self._pipeline_for(image)(
                **given,
                prompt_embeds=conditioning["prompt_embeds"].repeat(count, 1, 1),
                prompt_attention_mask=conditioning["prompt_mask"].repeat(count, 1),
                height=settings.height,
                width=settings.width,
                num_frames=settings.frames,
                frame_rate=FRAME_RATE,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                generator=generators,
                output_type="latent",
            ).frames
        if not self.takes_conditions:
            size = (
                (settings.frames - 1) // self.frames_per_latent + 1,
                settings.height // self.pixels_per_latent,
                settings.width // self.pixels_per_latent,
            )
            latents = _as_latents(latents, size)
        return Samples(
            videos=self.decode(latents, generators),
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
        """Latents (the VAE's mode, normalised) and conditioning of videos in [0, 1].

        Raises:
            InputError: frames or size do not fit the model, or the size not the first frame.
        """
        count, frames, _, height, width = videos.shape
        self._check(image, frames, height, width)
        conditioning = repeat_batch(self._conditioning(text, image), count)
        latents = self._encode_pixels((2 * videos - 1).transpose(1, 2))
        return with_first_frame(latents, conditioning), conditioning

    @torch.no_grad()
    def decode(self, latents: Latents, generators: list[Generator]) -> Float[Tensor, "b t 3 height width"]:
        """Videos in [0, 1], by the steps that end the diffusers pipelines.

        Args:
            generators: one a video, on the CPU, for the noise that some VAEs are given to take out.
        """
        vae = self.pipeline.vae
        latents = LTXPipeline._denormalize_latents(
            latents.to(self.device, vae.dtype), vae.latents_mean, vae.latents_std
        )
        timestep = None
        if vae.config.timestep_conditioning:
            noise = randn_tensor(latents.shape, generators, self.device, latents.dtype)
            share = torch.tensor(DECODE_NOISE, device=self.device, dtype=latents.dtype)
            latents = (1 - share) * latents + share * noise
            timestep = torch.full((len(latents),), DECODE_TIMESTEP, device=self.device, dtype=latents.dtype)
        # The decoder of 0.9.1 draws from the global generator: the same for all, and without a trace.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)
            pixels = vae.decode(latents, timestep, return_dict=False)[0]
        return self.pipeline.video_processor.postprocess_video(pixels, output_type="pt")

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """t = 1000 sigma, by the scheduler's own formulas: sigma shifted for the number of latents, and stretched to
        end at the last sigma that the pipelines visit.
        """
        u, config = stratified(generator, n), self.scheduler.config
        if config.use_dynamic_shifting:
            mu = calculate_shift(
                math.prod(latent_size),
                config.base_image_seq_len,
                config.max_image_seq_len,
                config.base_shift,
                config.max_shift,
            )
            sigma = self.scheduler.time_shift(mu, 1.0, u)
        else:
            sigma = shifted(u, config.shift)
        if config.shift_terminal:
            # The scheduler stretches by the last sigma, which is 0 in a schedule of endless steps.
            sigma = self.scheduler.stretch_shift_to_terminal(torch.cat([sigma, sigma.new_zeros(1)]))[:-1]
        return (sigma * self.num_train_timesteps).float().to(self.device)

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """False on the first latent frame where it is given."""
        return without_first_frame(latents, conditioning)

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """The velocity at x_t, called as the pipelines call the transformer: with a first frame a timestep for every
        token, 0 where it is clean.
        """
        model_input = with_first_frame(x_t, conditioning)
        timestep = t
        if "first_frame" in conditioning:
            timestep = self.loss_mask(x_t, conditioning).flatten(1) * t[:, None]
        predicted = self.transformer(
            hidden_states=model_input.flatten(2).transpose(1, 2).to(self.dtype),
            encoder_hidden_states=conditioning["prompt_embeds"].to(self.dtype),
            timestep=timestep,
            encoder_attention_mask=conditioning["prompt_mask"],
            return_dict=False,
            **self._positions(x_t),
        )[0]
        return _as_latents(predicted, x_t.shape[2:])

    def _positions(self, x_t: Latents) -> dict[str, Any]:
        """Where the tokens are, in seconds and pixels, as the folder's pipeline tells it."""
        temporal, spatial = self.frames_per_latent, self.pixels_per_latent
        frames, height, width = x_t.shape[2:]
        if not self.takes_conditions:
            scale = (temporal / FRAME_RATE, spatial, spatial)
            return {"num_frames": frames, "height": height, "width": width, "rope_interpolation_scale": scale}
        # Here the first latent is one frame; to LTXPipeline it is as long as the others.
        tokens = LTXConditionPipeline._prepare_video_ids(len(x_t), frames, height, width, device=x_t.device)
        coords = LTXConditionPipeline._scale_video_ids(tokens, spatial, temporal, device=x_t.device).float()
        coords[:, 0] *= 1.0 / FRAME_RATE
        return {"video_coords": coords}

    def _encode_text(self, text: str) -> tuple[Float[Tensor, "1 l d"], Bool[Tensor, "1 l"]]:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            text, do_classifier_free_guidance=False, device=self.device
        )
        return embeds.to(self.dtype), mask

    def _encode_pixels(self, pixels: Float[Tensor, "b 3 t height width"]) -> Latents:
        """The mode of the VAE's distribution, normalised, of pixels in [-1, 1]."""
        vae = self.pipeline.vae
        latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode().float()
        return LTXPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)

    def _conditioning(self, text: str, image: Tensor | None) -> dict[str, Tensor]:
        """Conditioning of one video (b = 1)."""
        embeds, mask = self._encode_text(text)
        conditioning = {"prompt_embeds": embeds, "prompt_mask": mask}
        if image is None:
            return conditioning
        # `LTXImageToVideoPipeline` rounds the image to the transformer's precision.
        pixels = (2 * image - 1)[None, :, None].to(torch.float32 if self.takes_conditions else self.dtype)
        return conditioning | {"first_frame": self._encode_pixels(pixels)}

    def _pipeline_for(self, image: Tensor | None) -> Any:
        """The pipeline class that takes this input, around the shared components."""
        wanted = LTXPipeline if image is None else LTXImageToVideoPipeline
        if self.takes_conditions or self.pipeline_class is wanted:
            return self.pipeline
        twin = wanted(**self.pipeline.components)
        twin.set_progress_bar_config(disable=True)
        return twin

    def _check(self, image: Tensor | None, frames: int, height: int, width: int) -> None:
        require_fit(image, frames, height, width)
        if frames % self.frames_per_latent != 1:
            raise InputError(
                f"{frames} frames do not fit {self.folder}: choose k*{self.frames_per_latent}+1 frames"
            )
        # 32: what the pipelines demand, whatever the VAE.
        multiple = math.lcm(32, self.pixels_per_latent)
        if any(side < 1 or side % multiple for side in (height, width)):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: width and height must be multiples of {multiple}"
            )

    def _check_scheduler(self) -> None:
        config = self.scheduler.config
        bent = ("invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        is_flow = isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler)
        if not is_flow or any(config[name] for name in bent):
            raise InputError(f"the scheduler of {self.folder} is no flow schedule as LTX has it")
        if config.stochastic_sampling:
            # Its noise comes from the global generator.
            raise InputError(
                f"the scheduler of {self.folder} samples stochastically, so that a seed does not give the same "
                "video again: set stochastic_sampling to false in scheduler/scheduler_config.json"
            )
        changed = config.use_dynamic_shifting or config.shift != 1 or config.shift_terminal
        if self.takes_conditions and changed:
            raise InputError(
                f"the scheduler of {self.folder} shifts, but LTXConditionPipeline has its own timesteps: "
                "set use_dynamic_shifting to false, shift to 1 and shift_terminal to null"
            )

    def _check_patches(self) -> None:
        config = self.transformer.config
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise InputError(f"the transformer of {self.folder} takes patches, as no published LTX does")


def _compression(folder: Path) -> tuple[int, int]:
    """Frames and pixels in a latent, from the VAE's configuration: training needs them, but not the VAE."""
    try:
        config = AutoencoderKLLTXVideo.load_config(folder, subfolder="vae")
        with torch.device("meta"):
            vae: Any = AutoencoderKLLTXVideo.from_config(config)
    except (OSError, ValueError, RuntimeError, TypeError, IndexError) as error:
        raise cannot_load(folder, error) from error
    if vae.config.scaling_factor != 1:
        # Diffusers decodes with it, but does not encode first frames with it.
        raise InputError(f"the VAE of {folder} has a scaling_factor, as no LTX VAE does")
    return vae.temporal_compression_ratio, vae.spatial_compression_ratio


def _as_latents(tokens: Float[Tensor, "b n c"], size: Sequence[int]) -> Latents:
    """Latents [b c f h w] of the transformer's tokens."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))
