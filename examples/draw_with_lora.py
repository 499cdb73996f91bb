"""Draw with a LoRA by diffusers alone: python examples/draw_with_lora.py LORA IMAGE OUT.mp4 "CAPTION" [SEED]."""

import sys

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video, load_image

lora, image, out, caption, seed = *sys.argv[1:5], int((sys.argv[5:] or [0])[0])
pipe = DiffusionPipeline.from_pretrained("src/videogpa/weights/generator")
pipe.load_lora_weights(lora)
video = pipe(
    image=load_image(image), prompt=caption, height=48, width=48, num_frames=9, num_inference_steps=8,
    guidance_scale=1.0, max_sequence_length=40, generator=torch.Generator().manual_seed(seed),
).frames[0]  # fmt: skip
export_to_video(video, out, fps=8)
