"""Batches, the training loop, and training in several processes."""
