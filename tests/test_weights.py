import torch

from videogpa.dpo.diffusion import adapters_off
from videogpa.dpo.lora import load_lora
from videogpa.families.wan import Family
from videogpa.weights import EMBEDDED, HERE, lora_folder, model_folder
from videogpa.world.generator import FRAMES, SIZE


def test_what_ships_is_small():
    assert sum(p.stat().st_size for p in HERE.rglob("*") if p.is_file()) < 30e6


def test_the_shipped_lora_is_a_small_step_away_from_the_shipped_model():
    family = Family(model_folder(EMBEDDED))
    channels, latent_frames = family.transformer.config.in_channels, 1 + (FRAMES - 1) // 2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, latent_frames, SIZE // 4, SIZE // 4, generator=generator)
    text = torch.randn(1, 8, family.transformer.config.text_dim, generator=generator)
    load_lora(family, lora_folder(EMBEDDED))
    with torch.no_grad():
        changed = family.predict(x, torch.tensor([500.0]), {"prompt_embeds": text})
        with adapters_off(family.transformer):
            base = family.predict(x, torch.tensor([500.0]), {"prompt_embeds": text})
    assert 1e-3 < ((changed - base).norm() / base.norm()).item() < 0.3
