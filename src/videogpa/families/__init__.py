"""Video diffusion models, one file a family."""
