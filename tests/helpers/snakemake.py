"""Calls of Snakemake and their jobs, as recorded by a logger plugin and not parsed from printed output."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from helpers.processes import SECONDS, Done, Running

TESTS = Path(__file__).parents[1]
MODEL = "model.safetensors"


@dataclass(frozen=True)
class Job:
    """A job that was started or, in a dry run, would be started."""

    rule: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    command: str | None
    gpus: int
    finished: bool


@dataclass
class Ended(Done):
    """A finished call."""

    jobs: list[Job] = field(default_factory=list)

    @property
    def rules(self) -> Counter[str]:
        """Number of jobs per rule; empty if there was nothing to do."""
        return Counter(job.rule for job in self.jobs)

    @property
    def trained(self) -> set[str]:
        """Names of the runs that were trained."""
        models = (Path(output) for job in self.jobs for output in job.outputs if Path(output).name == MODEL)
        return {str(model.parent.relative_to("results")) for model in models}


class Call(Running):
    """A running call."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._jobs = NamedTemporaryFile("r")  # noqa: SIM115 - open as long as this is
        path = os.pathsep.join([str(TESTS), *filter(None, [environment.get("PYTHONPATH")])])
        plugin = {"PYTHONPATH": path, "SNAKEMAKE_JOBS": self._jobs.name}
        super().__init__(folder, ("snakemake", "--logger", "jobs", *arguments), {**environment, **plugin})

    def end(self, timeout: float = SECONDS) -> Ended:
        done = super().end(timeout)
        # Otherwise a missing log would look like nothing to do.
        assert done.status != 0 or self._lines(), f"the plugin was not used:\n{done.output}"
        return Ended(done.status, done.output, jobs=self.jobs())

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self._jobs.name).read_text().splitlines()]

    def jobs(self) -> list[Job]:
        """The jobs started so far."""
        lines = self._lines()
        finished = {line["finished"] for line in lines if "finished" in line}
        return [
            Job(
                line["rule"],
                frozenset(line["inputs"]),
                frozenset(line["outputs"]),
                line["command"],
                line["gpus"],
                line["id"] in finished,
            )
            for line in lines
            if "rule" in line
        ]
