"""Weights & Biases: offline, in the run's folder, unless WANDB_MODE says otherwise; ``wandb sync`` uploads it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from typing_extensions import override

from apao.trackers.base import TRACKERS, Log, Numbers, Tracked, Tracker

if TYPE_CHECKING:
    import wandb


@TRACKERS.register
class WeightsAndBiases(Tracker):
    """The library of Weights & Biases. Its variables WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY are its own."""

    type: Literal["wandb"]

    @override
    def open(self, tracked: Tracked) -> Log:
        # Reports of its own errors go over the network even if it is offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        identity = self.known_id(tracked)
        if identity is None:
            identity = uuid4().hex
            self.remember_id(tracked, identity)
        mode = os.environ.get("WANDB_MODE", "offline")
        # Absolute, since the library's service keeps the working directory that it was started in.
        folder = self.folder(tracked).resolve()
        if tracked.training is not None:
            # An offline run cannot be continued. All epochs come again, so it is written anew.
            for earlier in folder.glob(f"wandb/*run-*-{identity}"):
                shutil.rmtree(earlier)
        run = wandb.init(
            id=identity,
            name=tracked.run,
            project=os.environ.get("WANDB_PROJECT", "apao"),
            config=dict(tracked.params),
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        return WandbLog(run)


class WandbLog(Log):
    """A run of Weights & Biases."""

    def __init__(self, run: wandb.Run) -> None:
        # A run that was resumed online starts after its last epoch.
        self.run, self.first = run, run.step

    @override
    def epoch(self, epoch: int, numbers: Numbers) -> None:
        if epoch >= self.first:
            self.run.log(dict(numbers), step=epoch, commit=True)

    @override
    def test(self, numbers: Numbers) -> None:
        self.run.summary.update(dict(numbers))

    @override
    def close(self, finished: bool) -> None:
        import wandb

        self.run.finish(exit_code=0 if finished else 1)
        # Of an offline run that only tells the library's service, which may not have written everything yet.
        wandb.teardown()
