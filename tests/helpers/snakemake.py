"""Calls of Snakemake and their jobs, which a plugin for its logs writes down: nothing is read from what it prints."""

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
    """A job that was begun or, in a dry run, would be."""

    rule: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    command: str | None
    gpus: int
    finished: bool


@dataclass
class Ended(Done):
    """A call that has ended."""

    jobs: list[Job] = field(default_factory=list)

    @property
    def rules(self) -> Counter[str]:
        """How many jobs of each rule; none where there was nothing to do."""
        return Counter(job.rule for job in self.jobs)

    @property
    def trained(self) -> set[str]:
        """The runs that were trained."""
        models = (Path(output) for job in self.jobs for output in job.outputs if Path(output).name == MODEL)
        return {str(model.parent.relative_to("results")) for model in models}


class Call(Running):
    """A call that has been started."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._jobs = NamedTemporaryFile("r")  # noqa: SIM115 - open as long as this is
        path = os.pathsep.join([str(TESTS), *filter(None, [environment.get("PYTHONPATH")])])
        plugin = {"PYTHONPATH": path, "SNAKEMAKE_JOBS": self._jobs.name}
        super().__init__(folder, ("snakemake", "--logger", "jobs", *arguments), {**environment, **plugin})

    def end(self, timeout: float = SECONDS) -> Ended:
        done = super().end(timeout)
        # Else no jobs would be taken for nothing to do.
        assert done.status != 0 or self._lines(), f"the plugin was not used:\n{done.output}"
        return Ended(done.status, done.output, jobs=self.jobs())

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self._jobs.name).read_text().splitlines()]

    def jobs(self) -> list[Job]:
        """Those that it has begun until now."""
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
