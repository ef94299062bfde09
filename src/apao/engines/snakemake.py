"""What the Snakefile asks of params.yaml: which files a rule reads, and which parameters decide its output.

A rule's ``params`` hold exactly the subtree of params.yaml that decides what it makes, and the version of
the code that makes it. Snakemake runs it again when they change, so editing one objective touches only that
objective's runs.

params.yaml is read once per workflow, however long that takes and whatever is edited meanwhile. The rules of
a run hand over the text that they record. All other jobs, and the Snakemake processes that a cluster's jobs
start, which read the rules anew, read a copy of the file as it was at the start: the environment variable
APAO_PARAMS, which Snakemake passes on to jobs, names it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from apao.devices import has_gpu
from apao.engines.code_versions import report_version, run_version, stage_version
from apao.errors import UserError, nearest
from apao.files import sha256_of
from apao.stages.download import what_is_fetched
from apao.stages.report import inputs
from apao.study.params import PUBLISHED_SCALE, load
from apao.study.paths import PARAMS_FILE, PUBLISHED, DatasetPaths
from apao.study.run_params import RunParams, TimedDecoding
from apao.study.runs import Run
from apao.study.studies import FIGURE, TABLE, Form

LOCATION_ENVVAR = "SNAKEMAKE_OUTPUT_CACHE"
COPIES = Path(".snakemake") / "params"
"""Copies of params.yaml, one for each content that a workflow was started with."""
CONFIG_KEYS = ("params", "scale", "mirror", "gpus")

P = ParamSpec("P")
R = TypeVar("R")


def fail(error: UserError) -> None:
    """Stop Snakemake with the one line that a user's mistake deserves."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _reported(method: Callable[P, R]) -> Callable[P, R]:
    """Snakemake shows a traceback for whatever a rule's function raises; a mistake gets one line."""

    @wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except UserError as error:
            fail(error)
            raise

    return checked


def _text(value: Any) -> str:
    """Parameters in one canonical text, which Snakemake compares with the last run's and hands over."""
    return json.dumps(value, sort_keys=True)


def _hash_of(path: Path) -> str | None:
    """The SHA-256 of a file of the user's; None where there is none."""
    try:
        status = path.stat()
        # Snakemake asks several times, and a file may have gigabytes.
        return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


@cache
def _sha256(path: Path, *_status: int) -> str:
    return sha256_of(path)


def _gpus(value: Any) -> int:
    """GPUs a job asks for: as said, which a login node without one needs, else one where this machine has one."""
    if value not in (0, 1):
        raise UserError(f"--config gpus={value}: a job computes on one device; give 0 (CPU) or 1")
    return int(value)


