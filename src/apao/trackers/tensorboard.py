"""TensorBoard: one event file per training, in the run's folder."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from apao.trackers.base import TRACKERS, Log, Numbers, Tracked, Tracker

TEST = ".test"
"""End of the name of the file with the test metrics, which come from another process than the training."""


@TRACKERS.register
class TensorBoard(Tracker):
    """Event files for ``tensorboard --logdir results``."""

    type: Literal["tensorboard"]

    @override
    def open(self, tracked: Tracked) -> Log:
        folder = self.folder(tracked)
        if tracked.training is not None:
            # All epochs come again, also those before an interruption.
            shutil.rmtree(folder, ignore_errors=True)
        return EventFiles(folder)


class EventFiles(Log):
    """Writes synchronously: TensorBoard's own writer is a thread that fails with a traceback on a full disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"

    @override
    def epoch(self, epoch: int, numbers: Numbers) -> None:
        self._write(self.path, epoch, numbers)

    @override
    def test(self, numbers: Numbers) -> None:
        for earlier in self.path.parent.glob(f"*{TEST}"):
            earlier.unlink()
        self._write(self.path.with_name(self.path.name + TEST), 0, numbers)

    @override
    def close(self, finished: bool) -> None:
        pass

    def _write(self, path: Path, step: int, numbers: Numbers) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        values = [{"tag": name, "simple_value": value} for name, value in numbers.items()]
        events: list[Any] = [Event(wall_time=time.time(), step=step, summary={"value": values})]
        if not path.exists():
            events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
