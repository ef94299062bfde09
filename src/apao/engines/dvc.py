"""Generates dvc.yaml, the graph of the Snakefile for DVC, from params.yaml.

DVC's pipeline files have no functions, so the runs of the studies are listed explicitly: one matrix stage for all
runs of one objective with one backbone on one dataset, one stage for everything else. Each stage declares the entries
of params.yaml that determine its output, and its entry in ``CODE``, the versions of its code. The stage
``check_pipeline`` precedes all others; it writes these versions, and fails if dvc.yaml is out of date with
params.yaml.

DVC reads the declared entries after a stage has finished, when params.yaml may have been edited since the stage read
it. All stages therefore read and declare ``COPY``, which ``check_pipeline`` writes. Unlike Snakemake's rules, the
stages do not pass resolved parameters on the command line: dvc.yaml would repeat every value, and ``dvc exp run -S``
could not change any.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from apao.engines.code_versions import SOURCE, report_version, run_version, stage_version
from apao.errors import UserError
from apao.files import atomic_path, record_path, write_json
from apao.stages.report import inputs
from apao.study.params import Params
from apao.study.paths import PARAMS_FILE, RESULTS, DatasetPaths, decoding_time_file
from apao.study.runs import Run

DVC_FILE = Path("dvc.yaml")
CHECKED = Path("data/pipeline.checked")
"""File with constant content on which the first stages depend, so that the check runs before them."""
MEASUREMENTS = {"beams": ("beams.json",), "exact": ("exact.json", "pruning.json")}
"""Files of each command that measures a run, under whose name the recipe has its parameters."""
COPY = Path("data/params.yaml")
"""Copy of params.yaml from the start of ``dvc repro``, which all stages read."""
CODE = Path("data/code.json")
"""Version of the code of each stage, by the stage's name."""
HEAD = """\
# The graph of workflow/Snakefile for DVC: `dvc repro` builds what `snakemake all` builds, with the same commands.
# Generated from params.yaml by `apao dvc`; generate it again after adding a run, a study or a dataset there.
"""


def pipeline_text(params: Params) -> str:
    """dvc.yaml for the chosen scale."""
    return _text(_Stages(params))


def _text(stages: _Stages) -> str:
    body = {"stages": dict(stages), "plots": [_training_curves(stages.runs), *stages.pictures]}
    return HEAD + yaml.dump(body, Dumper=_Plain, sort_keys=False, width=1000)


def write_pipeline(params: Params) -> None:
    """Write dvc.yaml for the chosen scale."""
    with atomic_path(DVC_FILE) as path:
        path.write_text(pipeline_text(params), encoding="utf-8")


def check_pipeline(params: Params) -> None:
    """Check that dvc.yaml matches params.yaml, and write ``COPY``, ``CODE`` and ``CHECKED``.

    Raises:
        UserError: when dvc.yaml is missing or out of date.
    """
    found = DVC_FILE.read_text(encoding="utf-8") if DVC_FILE.exists() else None
    stages = _Stages(params)
    if found != _text(stages):
        raise UserError(f"{DVC_FILE}: out of date with {PARAMS_FILE}; generate it again: apao dvc")
    params.write_copy(COPY)
    write_json(CODE, stages.code)
    with atomic_path(CHECKED) as path:
        path.write_text("dvc.yaml is the pipeline of params.yaml\n", encoding="utf-8")


