"""Inputs and parameters of the Snakefile's rules, derived from params.yaml.

A rule's ``params`` contain exactly the subtree of params.yaml that determines its output, and the version of its
code. Snakemake reruns a rule when they change, so editing one objective affects only that objective's runs.

params.yaml is read once per workflow, so edits during the workflow have no effect on it. The rules of a run pass the
parameters that Snakemake records to the command. All other jobs, and the Snakemake processes that cluster jobs start
(which parse the rules again), read a copy of the file from the start of the workflow. Its path is in the environment
variable APAO_PARAMS, which Snakemake passes to jobs.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from apao.devices import has_gpu
from apao.engines.code_versions import report_version, run_version, stage_version
from apao.errors import UserError, nearest
from apao.files import sha256_of
from apao.stages.download import what_is_fetched
from apao.stages.report import inputs
from apao.study.params import PUBLISHED_SCALE, Params, load
from apao.study.paths import PARAMS_FILE, PUBLISHED, DatasetPaths
from apao.study.run_params import RunParams, TimedDecoding
from apao.study.runs import Run
from apao.study.studies import FIGURE, TABLE, Form
from apao.trackers.base import AUTO, tracker_of

LOCATION_ENVVAR = "SNAKEMAKE_OUTPUT_CACHE"
COPIES = Path(".snakemake") / "params"
"""Folder of copies of params.yaml, one per content with which a workflow was started."""
CONFIG_KEYS = ("params", "scale", "mirror", "gpus", "tracker")

P = ParamSpec("P")
R = TypeVar("R")


def fail(error: UserError) -> NoReturn:
    """Stop Snakemake with a one-line message."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _reported(method: Callable[P, R]) -> Callable[P, R]:
    """Decorator of functions of rules: a UserError stops with one line instead of Snakemake's traceback."""

    @wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except UserError as error:
            fail(error)

    return checked


def _text(value: Any) -> str:
    """Parameters as canonical JSON text, which Snakemake records, compares and passes to the command."""
    return json.dumps(value, sort_keys=True)


def _hash_of(path: Path) -> str | None:
    """SHA-256 of one of the user's files; None if it does not exist."""
    try:
        status = path.stat()
        # Cached: Snakemake calls this several times, and a file may have gigabytes.
        return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _hashes(paths: Iterable[str | Path]) -> str:
    return _text({str(path): _hash_of(Path(path)) for path in paths})


@cache
def _sha256(path: Path, *_status: int) -> str:
    return sha256_of(path)


def _gpus(value: Any) -> int:
    """Number of GPUs per job (0 or 1) from ``--config gpus``, which a login node without a GPU has to set."""
    if value not in (0, 1):
        raise UserError(f"--config gpus={value}: a job computes on one device; give 0 (CPU) or 1")
    return int(value)


