"""Post-train video diffusion models so that what they draw holds together in 3D."""

__version__ = "0.1.0"
