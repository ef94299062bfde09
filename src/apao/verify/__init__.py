"""Golden values of another implementation, recomputed."""
