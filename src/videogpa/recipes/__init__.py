"""Whole runs, each one function that returns the full configuration."""
