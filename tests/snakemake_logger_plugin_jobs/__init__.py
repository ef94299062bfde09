"""``snakemake --logger jobs``: one line of JSON per job started or finished, in the file named by SNAKEMAKE_JOBS.

Snakemake finds plugins by the name of their package, so this one is beside ``helpers``, where ``snakemake`` reads it.
"""

import json
import os
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class LogHandler(LogHandlerBase):
    """Writes each line immediately, because Snakemake may be killed."""

    writes_to_stream = False
    writes_to_file = True
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.baseFilename = os.environ["SNAKEMAKE_JOBS"]
        self._write(listening=True)

    def emit(self, record: LogRecord) -> None:
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO:
                self._write(
                    id=record.jobid,
                    rule=record.rule_name,
                    inputs=record.input,
                    outputs=record.output,
                    command=record.shellcmd,
                    gpus=record.resources.get("gpu", 0),
                )
            case LogEvent.JOB_FINISHED:
                self._write(finished=record.job_id)

    def _write(self, **line: object) -> None:
        with open(self.baseFilename, "a") as file:
            file.write(json.dumps(line) + "\n")
