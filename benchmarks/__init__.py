"""Measurements of speed. Tests never assert them, because machines differ."""
