"""MLflow: one MLflow run per training, in a database of the project folder or on the server of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from apao.trackers.base import TRACKERS, Log, Numbers, Tracked, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ALWAYS = "lr"
"""A metric of every epoch."""
PARAMS_PER_CALL = 100
"""MLflow refuses more."""


@TRACKERS.register
class MLflow(Tracker):
    """MLflow's client (mlflow-skinny). Its page, ``mlflow ui``, is part of the full package."""

    type: Literal["mlflow"]

    @override
    def open(self, tracked: Tracked) -> Log:
        # MLflow would report its use over the network, and print the making of a database and tracebacks.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
        from mlflow import MlflowClient

        tracked.shared.mkdir(parents=True, exist_ok=True)
        here = f"sqlite:///{(tracked.shared / DATABASE).resolve()}"
        client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))
        identity = self.known_id(tracked)
        if identity is None or not _exists(client, identity):
            identity = _new(client, tracked)
            self.remember_id(tracked, identity)
        else:
            client.update_run(identity, status="RUNNING")
        return MLflowLog(client, identity)


class MLflowLog(Log):
    """A run of MLflow, through its client: nothing here is global, as an active run of MLflow is."""

    def __init__(self, client: MlflowClient, identity: str) -> None:
        self.client, self.identity = client, identity
        self.epochs = {metric.step for metric in client.get_metric_history(identity, ALWAYS)}

    @override
    def epoch(self, epoch: int, numbers: Numbers) -> None:
        if epoch not in self.epochs:
            self._add(epoch, numbers)

    @override
    def test(self, numbers: Numbers) -> None:
        self._add(0, numbers)

    @override
    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.identity, "FINISHED" if finished else "KILLED")

    def _add(self, step: int, numbers: Numbers) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        # MLflow allows no @ in names.
        metrics = [Metric(name.replace("@", "_at_"), value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.identity, metrics=metrics)


def _exists(client: MlflowClient, identity: str) -> bool:
    """Whether MLflow still has the run: its database may have been deleted, or be another one now."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(identity).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _new(client: MlflowClient, tracked: Tracked) -> str:
    from mlflow.entities import Param

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "apao")
    identity: str = client.create_run(_experiment(client, name), run_name=tracked.run).info.run_id
    params = [Param(key, str(value)) for key, value in _flat(tracked.params)]
    for begin in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(identity, params=params[begin : begin + PARAMS_PER_CALL])
    return identity


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:
        # Another training has made it in the meantime, or this fails.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def _flat(values: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{key}.")
        else:
            yield start + key, value
