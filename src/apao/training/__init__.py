"""Batches, the training loop, checkpoints, and training in several processes."""
