"""The measurements behind single figures: pruning (1c), decoding time (1b) and beam sizes (4)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from apao.artifacts import Stage
from apao.backbones.base import Context
from apao.codes.itemcodes import IntArray, ItemCodes
from apao.codes.trie import Trie
from apao.decoding.beam import beam_search
from apao.decoding.fullsort import full_sort_scores
from apao.devices import device_name
from apao.evaluation.evaluate import evaluate_split
from apao.evaluation.trained import TrainedRun
from apao.progress import progress
from apao.run_params import RunParams
from apao.runs import DatasetPaths, Run
from apao.studies import decoding_time_file
from apao.training.params import CUTOFFS

TOP = 20


def pruning(run: Run, params: RunParams, device: torch.device) -> None:
    """Write pruning.json: the share of each test user's true top 20 whose prefix each beam step keeps.

    The true top 20 are the best codes by exact scoring of the whole catalogue (Figure 1c); of fewer codes
    ``top`` is their number.
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    with Stage("pruning", run.folder, inputs, params.for_evaluation(), device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        codes = torch.as_tensor(trained.codes.distinct_tokens, device=device)
        kept = torch.zeros(trained.codes.levels, dtype=torch.float64)
        for decoded in trained.decode("test"):
            ways = params.decodes_eos, params.objective.softmax
            scores = full_sort_scores(trained.backbone, decoded.context, trained.trie, codes, *ways)
            best = scores.topk(min(TOP, len(codes)), dim=1).indices
            prefixes = trained.trie.walk(codes[best])
            kept += torch.stack(
                [
                    (prefixes[..., level, None] == step[:, None]).any(dim=-1).double().mean(dim=1).sum()
                    for level, step in enumerate(decoded.beams.states)
                ]
            ).cpu()
        stage.output_json(
            "pruning.json",
            {
                "run": str(run),
                "beam": trained.beam,
                "top": min(TOP, len(codes)),
                "users": trained.users,
                "kept": (kept / trained.users).tolist(),
            },
        )


def beam_sizes(run: Run, params: RunParams, beams: tuple[int, ...], device: torch.device) -> None:
    """Write beams.json: test metrics and decoding time of all users at every beam size (Figure 4).

    A metric whose cutoff is larger than the beam is null, unless the beam holds every code: a larger beam than
    that (``codes``) finds no more.
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    record = {**params.for_evaluation(), "beams": beams}
    with Stage("beams", run.folder, inputs, record, device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        rows = []
        for beam in beams:
            _, metrics, seconds = evaluate_split(trained, "test", beam)
            rows.append({"beam": beam, "seconds": round(seconds, 3), **metrics})
        stage.output_json(
            "beams.json",
            {
                "run": str(run),
                "split": "test",
                "users": trained.users,
                "codes": len(trained.codes.distinct),
                "device": device_name(device),
                "threads": params.training.threads,
                "beams": rows,
            },
        )


def synthetic_codes(items: int, levels: int, clusters: int, seed: int) -> ItemCodes:
    """A catalogue of ``items`` distinct uniformly random codes, for timing alone."""
    clusters = max(clusters, int(np.ceil(items ** (1 / levels))))
    drawn = np.random.default_rng(seed).choice(clusters**levels, size=items, replace=False, shuffle=False)
    digits: list[IntArray] = [drawn // clusters**level % clusters for level in reversed(range(levels))]
    return ItemCodes(np.stack(digits, axis=1).astype(np.int64))


def decoding_time(run: Run, params: RunParams, sizes: tuple[int, ...], users: int, device: torch.device) -> None:
    """Write decoding_time.json: seconds a user of beam search and full sorting as the catalogue grows.

    Synthetic codes of 4 levels and 256 clusters and an untrained model of the run's sizes: the time
    does not depend on the weights (Figure 1b). A catalogue with fewer items than beams is searched with as
    many beams as items.
    """
    torch.set_num_threads(params.training.threads)
    path = decoding_time_file(run.dataset, run.backbone)
    record = {"backbone": params.backbone.model_dump(), **params.for_evaluation(), "sizes": sizes, "users": users}
    with Stage("decoding_time", path.parent, [], record, device_name(device)) as stage:
        rows = []
        with progress(f"{run.dataset}/{run.backbone}: decoding time", sum(sizes)) as advance:
            for size in sizes:
                rows.append(_time_catalogue(params, synthetic_codes(size, 4, 256, params.seed), users, device))
                advance(size)
        stage.output_json(
            path.name,
            {
                "dataset": run.dataset,
                "backbone": run.backbone,
                "beam": _timed_beam(params),
                "device": device_name(device),
                "threads": params.training.threads,
                "users": users,
                "rows": rows,
            },
        )


def _timed_beam(params: RunParams) -> int:
    """The run's beam; ``all`` is of its own catalogue, so synthetic ones are searched with the default."""
    beam = params.decoding.beam
    return max(CUTOFFS) if beam == "all" else beam


def _time_catalogue(params: RunParams, codes: ItemCodes, users: int, device: torch.device) -> dict[str, float]:
    torch.manual_seed(params.seed)
    backbone = params.backbone.build(len(codes.vocabulary)).to(device).eval()
    trie = Trie.of(codes, device)
    tokens = torch.as_tensor(codes.distinct_tokens, device=device)
    chosen = torch.randint(len(tokens), (users, params.backbone.max_history), device=device)
    ways, beam = (params.decodes_eos, params.objective.softmax), min(_timed_beam(params), len(tokens))
    with torch.no_grad():

        def read() -> Context:
            return backbone.encode(tokens[chosen].flatten(1))

        def search() -> object:
            return beam_search(backbone, read(), trie, beam, *ways)

        def sort() -> object:
            return full_sort_scores(backbone, read(), trie, tokens, *ways).topk(beam, dim=1)

        return {
            "items": codes.items,
            "beam_seconds_per_user": _seconds(search, device) / users,
            "full_sort_seconds_per_user": _seconds(sort, device) / users,
        }


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median wall time of ``work`` after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