class Workflow:
    """The parts of params.yaml that rules use. Snakemake calls the methods that take wildcards."""

    @_reported
    def __init__(self, config: Mapping[str, Any], spawned: bool = False) -> None:
        """``config`` is that of ``--config``; ``spawned`` is true in a Snakemake process started for a job."""
        for key in config:
            if key not in CONFIG_KEYS:
                raise UserError(
                    f"--config {key}=...: unknown key; {nearest(key, CONFIG_KEYS)}. Everything else is in params.yaml"
                )
        # A value of --config precedes that of the environment, as an option of the command line does.
        scale = config.get("scale", os.environ.get("APAO_SCALE"))
        if spawned:
            self.params = load(Path(os.environ["APAO_PARAMS"]), scale, check_runs=False)
        else:
            self.params = load(Path(config.get("params", os.environ.get("APAO_PARAMS", PARAMS_FILE))), scale)
            copy = COPIES / f"{self.params.sha256[:12]}.yaml"
            if not copy.exists():
                self.params.write_copy(copy)
            os.environ["APAO_PARAMS"] = str(copy)
        self.gpus = _gpus(config.get("gpus", int(has_gpu())))
        self.published = self.params.model_copy(update={"scale": PUBLISHED_SCALE})
        # Stages read the scale, the tracker and the mirror from the environment. They are not in the `params` of rules,
        # because they do not change the output of a stage.
        os.environ["APAO_SCALE"] = self.params.scale
        tracker = str(config.get("tracker", os.environ.get("APAO_TRACKER", AUTO)))
        if not spawned and tracker != AUTO:
            tracker_of(tracker)  # an unknown or missing one is reported before any job
        os.environ["APAO_TRACKER"] = tracker
        if mirror := config.get("mirror", os.environ.get("APAO_MIRROR")):
            os.environ["APAO_MIRROR"] = str(mirror)
        # Value of `cache` in rules. Without a location of the shared cache Snakemake would warn for each rule. Its
        # entries are keyed by rules and parameters, not by content, and another mirror may hold other files.
        self.shares = LOCATION_ENVVAR in os.environ and not mirror
        # Use the `apao` beside this Python even if its virtual environment is not activated.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

    def failed(self) -> None:
        """Print how to resume after Ctrl-C or a failed job."""
        print("rerun the same command to resume: finished files are kept, trainings have checkpoints", file=sys.stderr)

    def targets(self) -> list[str]:
        """Files of all tables and figures of the chosen scale."""
        return [str(path) for name, study in self.params.chosen_studies.items() for path in study.outputs(name)]

    def code(self, stage: str) -> Callable[[Any], str]:
        """Function from wildcards to the version of the code of ``stage``."""

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
                    return run_version(stage, self._timed(wildcards))
                case _:
                    return stage_version(stage)

        return version

    @_reported
    def source(self, wildcards: Any) -> str:
        """The dataset's entry without the keys that only later stages read."""
        source = self.params.dataset(wildcards.dataset)
        return _text(source.model_dump(mode="json", exclude={"recipe", "codes"}))

    @_reported
    def fetched(self, wildcards: Any) -> str:
        """The keys of the dataset's entry that determine the downloaded files."""
        return _text(what_is_fetched(self.params.dataset(wildcards.dataset)))

    def names(self, links: bool) -> str:
        """Regular expression of the datasets that link to the user's own files, or of those that do not."""
        names = [re.escape(name) for name, source in self.params.datasets.items() if source.links == links]
        return "|".join(names) or "(?!)"

    @_reported
    def own_files(self, wildcards: Any) -> list[str]:
        """The user's own files that a dataset links to."""
        return [str(path) for path in self.params.dataset(wildcards.dataset).own_files()]

    @_reported
    def own_content(self, wildcards: Any) -> str:
        """Hashes of these files: Snakemake itself checks no content of a file that is older than the output."""
        return _hashes(self.own_files(wildcards))

    @_reported
    def embedder(self, wildcards: Any) -> str:
        """The dataset's embedder, an encoder or a file of vectors."""
        embedder = self.params.embedder_of(wildcards.dataset)
        return _text(embedder and embedder.model_dump(mode="json"))

    @_reported
    def vectors(self, wildcards: Any) -> list[str]:
        """The user's own files of vectors, if the embedder reads any."""
        embedder = self.params.embedder_of(wildcards.dataset)
        return [] if embedder is None else [str(path) for path in embedder.own_files()]

    @_reported
    def vector_content(self, wildcards: Any) -> str:
        """Hashes of the files of vectors, as ``own_content``."""
        return _hashes(self.vectors(wildcards))

    @_reported
    def codes(self, wildcards: Any) -> str:
        """The dataset's entry under ``codes``."""
        return _text(self.params.tokenizer_of(wildcards.dataset).model_dump(mode="json"))

    @_reported
    def coded_from(self, wildcards: Any) -> list[str]:
        """Inputs of the tokenizer: embeddings, the source's published codes, or the user's own file."""
        tokenizer = self.params.tokenizer_of(wildcards.dataset)
        return [str(path) for path in DatasetPaths(wildcards.dataset).coded_from(tokenizer)]

    @_reported
    def code_content(self, wildcards: Any) -> str:
        """Hashes of the user's own files of codes, as ``own_content``."""
        return _hashes(self.params.tokenizer_of(wildcards.dataset).own_files())

    @_reported
    def tokenizer_gpus(self, wildcards: Any) -> int:
        """Number of GPUs that the tokenizer uses."""
        return self.gpus if self.params.tokenizer_of(wildcards.dataset).uses_gpu else 0

    @_reported
    def _run(self, wildcards: Any) -> RunParams:
        text = f"{wildcards.dataset}/{wildcards.backbone}/{wildcards.objective}/seed{wildcards.seed}"
        return self.params.resolve(Run.parse(text))

    def training_inputs(self, wildcards: Any) -> list[str]:
        """Input files of a run's training, including the weights of the run it starts from."""
        return [str(path) for path in self._run(wildcards).training_inputs()]

    def training(self, wildcards: Any) -> str:
        """Parameters of a run's training."""
        return _text(self._run(wildcards).for_training())

    @_reported
    def backbone_content(self, wildcards: Any) -> str:
        """Hashes of the user's own files that the backbone starts from, as ``own_content``."""
        return _hashes(self._run(wildcards).backbone.own_files())

    def threads(self, wildcards: Any) -> int:
        """Number of CPU threads of a run."""
        return self._run(wildcards).training.threads

    def decoding(self, wildcards: Any) -> str:
        """Decoding parameters of a run, on which its evaluation depends besides weights and run.json."""
        return _text(self._run(wildcards).decoding.model_dump(mode="json"))

    def measuring(self, stage: str) -> Callable[[Any], str]:
        """Function from wildcards to the decoding parameters and those of one measurement (under ``measure``)."""

        @_reported
        def text(wildcards: Any) -> str:
            measure = self.params.recipe_of(wildcards.dataset).measure.model_dump(mode="json", include={stage})
            return _text({"decoding": self._run(wildcards).decoding.model_dump(mode="json"), "measure": measure})

        return text

    def timing(self, wildcards: Any) -> str:
        """Parameters of the timing of decoding."""
        return _text(self._timed(wildcards).model_dump(mode="json"))

    @_reported
    def _timed(self, wildcards: Any) -> TimedDecoding:
        return self.params.timed_decoding(wildcards.dataset, wildcards.backbone)

    @property
    def published_studies(self) -> list[str]:
        """Names of the studies that are drawn from the published runs, regardless of the chosen scale."""
        return list(self.params.studies.get(PUBLISHED_SCALE, ()))

    def published_inputs(self, name: str) -> list[str]:
        """Existing published files that a study reads."""
        return [str(path) for path in inputs(name, self.published, PUBLISHED)]

    def published_study(self, name: str) -> str:
        """Parameters of a published study and the version of the code that draws it."""
        return _text(self._drawn(self.published, name))

    def published_outputs(self, name: str) -> list[str]:
        """Files of a published study."""
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
        """Title of a study in the report."""
        return self.params.study(name).titled(name)

    def study(self, name: str) -> str:
        """A study's entry, the name of the scale, what is tuned, and the version of the code that draws it."""
        return _text({"scale": self.params.scale, **self._drawn(self.params, name)})

    def _drawn(self, params: Params, name: str) -> dict[str, Any]:
        study = params.study(name)
        tuned = {objective: params.tunings(objective) for objective in sorted({run.objective for run in study.runs()})}
        return {
            "study": study.model_dump(mode="json"),
            # Tables say what was tuned and how, which may change where the values do not.
            "tuned": {objective: found for objective, found in tuned.items() if found},
            "code": report_version(study),
        }

    def study_inputs(self, name: str) -> list[str]:
        """Exactly the files that a study reads."""
        return [str(path) for path in inputs(name, self.params)]
