"""Measurements of clips; the file name is the metric's name."""
