"""Preference training: losses, errors of a diffusion model, LoRA, health."""
