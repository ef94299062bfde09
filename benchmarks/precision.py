"""What decoding in bf16 changes: the lists of a trained run's users, and their time, beside those in fp32.

Shapes: B users, K beams, T levels.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apao.devices import wait_for
from apao.evaluation.metrics import code_ranks
from apao.stages.exact import sample
from apao.stages.trained import TrainedRun
from apao.study.paths import PARAMS_FILE
from apao.study.runs import Run
from apao.study.settings import Settings

USERS = 1000


def compared(name: str, device: torch.device) -> dict[str, Any]:
    """Beam search for ``USERS`` random test users of a trained run, in fp32 and under bf16 autocast.

    ``changed_order`` is the share of users whose lists differ, ``changed_set`` of those with other codes in it.
    """
    run = Run.parse(name)
    trained = TrainedRun(run, Settings(PARAMS_FILE).to_evaluate(run, None), device)
    users = sample(trained.histories.evaluated("test"), USERS)
    lists, found = [], {"run": name, "users": len(users), "beam": trained.beam}
    for dtype in (torch.float32, torch.bfloat16):
        parts, ranks = [], []
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            # Not timed: what only the first batch of a kind takes.
            next(iter(trained.decode("test", users=users)))
            wait_for(device)
            started = time.perf_counter()
            for decoded in trained.decode("test", users=users):
                parts.append(decoded.beams.tokens)
                ranks.append(code_ranks(decoded.beams, decoded.targets))
        wait_for(device)
        rate = len(users) / (time.perf_counter() - started)
        rank = torch.cat(ranks)
        hits = ((rank > 0) & (rank <= 20)).double().mean().item()
        found[str(dtype).removeprefix("torch.")] = {"users_per_second": round(rate, 1), "recall@20": round(hits, 4)}
        lists.append(torch.cat(parts))
    one, other = lists
    found["changed_order"] = round(1 - (one == other).all(dim=(1, 2)).double().mean().item(), 4)
    found["changed_set"] = round(1 - np.mean([_codes(a) == _codes(b) for a, b in zip(one, other, strict=True)]), 4)
    return found


def _codes(tokens: Tensor) -> set[tuple[int, ...]]:
    """The codes of a list (K, T)."""
    return set(map(tuple, tokens.tolist()))
