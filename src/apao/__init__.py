"""apao: generative recommenders that survive beam search, from raw data to every figure."""

__version__ = "0.1.0"
