"""Serving a run: ``apao.load`` and ``recommend`` on a run's folder with the paper's sizes and random weights."""

from __future__ import annotations

import subprocess
import sys
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import save_file

import apao
from apao.codes.itemcodes import ItemCodes
from apao.codes.items import ItemTable
from apao.data.histories import IntArray
from apao.files import write_json
from apao.stages.decoding_time import synthetic_codes
from apao.stages.recommender import Recommender
from apao.study.runs import CATALOGUE_FILE, MODEL_FILE, RECORD_FILE, Run
from benchmarks import measure
from benchmarks.measure import Measurement, compared, repeated
from benchmarks.subject import OFFICE, data, run_params

BEAM = 20
MANY = 512
"""Histories that are recommended for in one call; a block of ``apao recommend --file`` has at most 4,096."""


class Served:
    """A run's folder with a catalogue of ``items`` (of Office, if None), and the model loaded from it."""

    def __init__(self, backbone: str, items: int | None, device: torch.device) -> None:
        self.device = device
        self.codes: ItemCodes = data(OFFICE)[1] if items is None else synthetic_codes(items, 4, 256, seed=0)
        self._holder = TemporaryDirectory()
        self.folder = Path(self._holder.name)
        run = Run.of("office", backbone, "ce", 42)
        resolved = run_params(backbone, "ce")
        torch.manual_seed(0)
        model = resolved.backbone.build(len(self.codes.vocabulary))
        save_file(model.to_transformers(), self.folder / MODEL_FILE)
        write_json(self.folder / RECORD_FILE, {"run": str(run), **resolved.for_training(), "inputs": {}})
        names = np.array([f"B{item:09d}" for item in range(self.codes.items)], dtype=object)
        counts = np.ones(self.codes.items, dtype=np.int64)
        ItemTable(names, names, self.codes, counts).write(self.folder / CATALOGUE_FILE)

    @cached_property
    def model(self) -> Recommender:
        """The model. It computes with the threads of the run's training, one in the paper's recipe."""
        return apao.load(self.folder, self.device.type)

    def histories(self, users: int) -> IntArray:
        """Item numbers (users, max_history): the longest histories that the model reads."""
        length = self.model.trained.params.backbone.max_history
        return np.random.default_rng(0).integers(0, self.codes.items, (users, length))

    def named(self, histories: IntArray) -> list[list[str]]:
        """The histories as raw ids."""
        return self.model.catalogue.raw_ids[histories].tolist()


def one(backbone: str, seconds: float, device: torch.device) -> Measurement:
    """Milliseconds from one history to its table of 20 items."""
    served = Served(backbone, None, device)
    histories = served.named(served.histories(1))

    def work() -> int:
        served.model.recommend(histories, 20, BEAM)
        return 1

    rates = repeated(work, "histories", seconds, device, flops=False).rates
    return Measurement([1000 / rate for rate in rates], "ms")


FIRST_LOAD = """
import sys, time, apao
load, timer = apao.load, getattr(time, sys.argv[3])
begun = timer()
load(sys.argv[1], sys.argv[2])
print(timer() - begun)
"""


def load(backbone: str, seconds: float, device: torch.device) -> Measurement:
    """Seconds of the first load in a process, once ``apao.load`` itself is imported: later loads are faster.

    Always five of them.
    """
    served = Served(backbone, None, device)
    command = [sys.executable, "-c", FIRST_LOAD, served.folder, device.type, measure.timer.__name__]
    runs = [subprocess.run(command, capture_output=True, check=True, text=True) for _ in range(5)]
    return Measurement([float(run.stdout) for run in runs], "s")


def many(backbone: str, seconds: float, device: torch.device) -> Measurement:
    """Histories a second of one call for many."""
    served = Served(backbone, None, device)
    histories = served.named(served.histories(MANY))

    def work() -> int:
        served.model.recommend(histories, 20, BEAM)
        return MANY

    return repeated(work, "histories", seconds, device, flops=False)


def many_over_decoding(backbone: str, seconds: float, device: torch.device) -> Measurement:
    """Time of one call for many over that of the evaluation's decoding of the same histories, in turn."""
    served = Served(backbone, None, device)
    numbers = served.histories(MANY)
    histories, trained = served.named(numbers), served.model.trained
    size = trained.params.decoding.batch_users

    def recommend() -> int:
        served.model.recommend(histories, 20, BEAM)
        return MANY

    @torch.no_grad()
    def decode() -> int:
        for begin in range(0, MANY, size):
            trained.search(trained.encode(numbers[begin : begin + size]), BEAM)
        return MANY

    return compared(recommend, decode, "x decoding", seconds, device)


def only(backbone: str, items: int, users: int, seconds: float, device: torch.device) -> Measurement:
    """Time of a call for 1 % of a catalogue over that of one for all of it, in turn."""
    served = Served(backbone, items, device)
    histories = served.named(served.histories(users))
    part = served.model.catalogue.raw_ids[::100].tolist()

    def restricted() -> int:
        served.model.recommend(histories, 20, BEAM, only=part)
        return users

    def whole() -> int:
        served.model.recommend(histories, 20, BEAM)
        return users

    return compared(restricted, whole, "x whole", seconds, device)
