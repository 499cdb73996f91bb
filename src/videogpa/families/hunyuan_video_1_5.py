"""The HunyuanVideo 1.5 family (text- and image-to-video) as diffusers folders: flow matching on latents."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
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
)
from videogpa.families.flow_matching import FlowMatching
from videogpa.families.schedule import fixed_shift, shifted, stratified
from videogpa.tensors import Latents, PerSample

VARIANTS = {
    "480p T2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
        "pipelines": ["HunyuanVideo15Pipeline"],
        "architecture": {},
        "parameters": 8.33,
        "license": "tencent-hunyuan-community",
    },
    "480p I2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
        "pipelines": ["HunyuanVideo15ImageToVideoPipeline"],
        "architecture": {},
        "parameters": 8.33,
        "license": "tencent-hunyuan-community",
    },
    "720p T2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v",
        "pipelines": ["HunyuanVideo15Pipeline"],
        "architecture": {"target_size": 960},
        "parameters": 8.33,
        "license": "tencent-hunyuan-community",
    },
    "720p I2V": {
        "repository": "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v",
        "pipelines": ["HunyuanVideo15ImageToVideoPipeline"],
        "architecture": {"target_size": 960},
        "parameters": 8.33,
        "license": "tencent-hunyuan-community",
    },
}
TRANSFORMER = HunyuanVideo15Transformer3DModel
PIPELINES: dict[str, Any] = {
    "HunyuanVideo15Pipeline": HunyuanVideo15Pipeline,
    "HunyuanVideo15ImageToVideoPipeline": HunyuanVideo15ImageToVideoPipeline,
}
PROMPT = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")
"""What the pipelines take in place of a prompt, and encode it to, in this order."""
IMAGE_TOKENS = 729
"""How many tokens of an absent image the text-to-video pipeline gives the transformer."""


class Family(FlowMatching):
    """A HunyuanVideo 1.5 model folder behind the `VideoFamily` contract.

    The transformer takes latents, those of the first frame (zeros where none is given) and a mask of the given frames
    as channels, and is told a timestep in its own precision. Image-to-video folders draw in the size that the pipeline
    takes for the image's shape, no other. Conditioning keys: `prompt_embeds` [b l d] and `prompt_embeds_mask` [b l] of
    the prompt, `prompt_embeds_2` and `prompt_embeds_mask_2` of what it quotes, to be shown as letters; with an image
    `first_frame` [b c 1 h w] and `image_embeds` [b l d].

    Diffusers has no `load_lora_weights` for these pipelines: a LoRA made here is loaded by
    `pipe.transformer.load_lora_adapter(folder, prefix="transformer", use_safetensors=True)`.

    Raises:
        InputError: the folder is missing, is no HunyuanVideo 1.5 pipeline, its weights do not fit its configuration,
            it is distilled to few steps, or its scheduler is no flow schedule with a fixed shift.
    """

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    # Of HunyuanVideo 1.0: it knows nothing of either transformer but that it takes peft adapters.
    lora_loader = HunyuanVideoLoraLoaderMixin

    def __init__(
        self, folder: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype
        index = read_index(self.folder, "hunyuan_video_1_5", PIPELINES)
        self.pipeline_class = PIPELINES[index["_class_name"]]
        self.takes_image = self.pipeline_class is HunyuanVideo15ImageToVideoPipeline
        self.transformer: Any = load_frozen(TRANSFORMER, self.folder, "transformer", dtype, self.device)
        self._check_transformer()
        self.scheduler = load_scheduler(self.folder, index)
        self.shift = fixed_shift(self.folder, self.scheduler)
        self.num_train_timesteps = self.scheduler.config.num_train_timesteps

    @functools.cached_property
    def pipeline(self) -> Any:
        """The folder's own pipeline around this transformer."""
        loaded: Any = load_pipeline(
            self.pipeline_class,
            self.folder,
            self.dtype,
            self.device,
            transformer=self.transformer,
            scheduler=self.scheduler,
        )
        # The VAE's attention mask fits one video only (huggingface/diffusers#13133).
        loaded.vae.enable_slicing()
        return loaded

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
        count = len(seeds)
        conditioning = repeat_batch(self._conditioning(text, image), count)
        given: dict[str, Any] = {name: conditioning[name] for name in PROMPT}
        if image is None:
            given |= {"height": settings.height, "width": settings.width}
        else:
            given |= {"image": as_picture(image)}
        # The folder says how to guide, the settings how much.
        guider = self.pipeline.guider
        guider.disable()
        if settings.guidance_scale > 1:
            guider.enable()
            guider.guidance_scale = settings.guidance_scale
            negative = repeat_batch(self._encode_text(""), count)
            given |= {f"negative_{name}": tensor for name, tensor in negative.items()}
        latents = self.pipeline(
            **given,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
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
        vae = self.pipeline.vae
        pixels = (2 * videos - 1).transpose(1, 2).to(self.device, vae.dtype)
        latents = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
        return latents, repeat_batch(self._conditioning(text, image), count)

    @torch.no_grad()
    def decode(self, latents: Latents) -> Float[Tensor, "b t 3 height width"]:
        """Videos in [0, 1], by the steps that end the diffusers pipelines."""
        vae = self.pipeline.vae
        scaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        pixels = vae.decode(scaled, return_dict=False)[0]
        return self.pipeline.video_processor.postprocess_video(pixels, output_type="pt")

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """t = 1000 sigma, sigma shifted by the scheduler's shift, whatever the size; rounded to the precision in which
        the transformer is told, so that the noise is the one that it is told.
        """
        sigma = shifted(stratified(generator, n), self.shift)
        return (sigma * self.num_train_timesteps).to(self.device, self.dtype).float()

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """True everywhere: a first frame is given beside the noisy latents, not in their place."""
        return torch.ones_like(latents[:, :1], dtype=torch.bool)

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """The velocity at x_t, called as the pipelines call the transformer: first frame and mask as further channels,
        zeros where there is none.
        """
        count, channels = x_t.shape[:2]
        given = x_t.new_zeros(count, channels + 1, *x_t.shape[2:])
        image_embeds = x_t.new_zeros(count, IMAGE_TOKENS, self.transformer.config.image_embed_dim)
        if "first_frame" in conditioning:
            given[:, :channels, :1] = conditioning["first_frame"].to(x_t)
            given[:, channels:, :1] = 1
            image_embeds = conditioning["image_embeds"]
        return self.transformer(
            hidden_states=torch.cat([x_t, given], dim=1).to(self.dtype),
            timestep=t.to(self.dtype),
            encoder_hidden_states=conditioning["prompt_embeds"].to(self.dtype),
            encoder_attention_mask=conditioning["prompt_embeds_mask"].to(self.dtype),
            encoder_hidden_states_2=conditioning["prompt_embeds_2"].to(self.dtype),
            encoder_attention_mask_2=conditioning["prompt_embeds_mask_2"].to(self.dtype),
            image_embeds=image_embeds.to(self.dtype),
            return_dict=False,
        )[0]

    def _encode_text(self, text: str) -> dict[str, Tensor]:
        encoded = self.pipeline.encode_prompt(text, device=self.device, dtype=self.dtype)
        return dict(zip(PROMPT, encoded, strict=True))

    def _conditioning(self, text: str, image: Tensor | None) -> dict[str, Tensor]:
        """Conditioning of one video (b = 1); what shows the image comes from the pipeline's own preparation."""
        conditioning = self._encode_text(text)
        if image is None:
            return conditioning
        pipeline, picture = self.pipeline, as_picture(image)
        height, width = image.shape[1:]
        spatial = pipeline.vae_scale_factor_spatial
        # The latents only say how many frames the first one is padded to.
        first_frame, _ = pipeline.prepare_cond_latents_and_mask(
            latents=torch.zeros(1, pipeline.num_channels_latents, 1, height // spatial, width // spatial),
            image=picture,
            batch_size=1,
            height=height,
            width=width,
            dtype=self.dtype,
            device=self.device,
        )
        embeds = pipeline.encode_image(picture, 1, self.device, self.dtype)
        return conditioning | {"first_frame": first_frame, "image_embeds": embeds}

    def _check(self, image: Tensor | None, frames: int, height: int, width: int) -> None:
        require_first_frame(self.folder, self.takes_image, image)
        require_fit(image, frames, height, width)
        pipeline, size = self.pipeline, (height, width)
        temporal = pipeline.vae_scale_factor_temporal
        if frames % temporal != 1:
            raise InputError(f"{frames} frames do not fit {self.folder}: choose k*{temporal}+1 frames")
        multiple = pipeline.vae_scale_factor_spatial * self.transformer.config.patch_size
        if any(side < 1 or side % multiple for side in size):
            raise InputError(
                f"{width}x{height} does not fit {self.folder}: width and height must be multiples of {multiple}"
            )
        if self.takes_image:
            drawn = pipeline.video_processor.calculate_default_height_width(*size, pipeline.target_size)
            if drawn != size:
                raise InputError(
                    f"{width}x{height} does not fit {self.folder}: "
                    f"for an image of this shape it draws {drawn[1]}x{drawn[0]}"
                )

    def _check_transformer(self) -> None:
        if self.transformer.config.use_meanflow:
            raise InputError(
                f"{self.folder} is distilled to few steps and told where each ends, which training does not know: "
                "choose a folder that is not step-distilled"
            )
