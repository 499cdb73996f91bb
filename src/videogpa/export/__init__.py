"""Geometry for other programs: `export/<format>.py` writes a prediction in the format of that name."""
