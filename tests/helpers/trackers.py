"""What each tracker has kept, read with its own library."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apao.study.paths import RESULTS
from apao.study.runs import Run


@dataclass
class Kept:
    """One run of a tracker: its parameters, its values as (name, step, value) in the order written, and its end."""

    params: dict[str, object] | None = None
    values: list[tuple[str, int, float]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    finished: bool | None = None

    @property
    def epochs(self) -> list[int]:
        return [step for name, step, _ in self.values if name == "lr"]


def event_files(run: Run) -> list[Kept]:
    """Read with TensorBoard's own accumulator."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (run.folder / "tensorboard").exists():
        return []
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    kept = Kept()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            if name.startswith("test/"):
                kept.test[name] = event.value
            else:
                kept.values.append((name, event.step, event.value))
    return [kept]


def mlflow_runs(run: Run) -> list[Kept]:
    """Read with MLflow's client."""
    from mlflow import MlflowClient

    if not (RESULTS / "mlflow.db").exists():
        return []
    client = MlflowClient(f"sqlite:///{(RESULTS / 'mlflow.db').resolve()}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = []
    for each in client.search_runs(experiments, f"run_name = '{run}'", order_by=["start_time"]):
        assert each.info.status != "RUNNING"
        kept = Kept(each.data.params, finished=each.info.status == "FINISHED")
        for name in each.data.metrics:
            for metric in client.get_metric_history(each.info.run_id, name):
                if name.startswith("test/"):
                    kept.test[name.replace("_at_", "@")] = metric.value
                else:
                    kept.values.append((name, metric.step, metric.value))
        found.append(kept)
    return found


def wandb_runs(run: Run) -> list[Kept]:
    """Read from the files of offline runs; those of one id are parts of one run, as ``wandb sync`` takes them."""
    found: dict[str, Kept] = {}
    for file in sorted(run.folder.glob("wandb/wandb/offline-run-*/*.wandb"), key=lambda path: path.parent.name):
        identity = file.stem.removeprefix("run-")
        kept = found.setdefault(identity, Kept())
        for record in _records(file):
            if record.HasField("run"):
                assert (record.run.run_id, record.run.display_name) == (identity, str(run))
                kept.params = {each.key: json.loads(each.value_json) for each in record.run.config.update}
            for item in record.history.item:
                name = item.key or item.nested_key[0]
                if not name.startswith("_"):
                    kept.values.append((name, record.history.step.num, json.loads(item.value_json)))
            for item in record.summary.update:
                name = item.key or item.nested_key[0]
                if name.startswith("test/"):
                    kept.test[name] = json.loads(item.value_json)
            if record.HasField("exit"):
                kept.finished = record.exit.exit_code == 0
    return list(found.values())


BLOCK = 32768
HEADER = 7


def _records(file: Path) -> Iterator[object]:
    """Records of a .wandb file, as the library's own messages. The file is a LevelDB log after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


READERS: dict[str, Callable[[Run], list[Kept]]] = {
    "tensorboard": event_files,
    "mlflow": mlflow_runs,
    "wandb": wandb_runs,
}