class Workflow:
    """params.yaml as the rules see it. Functions that take wildcards are called by Snakemake."""

    @_reported
    def __init__(self, config: Mapping[str, Any], spawned: bool = False) -> None:
        """``spawned``: in a Snakemake process that another one started for a job."""
        for key in config:
            if key not in CONFIG_KEYS:
                raise UserError(
                    f"--config {key}=...: unknown key; {nearest(key, CONFIG_KEYS)}. All else is set in params.yaml"
                )
        if spawned:
            self.params = load(Path(os.environ["APAO_PARAMS"]), config.get("scale"), check_runs=False)
        else:
            self.params = load(Path(config.get("params", PARAMS_FILE)), config.get("scale"))
            copy = COPIES / f"{self.params.sha256[:12]}.yaml"
            if not copy.exists():
                self.params.write_copy(copy)
            os.environ["APAO_PARAMS"] = str(copy)
        self.gpus = _gpus(config.get("gpus", int(has_gpu())))
        self.published = self.params.model_copy(update={"scale": PUBLISHED_SCALE})
        # Rules may share their output with other workflows; where Snakemake has been told of no place for it,
        # it would warn of each of them.
        self.shares = LOCATION_ENVVAR in os.environ
        # Stages read this and the mirror. They are no rule's `params`: where the data comes from and which scale
        # is built do not change what a stage makes.
        os.environ["APAO_SCALE"] = self.params.scale
        if mirror := config.get("mirror", os.environ.get("APAO_MIRROR")):
            os.environ["APAO_MIRROR"] = str(mirror)
        # The `apao` beside this Python, also where its environment is not activated.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

    def failed(self) -> None:
        """Snakemake stopped before the end, by Ctrl-C or because a job failed."""
        print("rerun the same command to resume: finished files are kept, trainings have checkpoints", file=sys.stderr)

    def targets(self) -> list[str]:
        """Every table and figure of the chosen scale."""
        return [str(path) for name, study in self.params.chosen_studies.items() for path in study.outputs(name)]

    def code(self, stage: str) -> Callable[[Any], str]:
        """A function of the wildcards: the version of the code with which ``stage`` makes its output."""

        @_reported
        def version(wildcards: Any) -> str:
            match stage:
                case "preprocess":
                    return stage_version(stage, self.params.dataset(wildcards.dataset))
                case "codes":
                    dataset = wildcards.dataset
                    return stage_version(stage, self.params.dataset(dataset), self.params.tokenizer_of(dataset))
                case _ if hasattr(wildcards, "objective"):
                    return run_version(stage, self._run(wildcards))
                case _ if hasattr(wildcards, "backbone"):
                    return stage_version(stage, self._timed(wildcards).backbone)
                case _:
                    return stage_version(stage)

        return version

    @_reported
    def source(self, wildcards: Any) -> str:
        """The dataset's entry, without what only later stages read."""
        source = self.params.dataset(wildcards.dataset)
        return _text(source.model_dump(mode="json", exclude={"recipe", "codes"}))

    @_reported
    def fetched(self, wildcards: Any) -> str:
        """What decides which files of a dataset are downloaded."""
        return _text(what_is_fetched(self.params.dataset(wildcards.dataset)))

    def names(self, links: bool) -> str:
        """A pattern of the datasets that link to the user's own files, or of those that are fetched."""
        found = [re.escape(name) for name, source in self.params.datasets.items() if source.links == links]
        return "|".join(found) or "(?!)"

    @_reported
    def own_files(self, wildcards: Any) -> list[str]:
        """The user's own files that a dataset is made from."""
        return [str(path) for path in self.params.dataset(wildcards.dataset).own_files()]

    @_reported
    def own_content(self, wildcards: Any) -> str:
        """Hashes of those files: on its own, Snakemake does not look into one whose time is older than its output's."""
        return _text({path: _hash_of(Path(path)) for path in self.own_files(wildcards)})

    @_reported
    def embedder(self, wildcards: Any) -> str:
        """The encoder or file of vectors behind the dataset's codes."""
        embedder = self.params.embedder_of(wildcards.dataset)
        return _text(embedder and embedder.model_dump(mode="json"))

    @_reported
    def vectors(self, wildcards: Any) -> list[str]:
        """The user's own files of vectors, where the embeddings are made from some."""
        embedder = self.params.embedder_of(wildcards.dataset)
        return [] if embedder is None else [str(path) for path in embedder.own_files()]

    @_reported
    def codes(self, wildcards: Any) -> str:
        """The dataset's entry under ``codes``."""
        return _text(self.params.tokenizer_of(wildcards.dataset).model_dump(mode="json"))

    @_reported
    def coded_from(self, wildcards: Any) -> list[str]:
        """What the codes are made from: embeddings, what the source published, or a file of the user."""
        tokenizer = self.params.tokenizer_of(wildcards.dataset)
        return [str(path) for path in DatasetPaths(wildcards.dataset).coded_from(tokenizer)]

    @_reported
    def tokenizer_gpus(self, wildcards: Any) -> int:
        """GPUs that making the codes asks for."""
        return self.gpus if self.params.tokenizer_of(wildcards.dataset).uses_gpu else 0

    @_reported
    def _run(self, wildcards: Any) -> RunParams:
        text = f"{wildcards.dataset}/{wildcards.backbone}/{wildcards.objective}/seed{wildcards.seed}"
        return self.params.resolve(Run.parse(text))

    def training_inputs(self, wildcards: Any) -> list[str]:
        """What a run's training reads; the run it starts from is an edge of the graph like any other."""
        return [str(path) for path in self._run(wildcards).training_inputs()]

    def training(self, wildcards: Any) -> str:
        """What a run's training depends on."""
        return _text(self._run(wildcards).for_training())

    def threads(self, wildcards: Any) -> int:
        """CPU threads of a run."""
        return self._run(wildcards).training.threads

    def decoding(self, wildcards: Any) -> str:
        """What a run's evaluation depends on beyond its weights and its run.json."""
        return _text(self._run(wildcards).decoding.model_dump(mode="json"))

    def measuring(self, stage: str) -> Callable[[Any], str]:
        """A function of the wildcards: decoding, and what a measurement of a run finds under ``measure``."""

        @_reported
        def text(wildcards: Any) -> str:
            measure = self.params.recipe_of(wildcards.dataset).measure.model_dump(mode="json", include={stage})
            return _text({"decoding": self._run(wildcards).decoding.model_dump(mode="json"), "measure": measure})

        return text

    def timing(self, wildcards: Any) -> str:
        """What the timing of decoding depends on."""
        return _text(self._timed(wildcards).model_dump(mode="json"))

    @_reported
    def _timed(self, wildcards: Any) -> TimedDecoding:
        return self.params.timed_decoding(wildcards.dataset, wildcards.backbone)

    @property
    def published_studies(self) -> list[str]:
        """Names of what is drawn from the published runs, whatever scale is chosen."""
        return list(self.params.studies.get(PUBLISHED_SCALE, ()))

    def published_inputs(self, name: str) -> list[str]:
        """The published files that a table or figure is made from: those there are."""
        return [str(path) for path in inputs(name, self.published, PUBLISHED)]

    def published_study(self, name: str) -> str:
        """What it is made of otherwise; no code of a training, whose published results stay what they are."""
        study = self.published.study(name)
        return _text({"study": study.model_dump(mode="json"), "code": report_version(study)})

    def published_outputs(self, name: str) -> list[str]:
        """Its files."""
        return [str(path) for path in self.published.study(name).outputs(name, PUBLISHED)]

    def tables(self) -> list[str]:
        """Names of the chosen scale's tables."""
        return self._of_form(TABLE)

    def figures(self) -> list[str]:
        """Names of the chosen scale's figures."""
        return self._of_form(FIGURE)

    def _of_form(self, form: Form) -> list[str]:
        return [name for name, study in self.params.chosen_studies.items() if study.form == form]

    def title(self, name: str) -> str:
        """What the report calls a table or figure."""
        return self.params.study(name).titled(name)

    def study(self, name: str) -> str:
        """What a table or figure is made of: its own entry, the scale's name and the code that draws it."""
        study = self.params.study(name)
        entry = study.model_dump(mode="json")
        return _text({"scale": self.params.scale, "study": entry, "code": report_version(study)})

    def study_inputs(self, name: str) -> list[str]:
        """Exactly the files that a table or figure is made from."""
        return [str(path) for path in inputs(name, self.params)]
