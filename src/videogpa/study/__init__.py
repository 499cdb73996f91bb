"""Blind pairwise human study: material, schedule, server, analysis."""
