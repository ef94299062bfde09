"""TensorBoard's event file of a run."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from apao.files import explained
from apao.progress import console
from apao.training.loop import Row


class EventFiles:
    """Writes one event per epoch; a resumed training first writes those of its earlier epochs again.

    Writes synchronously: TensorBoard's own writer is a thread that fails with a traceback on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"
        try:
            from tensorboard.compat.proto.event_pb2 import Event
        except ImportError:
            console.print("TensorBoard is not installed; no event files are written.")
            self._event = None
            return
        self._event = Event
        shutil.rmtree(folder, ignore_errors=True)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, row: Row) -> None:
        """Add one epoch."""
        if self._event is not None:
            summary = [
                {"tag": name.replace("_", "/", 1), "simple_value": value}
                for name, value in row.items()
                if name not in ("epoch", "best")
            ]
            self._append(self._event(wall_time=time.time(), step=int(row["epoch"]), summary={"value": summary}))

    def _append(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise explained(error, self.path) from error
