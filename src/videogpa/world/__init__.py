"""Procedural 3D scenes with exact ground truth, and the builders of the embedded models."""
