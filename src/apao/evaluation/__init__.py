"""Metrics, untrained baselines and significance tests."""
