"""Cases, by the name of what is measured.

``train/<backbone>/<objective>`` (steps), ``epoch/...`` (whole epochs) and ``decode/<backbone>/<way>`` are rates,
``recommend/<backbone>/...`` what serving a run takes, ``ratio/...`` the time of one way or objective over another's,
``versus/...`` the time of others' way over ours. Names may end in ``@key=value``, one point of a scaling curve.
Trainings are of the recipe, or with overrides as in names of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from apao.codes.trie import Trie
from apao.decoding.beam import beam_search
from apao.decoding.exact import exact_scores
from apao.stages.decoding_time import synthetic_codes
from apao.training.batches import Batch, EffectiveBatch
from apao.training.loop import Sums
from apao.training.packing import PackedBatch
from benchmarks import peers, serving
from benchmarks.measure import Measurement, compared, repeated
from benchmarks.subject import OFFICE, YELP, Size, data, run_params, training

BACKBONES = ("tiger", "llama")
OBJECTIVES = ("ce", "msl", "bear", "apao-pointwise", "frequency", "apao-pairwise", "s-dpo")
CONTRASTING = ("apao-pairwise", "s-dpo")
COMPARED = (*((objective, "ce") for objective in OBJECTIVES[1:5]), ("s-dpo", "apao-pairwise"))
"""Objectives that should cost little more than another."""
SMALL, LARGE = 128, 1024
"""Examples a step: of objectives with 100 negatives on a CPU, where 1,024 would take minutes; of all others."""

Value = bool | int | float | str
Case = Callable[[float, torch.device], Measurement]


def train(backbone: str, objective: str, batch: int, size: Size = OFFICE, **overrides: Value) -> Case:
    """Examples a second of whole optimizer steps, dropout on."""

    def case(seconds: float, device: torch.device) -> Measurement:
        step = stepper(backbone, objective, batch, size, device, **overrides)
        return repeated(step, "examples", seconds, device, flops=device.type == "cpu")

    return case


def epoch(backbone: str, objective: str, recorded: bool = True, **overrides: Value) -> Case:
    """Examples a second of whole epochs, after two in which passes are recorded; or with none recorded."""

    def case(seconds: float, device: torch.device) -> Measurement:
        subject = training(run_params(backbone, objective, **overrides), OFFICE, device)
        if not recorded:
            subject.learn, subject.read = subject._learn, None
        subject.backbone.train()
        sums = Sums()

        def work() -> int:
            batches = subject.sampler.epoch(subject.sampler.examples, LARGE, subject.generator)
            done = 0
            for batch in batches:
                subject.step(batch, sums)
                done += batch.examples
            return done

        work()
        return repeated(work, "examples", seconds, device, flops=False)

    return case


def against(backbone: str, objective: str, base: str, batch: int, **overrides: Value) -> Case:
    """Time of an objective's steps over the time of another's, taken in turn."""

    def case(seconds: float, device: torch.device) -> Measurement:
        one, other = (stepper(backbone, name, batch, OFFICE, device, **overrides) for name in (objective, base))
        return compared(one, other, f"x {base}", seconds, device)

    return case


def stepper(
    backbone: str, objective: str, batch: int, size: Size, device: torch.device, **overrides: Value
) -> Callable[[], int]:
    """A function that does one optimizer step and returns its number of examples."""
    subject = training(run_params(backbone, objective, **overrides), size, device)
    subject.backbone.train()
    sums = Sums()

    def batches() -> Iterator[EffectiveBatch[Batch] | EffectiveBatch[PackedBatch]]:
        while True:
            yield from subject.sampler.epoch(subject.sampler.examples, batch, subject.generator)

    source = batches()

    def step() -> int:
        effective = next(source)
        subject.step(effective, sums)
        return effective.examples

    return step


def versus(backbone: str, objective: str, theirs: int, **overrides: Value) -> Case:
    """How many times as fast as the authors' code a training is, measured in turn; ``theirs`` examples per pass."""

    def case(seconds: float, device: torch.device) -> Measurement:
        resolved = run_params(backbone, objective, **overrides)
        contrasting = objective in CONTRASTING
        other = (
            peers.pairwise_trainer(resolved, OFFICE, device, theirs)
            if contrasting
            else peers.trainer(resolved, OFFICE, device)
        )
        batch = SMALL if contrasting and device.type == "cpu" else LARGE
        ours = stepper(backbone, objective, batch, OFFICE, device, **overrides)
        return compared(other, ours, "x authors' code", seconds, device)

    return case


def versus_search(backbone: str, users: int, **overrides: Value) -> Case:
    """The same of beam search with 20 beams: ``generate`` with ``prefix_allowed_tokens_fn`` against ours."""

    def case(seconds: float, device: torch.device) -> Measurement:
        theirs = peers.searcher(run_params(backbone, "ce", **overrides), OFFICE, device, 20, users)
        ours = searcher(backbone, 20, 128, None, device, **overrides)
        return compared(theirs, ours, "x authors' code", seconds, device)

    return case


