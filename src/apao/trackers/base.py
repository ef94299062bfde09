"""The contract of trackers, and the one place that feeds them.

A tracker is chosen per command (``apao --tracker``, APAO_TRACKER) and is no parameter of a run: no record, no
fingerprint and no rule of the workflow knows it. It never stops a training: its first failure is one line, and the
training goes on without it.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apao.errors import UserError, nearest, one_line
from apao.files import read_json, write_json
from apao.parameters import Model, Registry
from apao.progress import console

Numbers = Mapping[str, float]
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Tracked:
    """A run, as trackers know it.

    Attributes:
        run: its name.
        folder: its folder; a tracker keeps its files in the subfolder of its name.
        shared: folder of what all runs share.
        params: parameters of its training, as JSON values.
        training: fingerprint of the training that is running; None: the run is trained, and is being evaluated.
    """

    run: str
    folder: Path
    shared: Path
    params: Mapping[str, Any]
    training: str | None = None


class Log(ABC):
    """The open log of one run. Every method may fail with any exception."""

    @abstractmethod
    def epoch(self, epoch: int, numbers: Numbers) -> None:
        """Add the numbers of an epoch, from 1. A resumed training repeats its earlier epochs; none is kept twice."""

    @abstractmethod
    def test(self, numbers: Numbers) -> None:
        """Set the metrics of the test items, in place of those of an earlier evaluation."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """Write what is left; ``finished`` is false if the training was interrupted or failed."""


class Tracker(Model, ABC):
    """A tracker. Its ``type`` is the name of its library, of the extra that installs it, and on the command line."""

    type: str

    @abstractmethod
    def open(self, tracked: Tracked) -> Log:
        """The log of a run: that of the same training, continued, or a new one."""

    def folder(self, tracked: Tracked) -> Path:
        """Where the tracker keeps its files of a run."""
        return tracked.folder / self.type

    def known_id(self, tracked: Tracked) -> str | None:
        """The library's id of this training's run; None for another or no training."""
        file = self.folder(tracked) / "tracked.json"
        if not file.exists():
            return None
        found = read_json(file)
        return found["id"] if tracked.training in (None, found["training"]) else None

    def remember_id(self, tracked: Tracked, identity: str) -> None:
        """Keep the library's id of this training's run, beside the run."""
        write_json(self.folder(tracked) / "tracked.json", {"id": identity, "training": tracked.training})


TRACKERS: Registry[Tracker] = Registry("tracker", "apao.trackers")


def tracker_of(name: str = AUTO) -> Tracker | None:
    """The tracker ``name``; ``auto`` is TensorBoard where it is installed, ``none`` is none.

    Raises:
        UserError: when there is no such tracker, or its library is not installed.
    """
    if name == NONE:
        return None
    if name not in (AUTO, *TRACKERS):
        raise UserError(f"unknown tracker {name!r}; {nearest(name, (AUTO, NONE, *TRACKERS))}")
    chosen = "tensorboard" if name == AUTO else name
    if importlib.util.find_spec(chosen) is not None:
        return TRACKERS[chosen](type=chosen)
    if name == AUTO:
        return None
    raise UserError(f'tracker {name}: its library is not installed: pip install "apao[{name}]"')


class Feed:
    """What a stage writes to: passes numbers on, in one spelling for all trackers, until the tracker fails."""

    def __init__(self, tracker: Tracker | None, tracked: Tracked) -> None:
        self._name, self._run = tracker.type if tracker else NONE, tracked.run
        self._log: Log | None = None
        if tracker is not None:
            with self._unless_it_fails():
                self._log = tracker.open(tracked)

    def epoch(self, row: Numbers) -> None:
        """Pass on a row of the history; ``train_loss`` is spelled ``train/loss``, by which trackers group."""
        kept = {name.replace("_", "/", 1): value for name, value in row.items() if name not in ("epoch", "best")}
        with self._unless_it_fails():
            if self._log is not None:
                self._log.epoch(int(row["epoch"]), kept)

    def test(self, metrics: Mapping[str, float | list[float] | None]) -> None:
        """Pass on the metrics of the test items; one that has a value per level becomes as many."""
        numbers: dict[str, float] = {}
        for name, value in metrics.items():
            if isinstance(value, list):
                numbers |= {f"test/{name}/{level}": each for level, each in enumerate(value, start=1)}
            elif value is not None:
                numbers[f"test/{name}"] = value
        with self._unless_it_fails():
            if self._log is not None:
                self._log.test(numbers)

    def close(self, finished: bool) -> None:
        """End the log."""
        with self._unless_it_fails():
            if self._log is not None:
                self._log.close(finished)

    @contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._log = None
            reason = one_line(f"{type(error).__name__}: {error}")
            console.print(f"{self._run}: tracker {self._name} failed and is left out from here on ({reason})")


@contextmanager
def tracking(tracker: Tracker | None, tracked: Tracked) -> Iterator[Feed]:
    """The open feed of a run; closed at the end of the block, as interrupted if that raises."""
    feed = Feed(tracker, tracked)
    try:
        yield feed
    except BaseException:
        feed.close(finished=False)
        raise
    feed.close(finished=True)
