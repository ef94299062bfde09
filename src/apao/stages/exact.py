"""The stage ``exact``: exact scoring of the whole catalogue compared with beam search, for the same users."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from apao.data.histories import IntArray
from apao.devices import device_name
from apao.evaluation.metrics import CUTOFFS, METRICS, code_ranks
from apao.stages.record import Stage
from apao.stages.trained import TrainedRun
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams
from apao.study.runs import Run

SEED = 0
"""Seed of the sample of users, which is the same for all runs on a dataset."""


def exact(run: Run, params: RunParams, users: int, device: torch.device) -> None:
    """Write exact.json: code-level test metrics of beam search and of exact scoring.

    Exact scoring ranks all codes of the catalogue by the score that beam search computes, without pruning. Both are
    evaluated on the same random sample of ``users`` users, or on all if there are fewer. ``lost@k`` is the share of
    users whose target code is in the exact top k but not in that of the beam, ``won@k`` the reverse: a code moves up
    when beam search prunes a code with a higher score. Ranks count from 1; 0 means that the code is not in the beam.
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    record = {**params.for_evaluation(), "users": users}
    with Stage("exact", run.folder, inputs, record, device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        histories = trained.histories
        chosen = sample(histories.evaluated("test"), users)
        targets = np.zeros(histories.users, dtype=np.int64)
        targets[chosen] = trained.codes.code_of_item[histories.target_items("test", chosen)]
        codes = torch.as_tensor(trained.codes.distinct_tokens, device=device)
        beam_ranks, exact_ranks = (np.zeros_like(targets) for _ in range(2))
        for decoded in trained.decode("test", users=chosen):
            scores = trained.scores(decoded.context, codes)
            target = torch.as_tensor(targets[decoded.users], device=device)[:, None]
            exact_ranks[decoded.users] = 1 + (scores > scores.gather(1, target)).sum(dim=1).cpu().numpy()
            beam_ranks[decoded.users] = code_ranks(decoded.beams, decoded.targets).cpu().numpy()
        beam_ranks, exact_ranks = beam_ranks[chosen], exact_ranks[chosen]
        stage.output_json(
            "exact.json",
            {
                "run": str(run),
                "split": "test",
                "beam": trained.beam,
                "users": len(chosen),
                "of_users": trained.users,
                **metrics_of(beam_ranks),
                **{f"exact_{name}": value for name, value in metrics_of(exact_ranks).items()},
                **_moved(beam_ranks, exact_ranks),
                "ranks": {"user": chosen.tolist(), "beam": beam_ranks.tolist(), "exact": exact_ranks.tolist()},
            },
        )


def sample(users: IntArray, count: int) -> IntArray:
    """A random sample of ``count`` of ``users``, or all if there are fewer, in ascending order."""
    if count >= len(users):
        return users
    return np.sort(np.random.default_rng(SEED).choice(users, count, replace=False))


def metrics_of(ranks: IntArray) -> dict[str, float]:
    """Code-level metrics at every cutoff from ranks (users,), where 0 means that the code is not ranked."""
    gains = {name: np.where(ranks > 0, metric.gain(np.maximum(ranks, 1)), 0.0) for name, metric in METRICS.items()}
    return {
        f"{name}@{k}": float(np.where(ranks <= k, gain, 0.0).mean()) for name, gain in gains.items() for k in CUTOFFS
    }


def _moved(beam: IntArray, exact: IntArray) -> dict[str, Any]:
    """Shares of users whose code is in the top k of only one of the two methods."""
    shares: dict[str, Any] = {}
    for k in CUTOFFS:
        by_beam, by_exact = (beam > 0) & (beam <= k), exact <= k
        shares |= {f"lost@{k}": float((by_exact & ~by_beam).mean()), f"won@{k}": float((by_beam & ~by_exact).mean())}
    return shares