def versus_cornac(**overrides: Value) -> dict[str, Case]:
    """TIGER of cornac against ours, trained with ``ce`` and decoded with 20 beams, measured in turn."""

    def training(seconds: float, device: torch.device) -> Measurement:
        theirs = peers.cornac_trainer(run_params("tiger", "ce", **overrides), OFFICE, device)
        return compared(theirs, stepper("tiger", "ce", LARGE, OFFICE, device, **overrides), "x cornac", seconds, device)

    def search(seconds: float, device: torch.device) -> Measurement:
        theirs = peers.cornac_searcher(run_params("tiger", "ce", **overrides), OFFICE, device, 20, 16)
        return compared(theirs, searcher("tiger", 20, 128, None, device, **overrides), "x cornac", seconds, device)

    return {"versus/tiger/ce-cornac": training, "versus/tiger/beam20-cornac": search}


def decode(backbone: str, beam: int | None, users: int, items: int | None = None, **overrides: Value) -> Case:
    """Users a second: of beam search, or of exact sorting where ``beam`` is None; ``items`` of another catalogue."""

    def case(seconds: float, device: torch.device) -> Measurement:
        return repeated(searcher(backbone, beam, users, items, device, **overrides), "users", seconds, device)

    return case


def searcher(
    backbone: str, beam: int | None, users: int, items: int | None, device: torch.device, **overrides: Value
) -> Callable[[], int]:
    """A function that ranks for ``users`` users and returns their number."""
    resolved = run_params(backbone, "ce", **overrides)
    torch.set_num_threads(resolved.training.threads)
    codes = data(OFFICE)[1] if items is None else synthetic_codes(items, 4, 256, seed=0)
    torch.manual_seed(0)
    model = resolved.backbone.build(len(codes.vocabulary)).to(device).eval()
    trie = Trie.of(codes, device)
    tokens = torch.as_tensor(codes.distinct_tokens, device=device)
    chosen = torch.randint(len(tokens), (users, resolved.backbone.max_history), device=device)

    @torch.no_grad()
    def work() -> int:
        context = model.encode(tokens[chosen].flatten(1))
        if beam is None:
            exact_scores(model, context, trie, tokens, resolved.decodes_eos).topk(20, dim=1)
        else:
            beam_search(model, context, trie, beam, resolved.decodes_eos)
        return users

    return work


def legal_continuations(items: int) -> Case:
    """Steps of beam search a second, as far as they ask the trie: 128 users' 20 prefixes, and what may follow them."""

    def case(seconds: float, device: torch.device) -> Measurement:
        trie = Trie.of(synthetic_codes(items, 4, 256, seed=0), device)
        level = 2
        longer = torch.arange(trie.prefix_counts[level - 1], device=device) + 1 + sum(trie.prefix_counts[: level - 1])
        states = longer[torch.randint(len(longer), (128, 20), device=device)]

        def work() -> int:
            for _ in range(100):
                trie.children(states, trie.widths[level])
            return 100

        return repeated(work, "steps", seconds, device, flops=False)

    return case


def cases(scope: str, overrides: Mapping[str, Value] | None = None) -> dict[str, Case]:
    """Name to case; ``scope`` is quick, full or gpu.

    ``overrides`` are of the recipe; with them there are only the cases of a recipe.
    """
    gpu = scope == "gpu"
    # On a CPU smaller micro-batches stay in its caches.
    tokens: dict[str, Value] = {**({} if gpu else {"micro_batch_tokens": 2048}), **(overrides or {})}
    found: dict[str, Case] = {}
    for backbone in BACKBONES:
        # What costs as much as ce on one backbone does so on the other: quick measures it once.
        for objective in OBJECTIVES if scope != "quick" or backbone == "tiger" else ("ce", "apao-pairwise"):
            batch = SMALL if objective in CONTRASTING and not gpu else LARGE
            found[f"train/{backbone}/{objective}"] = train(backbone, objective, batch, **tokens)
        for objective, base in COMPARED if scope != "quick" or backbone == "tiger" else ():
            batch = LARGE if gpu else SMALL // 4 if base in CONTRASTING else SMALL
            found[f"ratio/{backbone}/{objective}"] = against(backbone, objective, base, batch, **tokens)
    found |= _epochs(tokens) if gpu else {}
    # The recipe packs.
    found["train/llama/ce-unpacked"] = train("llama", "ce", LARGE, **{**tokens, "pack": False})
    for backbone in BACKBONES:
        found[f"versus/{backbone}/ce"] = versus(backbone, "ce", peers.BATCH, **tokens)
        # The release runs every sampled code through the model by itself: few examples fill the memory.
        found[f"versus/{backbone}/apao-pairwise"] = versus(backbone, "apao-pairwise", 64 if gpu else 4, **tokens)
        found[f"versus/{backbone}/beam20"] = versus_search(backbone, 128 if gpu else 16, **tokens)
    if peers.has_cornac():
        found |= versus_cornac(**tokens)
    if not gpu:
        # Two threads, alone and beside processes that compute without pause (``neighbours`` in ``__main__``).
        for backbone, neighbours in (("tiger", 0), ("tiger", 1), ("llama", 1)):
            busy = train(backbone, "ce", LARGE, **{**tokens, "threads": 2})
            found[f"train/{backbone}/ce@neighbours={neighbours}"] = busy
        for runs in (1, 2):
            found[f"train/tiger/ce@runs={runs}"] = train("tiger", "ce", LARGE, **{**tokens, "threads": 1})
    for backbone in BACKBONES:
        found[f"decode/{backbone}/beam20"] = decode(backbone, 20, 1024 if gpu else 128, **tokens)
        found[f"decode/{backbone}/exact"] = decode(backbone, None, 64 if gpu else 8, **tokens)
    found |= _curves(gpu, tokens) if scope != "quick" else {}
    return found if overrides else found | _fixed()


