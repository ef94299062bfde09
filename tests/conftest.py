"""Settings for all tests: one thread a process, and no time limits inside hypothesis (machines are shared)."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("apao", deadline=None)
settings.load_profile("apao")
