# What every rule file uses: the checked parameters, and what each rule is given of them.
#
# A rule's `params` hold exactly the subtree of params.yaml that decides its output. Snakemake runs it
# again when they change, so editing one objective touches only that objective's runs.

import json
import os
import shlex
import sys
from pathlib import Path

from apao.devices import has_gpu
from apao.errors import UserError, nearest
from apao.params import PARAMS_FILE, load
from apao.report.stage import inputs
from apao.runs import NAME, OBJECTIVE, SEED, Run
from apao.studies import outputs


def fail(error):
    """Stop with the one line that a user's mistake deserves."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


CONFIG_KEYS = {
    "params": "parameter file",
    "scale": "group of studies",
    "mirror": "folder with the datasets' files",
}

for key in config:
    if key not in CONFIG_KEYS:
        fail(
            f"--config {key}=...: unknown key; {nearest(key, CONFIG_KEYS)}. Everything else is set in params.yaml"
        )

PARAMS_PATH = Path(config.get("params", PARAMS_FILE))

try:
    PARAMS = load(PARAMS_PATH, config.get("scale"))
    STUDIES = PARAMS.study.chosen()
except UserError as error:
    fail(error)

GPUS = 1 if has_gpu() else 0

# The command line of every stage. Where the data comes from and which scale is built do not change
# what a stage makes, so they are no `params`.
APAO = f"{shlex.quote(sys.executable)} -m apao.cli --params {shlex.quote(str(PARAMS_PATH))} --scale {PARAMS.scale}"
MIRROR = str(config.get("mirror", os.environ.get("APAO_MIRROR", "")))
MIRROR_OPTION = f"--mirror {shlex.quote(MIRROR)}" if MIRROR else ""


def as_param(value):
    """Parameters in one canonical text, which Snakemake compares with the last run's."""
    return json.dumps(value, sort_keys=True, default=str)


def source_of(wildcards):
    """The dataset's entry, without what only later stages read."""
    try:
        source = PARAMS.dataset(wildcards.dataset)
    except UserError as error:
        fail(error)
    return as_param(source.model_dump(mode="json", exclude={"recipe", "codes"}))


def codes_of(wildcards):
    """The dataset's entry under `codes`."""
    return as_param(
        PARAMS.codes[PARAMS.dataset(wildcards.dataset).codes].model_dump(mode="json")
    )


def embedder_of(wildcards):
    """The dataset's entry under `embedders`."""
    embedder = PARAMS.embedder_of(wildcards.dataset)
    return as_param(embedder and embedder.model_dump(mode="json"))


def run_of(wildcards):
    """The run that a path names, and its parameters."""
    try:
        run = Run.parse(
            f"{wildcards.dataset}/{wildcards.backbone}/{wildcards.objective}/seed{wildcards.seed}"
        )
        return run, PARAMS.resolve(run)
    except UserError as error:
        fail(error)


def training_of(wildcards):
    return as_param(run_of(wildcards)[1].for_training())


def training_threads(wildcards):
    return run_of(wildcards)[1].training.threads


def evaluation_of(wildcards):
    return as_param(run_of(wildcards)[1].for_evaluation())


def study_of(wildcards):
    """What a study is made of: its own entry and the scale's name."""
    return as_param(
        {
            "scale": PARAMS.scale,
            "study": STUDIES[wildcards.study].model_dump(mode="json"),
        }
    )


def study_inputs(wildcards):
    """Exactly the files that a study is made from."""
    try:
        return [str(path) for path in inputs(wildcards.study, PARAMS)]
    except UserError as error:
        fail(error)


def timing_of(wildcards):
    """What the timing of Figure 1b depends on: model sizes, decoding, catalogue sizes."""
    study = STUDIES["figure1"]
    run = Run.of(
        wildcards.dataset, wildcards.backbone, study.objectives[0], study.seeds[0]
    )
    try:
        params = PARAMS.resolve(run)
    except UserError as error:
        fail(error)
    return as_param(
        {
            "backbone": params.backbone.model_dump(mode="json"),
            **params.for_evaluation(),
            "sizes": study.catalogue_sizes,
            "users": study.timed_users,
        }
    )
