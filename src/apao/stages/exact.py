"""The stage ``exact``: exact scoring of the whole catalogue compared with beam search, for the same users.

Shapes: B users of a batch, T levels, U distinct codes.
"""

from __future__ import annotations

import numpy as np
import torch

from apao.data.histories import IntArray
from apao.evaluation.metrics import code_metrics, code_ranks, exact_ranks, moved, prefixes_kept
from apao.stages.trained import measuring
from apao.study.run_params import RunParams
from apao.study.runs import Run

TOP = 20
"""Number of codes of the exact top whose pruning is measured."""
SEED = 0
"""Seed of the sample of users, which is the same for all runs on a dataset."""


def exact(run: Run, params: RunParams, users: int, device: torch.device) -> None:
    """Write exact.json and pruning.json: how the ranking of beam search differs from that of exact scoring.

    Exact scoring ranks all codes of the catalogue by the score that beam search computes, without pruning. Both are
    done for the same random sample of ``users`` test users, or for all if there are fewer.

    exact.json has the code-level metrics of both, the shares ``lost@k`` and ``won@k`` of ``evaluation.metrics.moved``,
    and both ranks of every user, from 1; 0 means that the code is not in the beam.

    pruning.json has the share of each user's exact top 20 (``top``: all codes, where there are fewer) whose prefix is
    still in the beam after each step.
    """
    with measuring("exact", run, params, device, users=users) as (stage, trained):
        histories, top = trained.histories, min(TOP, len(trained.codes.distinct))
        chosen = sample(histories.evaluated("test"), users)
        targets = np.zeros(histories.users, dtype=np.int64)
        targets[chosen] = trained.codes.code_of_item[histories.target_items("test", chosen)]
        by_beam, by_score = (np.zeros_like(targets) for _ in range(2))
        kept = torch.zeros(trained.codes.levels, dtype=torch.float64)
        for decoded in trained.decode("test", users=chosen):
            scores, target = trained.scores(decoded.context), torch.as_tensor(targets[decoded.users], device=device)
            by_score[decoded.users] = exact_ranks(scores, target).cpu().numpy()
            by_beam[decoded.users] = code_ranks(decoded.beams, decoded.targets).cpu().numpy()
            best = trained.trie.prefixes[scores.topk(top, dim=1).indices]  # (B, top, T)
            kept += prefixes_kept(decoded.beams.states, best).double().mean(dim=1).sum(dim=0).cpu()
        by_beam, by_score = by_beam[chosen], by_score[chosen]
        facts = {"run": str(run), "split": "test", "beam": trained.beam, "users": len(chosen)}
        stage.output_json(
            "exact.json",
            {
                **facts,
                "of_users": trained.users,
                **{name: float(values.mean()) for name, values in code_metrics(by_beam).items()},
                **{f"exact_{name}": float(values.mean()) for name, values in code_metrics(by_score).items()},
                **{name: float(values.mean()) for name, values in moved(by_beam, by_score).items()},
                "ranks": {"user": chosen.tolist(), "beam": by_beam.tolist(), "exact": by_score.tolist()},
            },
        )
        stage.output_json("pruning.json", {**facts, "top": top, "kept": (kept / len(chosen)).tolist()})


def sample(users: IntArray, count: int) -> IntArray:
    """A random sample of ``count`` of ``users``, or all if there are fewer, in ascending order."""
    if count >= len(users):
        return users
    return np.sort(np.random.default_rng(SEED).choice(users, count, replace=False))
