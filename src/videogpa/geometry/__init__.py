"""Geometry models, one file each, and the camera code they share."""