class _Plain(yaml.SafeDumper):
    """YAML writer without anchors: repeats a list wherever it is used."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Stages(dict[str, dict[str, Any]]):
    """The stages by name, in the order in which they were added."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.params = params
        self.runs = params.all_runs()
        self.studies = params.chosen_studies
        self.read = {path for name in self.studies for path in inputs(name, params)}
        """Inputs of the tables and figures."""
        self.code: dict[str, str] = {}
        self.pictures: list[str] = []
        """Figures that ``dvc plots`` shows."""
        self["check_pipeline"] = {
            "cmd": "apao dvc --check",
            "deps": [*(os.path.relpath(path) for path in params.files), *map(str, _own_code())],
            "outs": [str(path) for path in (CHECKED, COPY, CODE)],
        }
        datasets = dict.fromkeys(run.dataset for run in self.runs)
        for dataset in datasets | dict.fromkeys(name for s in self.studies.values() for name in s.dataset_names()):
            self.add_dataset(DatasetPaths(dataset), coded=dataset in datasets)
        groups: dict[tuple[str, str, str], list[Run]] = {}
        for run in self.runs:
            groups.setdefault((run.dataset, run.backbone, run.objective), []).append(run)
        for group in groups.values():
            self.add_runs(group)
        for dataset in datasets:
            self.add_timings(dataset)
        for name in self.studies:
            self.add_study(name)

    def add(
        self,
        name: str,
        command: str,
        deps: Iterable[Path],
        keys: Sequence[str] = (),
        outs: Sequence[Path] = (),
        small: Sequence[Path] = (),
        metrics: Sequence[Path] = (),
        runs: Sequence[Run] = (),
        code: str | None = None,
        linked: Sequence[Path] = (),
    ) -> None:
        """Add one stage, or with ``runs`` a matrix stage in which ``item.run`` stands for the run's name.

        Args:
            name: name of the stage.
            command: ``apao`` subcommand with its arguments.
            deps: input files.
            keys: entries of params.yaml that determine the output.
            outs: outputs that DVC keeps in its cache.
            small: outputs that are not cached and may be committed to git.
            metrics: outputs that are metrics; not cached either.
            runs: runs of a matrix stage.
            code: version of the stage's code.
            linked: outputs that describe links to the user's files. DVC does not keep the links, so it must run the
                stage instead of restoring these outputs from its run cache.
        """
        stage: dict[str, Any] = {"matrix": {"run": [str(run) for run in runs]}} if runs else {}
        stage |= {"cmd": f"apao --params {COPY} {command}", "deps": [str(path) for path in deps]}
        if code is not None:
            self.code[name] = code
        if keys or code:
            stage["params"] = [*([{str(COPY): list(keys)}] if keys else []), *([{str(CODE): [name]}] if code else [])]
        stage["outs"] = [*(str(path) for path in outs), *({str(path): {"cache": False}} for path in small)]
        stage["outs"] += [{str(path): {"persist": True}} for path in linked]
        if metrics:
            stage["metrics"] = [{str(path): {"cache": False}} for path in metrics]
        if name in self:
            raise UserError(f"{name}: two stages of dvc.yaml would have this name; rename an objective or a dataset")
        self[name] = stage

    def add_dataset(self, paths: DatasetPaths, coded: bool) -> None:
        """Add the stages of a dataset from the download to the codes (if ``coded``) and baselines."""
        name, source = paths.name, self.params.dataset(paths.name)
        entry = [_key("datasets", name)]
        made = [paths.interactions, paths.items, paths.users, paths.stats, record_path(paths.folder, "preprocess")]
        deps = [CHECKED, *source.own_files()]
        self.add(
            _named("download", name),
            f"download {quote(name)}",
            deps,
            entry,
            # DVC would replace links by copies and keep the user's own files in its cache.
            [] if source.links else [paths.raw, paths.raw_hash],
            linked=[paths.raw_hash] if source.links else [],
        )
        code = stage_version("preprocess", source)
        self.add(_named("preprocess", name), f"preprocess {quote(name)}", [paths.raw_hash], entry, made, code=code)
        if not coded:
            return
        tokenizer, embedder = self.params.tokenizer_of(name), self.params.embedder_of(name)
        coded_from = paths.coded_from(tokenizer)
        if paths.embeddings in coded_from or any(
            paths.embeddings in self.params.resolve(run).training_inputs() for run in self.runs
        ):
            assert embedder is not None
            made = [paths.embeddings, paths.embedding_facts, record_path(paths.folder, "embed")]
            deps = [paths.items, *embedder.own_files()]
            keys = [_key("embedders", str(tokenizer.embedder))]
            code = stage_version("embed")
            self.add(_named("embed", name), f"embed {quote(name)}", deps, keys, made, code=code)
        deps = [paths.items, *coded_from]
        made = [paths.codes, paths.codebooks, paths.code_quality, record_path(paths.folder, "codes")]
        entry, code = [_key("codes", source.codes)], stage_version("codes", source, tokenizer)
        self.add(_named("codes", name), f"codes {quote(name)}", deps, entry, made, code=code)
        if paths.baselines in self.read:
            self.add(
                _named("baselines", name),
                f"baselines {quote(name)}",
                [paths.interactions, paths.codes],
                small=[record_path(paths.baselines.parent, "baselines")],
                metrics=[paths.baselines],
                code=stage_version("baselines"),
            )

    def add_runs(self, group: Sequence[Run]) -> None:
        """Add training and evaluation of the runs of one objective, which differ in overrides and seed."""
        run, folder = group[0], RESULTS / "${item.run}"
        resolved = self.params.resolve(run)
        parts = (run.dataset, run.backbone, run.objective)
        keys = [
            _key("objectives", run.objective),
            self._backbone(run.dataset, run.backbone),
            *self._stated(run.dataset, "training"),
        ]
        if run.objective in self.params.tuned:
            keys.append(_key("tuned", run.objective))
        for i, (deps, some) in enumerate(self._by_inputs(group)):
            self.add(
                _named("train", *parts, *([str(i)] if i else [])),
                "train '${item.run}'",
                # The item table is for the catalogue in the run's folder.
                [*deps, DatasetPaths(run.dataset).items],
                keys,
                [folder / run.model.name, folder / run.catalogue.name],
                [
                    folder / run.record.name,
                    folder / "config.json",
                    folder / "history.csv",
                    record_path(folder, "train"),
                ],
                runs=some,
                code=run_version("train", resolved),
            )
        outs = [folder / "ranks.parquet", folder / "lists.parquet"]
        self.add_ranking("evaluate", ["metrics.json"], group, outs=outs)
        for stage, files in MEASUREMENTS.items():
            if some := [member for member in group if any(member.folder / file in self.read for file in files)]:
                self.add_ranking(stage, files, some, self._stated(run.dataset, "measure", stage))

    def add_ranking(
        self,
        stage: str,
        files: Sequence[str],
        group: Sequence[Run],
        keys: Sequence[str] = (),
        outs: Sequence[Path] = (),
    ) -> None:
        """Add a command that decodes with the runs of one objective and writes ``files`` for each."""
        run, folder, data = group[0], RESULTS / "${item.run}", DatasetPaths(group[0].dataset)
        self.add(
            _named(stage, run.dataset, run.backbone, run.objective),
            f"{stage} '${{item.run}}'",
            [folder / run.record.name, folder / run.model.name, data.interactions, data.codes],
            [*self._stated(run.dataset, "decoding"), *keys],
            outs,
            [record_path(folder, stage)],
            [folder / file for file in files],
            runs=group,
            code=run_version(stage, self.params.resolve(run)),
        )

    def add_timings(self, dataset: str) -> None:
        """Add the timings of decoding that studies read."""
        for backbone in self.params.recipe_of(dataset).backbones:
            file = decoding_time_file(dataset, backbone)
            if file not in self.read:
                continue
            self.add(
                _named("decoding_time", dataset, backbone),
                f"decoding-time {quote(dataset)} {quote(backbone)}",
                [CHECKED],
                [
                    self._backbone(dataset, backbone),
                    *self._stated(dataset, "decoding"),
                    *self._stated(dataset, "training", "threads"),
                    *self._stated(dataset, "measure", "decoding_time"),
                ],
                small=[record_path(file.parent, "decoding_time")],
                metrics=[file],
                code=run_version("decoding_time", self.params.timed_decoding(dataset, backbone)),
            )

    def _backbone(self, dataset: str, backbone: str) -> str:
        return _key("recipes", self.params.dataset(dataset).recipe, "backbones", backbone)

    def _stated(self, dataset: str, *path: str) -> list[str]:
        """Key of a part of a dataset's recipe; empty if params.yaml does not set it."""
        part: Any = self.params.recipe_of(dataset)
        for name in path:
            if name not in part.model_fields_set:
                return []
            part = getattr(part, name)
        return [_key("recipes", self.params.dataset(dataset).recipe, *path)]

    def _by_inputs(self, group: Sequence[Run]) -> list[tuple[tuple[Path, ...], list[Run]]]:
        """The runs grouped by the inputs of their training, which include the weights of a run they start from."""
        groups: dict[tuple[Path, ...], list[Run]] = {}
        for run in group:
            groups.setdefault(tuple(self.params.resolve(run).training_inputs()), []).append(run)
        return list(groups.items())

    def add_study(self, name: str) -> None:
        """Add the stage of a table or figure."""
        study = self.studies[name]
        made = [*study.outputs(name), record_path(study.form.folder, name)]
        pictures = [path for path in made if path.suffix in (".pdf", ".png")]
        small = [path for path in made if path not in pictures]
        self.pictures += [str(path) for path in pictures if path.suffix == ".png"]
        # Tables say what was tuned and how, which may change where the values do not.
        objectives = sorted({run.objective for run in study.runs()})
        tuned = [_key("tuned", objective) for objective in objectives if objective in self.params.tuned]
        tuned += [
            _key("objectives", objective, "tuned")
            for objective in objectives
            if self.params.objectives[objective].tuned
        ]
        self.add(
            f"report_{name}",
            f"report {name}",
            inputs(name, self.params),
            ["scale", _key("studies", self.params.scale, name), *tuned],
            pictures,
            small,
            code=report_version(study),
        )


def _training_curves(runs: Iterable[Run]) -> dict[str, Any]:
    """Plot of ``dvc plots``: validation loss over epochs, one line per run."""
    curves = {str(run.folder / "history.csv"): "valid_loss" for run in runs}
    return {"training": {"x": "epoch", "y": curves, "title": "Validation loss"}}


def _own_code() -> list[Path]:
    """Source folder of this package if it is inside the project: ``CODE`` is updated when a file in it changes."""
    return [SOURCE.relative_to(Path.cwd())] if SOURCE.is_relative_to(Path.cwd()) else []


def _key(*names: str) -> str:
    """Dotted key for DVC, which reads a dot in a name as a level: ends before the first name that contains one."""
    return ".".join(takewhile(lambda name: "." not in name, names))


def _named(rule: str, *parts: str) -> str:
    """Name of a stage: the Snakefile's rule and its wildcards, without characters that DVC does not allow."""
    return "-".join([rule, *(re.sub(r"[^A-Za-z0-9_]+", "-", part) for part in parts)])
