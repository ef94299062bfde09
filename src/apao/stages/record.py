"""A stage's outputs and its provenance record.

The record, ``<stage>.provenance.json``, contains the hashes of the stage's inputs and outputs, its parameters,
package versions, device, machine, seconds and git revision, and of a training the version of its code.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from apao.devices import cpu_facts
from apao.files import atomic_path, json_text, record_path, sha256_of, verified, write_record

INSTRUCTIONS = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_tile": "AMX"}
"""Names of instruction sets by processor flag."""
RECORDED_PACKAGES = (
    "apao",
    "torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "sentence-transformers",
    "transformers",
    "peft",
)


class Stage:
    """Context manager around one stage: its outputs and its provenance file.

    Use ``with Stage("codes", folder, inputs, params) as stage: with stage.output("codes.parquet") as path: ...``.
    The provenance file is written last, so it exists only if the stage finished.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        inputs: Iterable[Path],
        params: Mapping[str, Any],
        device: str = "cpu",
        code: str | None = None,
    ) -> None:
        self.code = code
        self.name, self.folder, self.params, self.device = name, folder, dict(params), device
        self.inputs = hashes_of(inputs)
        self.outputs: dict[str, str] = {}
        self.record = record_path(folder, name)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def forget_record(self) -> None:
        """Delete the record of the files that are about to be replaced; ``output`` does this itself."""
        self.record.unlink(missing_ok=True)

    @contextmanager
    def output(self, name: str) -> Iterator[Path]:
        """Yield a temporary path for the output ``name``, which appears when the block succeeds."""
        path = self.folder / name
        with atomic_path(path) as temporary:
            yield temporary
            self.forget_record()
        self.outputs[name] = sha256_of(path)

    def output_json(self, name: str, value: Any) -> None:
        """Write a JSON output."""
        with self.output(name) as path:
            path.write_text(json_text(value), encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        record = {
            "stage": self.name,
            "params": self.params,
            **({} if self.code is None else {"code": self.code}),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "seconds": round(time.monotonic() - self.started, 3),
            "device": self.device,
            "machine": machine_name(),
            "python": platform.python_version(),
            "packages": _package_versions(),
            "revision": git_revision(),
            "command": sys.argv[1:],
        }
        write_record(self.record, record)


def hashes_of(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of input files by their paths; raises UserError for a file that differs from its stage's record."""
    return {str(path): sha256_of(verified(path)) for path in paths}


def machine_name() -> str:
    """Processor, its instruction sets that affect results, and number of cores, as far as the system states them."""
    facts = cpu_facts()
    flags = set(facts.get("flags", "").split())
    instructions = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    processor = facts.get("model name") or platform.processor() or platform.machine()
    return ", ".join([processor, *instructions, f"{os.cpu_count()} cores"])


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_revision(package: Path = Path(__file__).parents[1]) -> str | None:
    """The checked-out commit of this code, with ``+changes`` if its working tree differs.

    Outside a checkout, as in a copy on a machine without network, it is what ``APAO_REVISION`` says, or None. An
    installed package may lie in a repository of the user's, whose commits say nothing about it.
    """
    checkout = package.parents[1]
    if not (checkout / ".git").exists() or package != checkout / "src" / package.name:
        return os.environ.get("APAO_REVISION")
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"],
            cwd=checkout,
            capture_output=True,
            check=False,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return os.environ.get("APAO_REVISION")
    return done.stdout.strip() or os.environ.get("APAO_REVISION")