def _fixed() -> dict[str, Case]:
    """Cases without a recipe that could be overridden."""
    found: dict[str, Case] = {"decode/trie@items=1000000": legal_continuations(1_000_000)}
    for backbone in BACKBONES:
        found[f"recommend/{backbone}/one"] = partial(serving.one, backbone)
        found[f"recommend/{backbone}/load"] = partial(serving.load, backbone)
        found[f"recommend/{backbone}/many"] = partial(serving.many, backbone)
        found[f"ratio/{backbone}/many"] = partial(serving.many_over_decoding, backbone)
    # For one history finding the part weighs most.
    for users in (1, 128):
        found[f"ratio/tiger/only-{users}"] = partial(serving.only, "tiger", 1_000_000, users)
    return found


def _epochs(overrides: dict[str, Value]) -> dict[str, Case]:
    """Whole epochs, for a GPU: what recording costs and gains shows over many steps only."""
    found: dict[str, Case] = {}
    for backbone in BACKBONES:
        for objective in ("ce", "apao-pointwise", "apao-pairwise"):
            found[f"epoch/{backbone}/{objective}"] = epoch(backbone, objective, **overrides)
        found[f"epoch/{backbone}/ce-unrecorded"] = epoch(backbone, "ce", recorded=False, **overrides)
    return found


def _curves(gpu: bool, tokens: dict[str, Value]) -> dict[str, Case]:
    """The points of the scaling curves."""
    found: dict[str, Case] = {}
    for history in (5, 10, 20, 50):
        found[f"train/tiger/ce@history={history}"] = train("tiger", "ce", LARGE, **{**tokens, "max_history": history})
    for negatives in (10, 30, 100, 300, 1000):
        # As much work a step on a CPU, however many they are.
        batch = LARGE if gpu else min(SMALL, 12_800 // negatives)
        pairwise = train("tiger", "apao-pairwise", batch, **{**tokens, "negatives": negatives})
        found[f"train/tiger/apao-pairwise@negatives={negatives}"] = pairwise
    for size in (OFFICE, YELP):
        pairwise = train("tiger", "apao-pairwise", LARGE if gpu else SMALL, size, **tokens)
        found[f"train/tiger/apao-pairwise@users={size.users}"] = pairwise
    for budget in (1024, 2048, 4096, 16384, 65536):
        tuned = {**tokens, "micro_batch_tokens": budget}
        found[f"train/tiger/ce@micro_batch_tokens={budget}"] = train("tiger", "ce", LARGE, **tuned)
    for threads in (1, 2):
        found[f"train/tiger/ce@threads={threads}"] = train("tiger", "ce", LARGE, **{**tokens, "threads": threads})
    # Whole trainings side by side, as the workflow runs them.
    for runs in (1, 2, 4) if gpu else ():
        found[f"train/tiger/ce@runs={runs}"] = train("tiger", "ce", LARGE, **tokens)
    for beam in (5, 10, 20, 50, 100, 200):
        found[f"decode/tiger/beam@beam={beam}"] = decode("tiger", beam, 128, **tokens)
    for items in (1_000, 10_000, 100_000, 1_000_000):
        found[f"decode/tiger/beam20@items={items}"] = decode("tiger", 20, 128, items, **tokens)
        if items <= 100_000 or gpu:
            found[f"decode/tiger/exact@items={items}"] = decode("tiger", None, 2, items, **tokens)
    return found
