"""Batches, the training loop, and what lets it be interrupted."""
