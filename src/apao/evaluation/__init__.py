"""Ranks, metrics and the measurements behind the figures."""
