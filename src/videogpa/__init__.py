"""Post-train video diffusion models so that what they draw holds together in 3D."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("LinearVideoAutoencoder", "ModelMixin"):
        # diffusers looks for the base class beside the class, to know how to load it.
        import videogpa.world.linear_autoencoder

        return getattr(videogpa.world.linear_autoencoder, name)
    raise AttributeError(f"module 'videogpa' has no attribute '{name}'")


def _loaded_with_torch() -> None:
    """Entry point `torch.backends`: torch imports this module, so that plain diffusers scripts find our class.

    diffusers resolves a component's class only from modules that are imported already, and the embedded
    pipeline names `videogpa.LinearVideoAutoencoder`. Nothing else happens here, and nothing heavy is imported.
    """
