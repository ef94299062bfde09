"""Passes over micro-batches as CUDA graphs.

Shapes: R rows, L tokens, D width.

A pass of a small model is hundreds of short kernels, and starting each takes the processor longer than running it takes
the GPU. A recorded pass is started as a whole: the inputs are copied into the tensors that it was recorded with, and it
writes its results where it wrote them then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from apao.backbones.base import Backbone
from apao.devices import Precision, autocast
from apao.objectives.base import Outcome, State
from apao.training.batches import Batch
from apao.training.packing import PackedBatch
from apao.training.scoring import Reader

Pass = Callable[[Batch | PackedBatch, State, int | None], Outcome]
"""From a micro-batch, the objective's state and the number of examples of the step to the result. It may add to
gradients."""
Record = Callable[[Callable[[], Outcome]], tuple[Callable[[], None], Outcome]]
"""Takes work; returns a function that repeats it, and the result, whose tensors every repeat overwrites."""


class GraphRecorder:
    """Records work as CUDA graphs, which share the memory of what they only compute with."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Outcome]) -> tuple[Callable[[], None], Outcome]:
        """See ``Record``."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            outcome = work()
        return graph.replay, outcome


class Recorded(NamedTuple):
    """A recorded pass with the tensors that it reads and writes."""

    batch: Batch
    state: State
    repeat: Callable[[], None]
    outcome: Outcome


@dataclass
class Replays:
    """A pass that is computed as it is the first time, recorded the second, and then replayed, per shape.

    The results of a call are valid until the next one. Random numbers of a replay follow torch's seed as those of the
    pass do. Packed batches, whose numbers of examples do not repeat, are computed as they are.

    Attributes:
        compute: the pass. It may not wait for the device, and its result may not refer to what gradients are computed
            from: what was computed outside of a recording cannot be part of it.
        record: how it is recorded.
    """

    compute: Pass
    record: Record | None = None

    def __post_init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, Recorded] = {}

    def __call__(self, batch: Batch | PackedBatch, state: State, step_examples: int | None) -> Outcome:
        """The result of ``compute``."""
        if isinstance(batch, PackedBatch):
            return self.compute(batch, state, step_examples)
        key = (*(tuple(value.shape) for value in _tensors(batch).values()), step_examples)
        if key not in self._seen:
            self._seen.add(key)
            return self.compute(batch, state, step_examples)
        if key not in self._recorded:
            self._recorded[key] = self._record(batch, state, step_examples)
        else:
            _copy(_tensors(self._recorded[key].batch), _tensors(batch))
            _copy(self._recorded[key].state, state)
        self._recorded[key].repeat()
        return self._recorded[key].outcome

    def _record(self, batch: Batch, state: State, step_examples: int | None) -> Recorded:
        if self.record is None:
            self.record = GraphRecorder()
        # The batch was made for this call only. Learned state is read where the optimizer updates it.
        state = {name: value if isinstance(value, nn.Parameter) else value.clone() for name, value in state.items()}
        repeat, outcome = self.record(lambda: self.compute(batch, state, step_examples))
        return Recorded(batch, state, repeat, outcome)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if value is not None}


def _copy(into: State, values: State) -> None:
    for name, value in values.items():
        if into[name] is not value:
            into[name].copy_(value)


class GraphedReader:
    """The states of packed sequences, recorded per shape, with their gradients.

    Only this part of a pass over a packed batch repeats: the objective computes with as many examples as there are.
    """

    def __init__(self, backbone: Backbone, precision: Precision, device: torch.device) -> None:
        self.backbone, self.precision, self.device = backbone, precision, device
        self._graphed: dict[torch.Size, Reader] = {}
        # A recorded part keeps its autograd graph, and torch would warn at the first step that it has been kept.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, L) -> (R, L, D), under ``autocast``."""
        if tokens.shape not in self._graphed:
            # As in the passes, but a recorded pass has to contain its casts of the weights.
            with autocast(self.precision, self.device, cache=False):
                graphed = torch.cuda.make_graphed_callables(
                    _Reading(self.backbone), (tokens.clone(),), allow_unused_input=True
                )
            self._graphed[tokens.shape] = cast(Reader, graphed)
        return self._graphed[tokens.shape](tokens)


class _Reading(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.backbone.read(tokens, tokens.new_zeros(len(tokens), 1), 0)
        return hidden
