"""The model card of an exported run: description, training, metrics, intended use."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apao.data.base import SOURCES, Source
from apao.data.histories import Histories
from apao.evaluation.metrics import CODE_LEVEL, ITEM_LEVEL, metric_names, metric_title
from apao.files import read_json, read_record, record_path, verified
from apao.stages.named import project_folder_of
from apao.stages.recommender import Recommender
from apao.study.paths import DatasetPaths

SPLITS = {"valid": "validation", "test": "test"}


def model_card(model: Recommender, folder: Path) -> str:
    """README.md of an export, in Markdown with the metadata block that model hubs read.

    Reads run.json, metrics.json and the record of the training in ``folder``, the run's, and the manifest of the
    dataset's files; what is absent is left out or said to be unknown.
    """
    record = read_json(folder / "run.json")
    root = project_folder_of(folder)
    parts = [_head(record), _what(model), _use(model), _training(record, folder), _metrics(folder, root, record)]
    return "\n\n".join([*parts, _intended(record, root), _limitations(model), _files()]) + "\n"


def _head(record: Mapping[str, Any]) -> str:
    tags = ["generative-recommendation", "sequential-recommendation", "semantic-ids", record["objective"]["type"]]
    return "\n".join(["---", "library_name: transformers", "tags:", *(f"- {tag}" for tag in tags), "---"])


def _what(model: Recommender) -> str:
    trained = model.trained
    codes, record = trained.codes, trained.params
    weights = sum(value.numel() for value in trained.backbone.to_transformers().values())
    (architecture,) = trained.backbone.transformers_config()["architectures"]
    return (
        f"# {trained.run}\n\n"
        f"A generative recommender: it reads the codes of the items a user has had, oldest first, and generates the "
        f"code of the next one. Trained on `{record.dataset}` with the objective `{record.objective.type}` by the "
        f"project *apao*, which studies why beam search loses the target "
        f"([arXiv 2603.02730](https://arxiv.org/abs/2603.02730)).\n\n"
        f"`{architecture}`, {weights:,} weights, {len(codes.vocabulary):,} tokens. The catalogue has {codes.items:,} "
        f"items with {len(codes.distinct):,} different codes of {codes.levels} tokens."
    )


def _use(model: Recommender) -> str:
    return (
        "## How to use it\n\n"
        "`transformers` and `torch` are enough; no code is loaded from this folder.\n\n"
        f"    {try_it(Path('example.py'), model)}\n\n"
        f"prints the next 20 items after these. `example.py` shows the steps: the newest "
        f"{model.trained.params.backbone.max_history} items of the history as one text of tokens, and `generate` with "
        "beam search that `prefix_allowed_tokens_fn` confines to the codes of the catalogue. `sequences_scores` are "
        f"log-probabilities of codes{_softmax(model)}. Items that share a code share its score."
    )


def try_it(example: Path, model: Recommender) -> str:
    """A command that runs ``example`` on three items."""
    return shlex.join(["python", str(example), *model.items["raw_id"][:3]])


def _softmax(model: Recommender) -> str:
    params = model.trained.params
    over = "the tokens that lead to a code" if params.objective.softmax.legal_only else "the whole vocabulary"
    closing = ", the closing eos included" if params.decodes_eos else ""
    return f" under the softmax over {over}{closing}"


def _training(record: Mapping[str, Any], folder: Path) -> str:
    chosen = {
        f"{part}.{key}": value for part in ("backbone", "objective", "training") for key, value in record[part].items()
    }
    given = {key: value for key, value in {**chosen, "seed": record["seed"]}.items() if value is not None}
    rows = [f"| {key} | {value} |" for key, value in given.items()]
    lines = ["## How it was trained", "", "| parameter | value |", "| --- | --- |", *rows]
    if record.get("start"):
        lines += ["", f"It starts from the weights of `{record['start']['run']}`."]
    return "\n".join([*lines, *_made(folder)])


def _made(folder: Path) -> Iterator[str]:
    path = record_path(folder, "train")
    if path.exists():
        made = read_record(path)
        packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
        revision = made["revision"] or "not known"
        yield f"\n{made['seconds']:,.0f} s on {made['device']}, with {packages}; revision {revision}."


def _metrics(folder: Path, root: Path, record: Mapping[str, Any]) -> str:
    path = folder / "metrics.json"
    if not path.exists():
        return "## Metrics\n\nThe run has not been evaluated."
    found = read_json(verified(path))
    columns = {f"{name}, {found[split]['users']:,} users": found[split] for split, name in SPLITS.items()}
    baselines = DatasetPaths(record["dataset"], root).baselines
    if baselines.exists():
        columns["most-popular, test"] = read_json(verified(baselines))["most-popular"]
    lines = [
        "## Metrics",
        "",
        f"{_split(record['dataset'], root)}All items are candidates. Beam search with {found['beam']} beams.",
        "",
        f"| metric | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
        *_rows(columns),
        "",
        "A hit of a code-level metric is the target's code. At item level the items of one code share its rank in "
        "expectation.",
    ]
    return "\n".join(lines)


def _split(dataset: str, root: Path) -> str:
    """How test items were chosen; nothing if the dataset is absent."""
    path = DatasetPaths(dataset, root).interactions
    if not path.exists():
        return ""
    if Histories.load(path).targets is not None:
        return (
            "Split by time: two moments divide all interactions into the periods of training, validation and test; a "
            "user's first item in one of the last two is its target. A test user can be new. "
        )
    return (
        "Leave-one-out: a user's last item is the test item, the one before it the validation item, the rest is "
        "trained on, so every test user is known. "
    )


def _rows(columns: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for level, suffix in ((CODE_LEVEL, ""), (ITEM_LEVEL, ", item level")):
        for name in metric_names(levels=[level]):
            values = [column.get(name) for column in columns.values()]
            cells = " | ".join("-" if value is None else f"{value:.4f}" for value in values)
            yield f"| {metric_title(name)}{suffix} | {cells} |"


def _intended(record: Mapping[str, Any], root: Path) -> str:
    return (
        "## Intended use\n\n"
        f"Research on generative recommendation: to rank the items of `{record['dataset']}` after a history of such "
        "items, and to compare objectives and decoding. It has not been checked for any decision about people.\n\n"
        f"## Licence of the data\n\n{_licence(record['dataset'], root)} `catalogue.json` holds ids and titles of the "
        "dataset, so its terms apply to this folder."
    )


def _licence(dataset: str, root: Path) -> str:
    manifest = DatasetPaths(dataset, root).manifest
    source = str(read_json(manifest)["source"]["source"]) if manifest.exists() else ""
    return SOURCES[source].licence if source in SOURCES else Source.licence


def _limitations(model: Recommender) -> str:
    params = model.trained.params
    return (
        "## Limitations\n\n"
        f"- It knows the {model.trained.codes.items:,} items of its catalogue and no other.\n"
        f"- It reads the newest {params.backbone.max_history} items of a history. Times, ratings and the identity of "
        "the user are not inputs.\n"
        "- It learns from past interactions, so it favours popular items. The list is not diversified, and items of "
        "the history are not removed.\n"
        "- Beam search can miss an item whose code begins with an improbable token, however probable the whole code.\n"
        "- The metrics are those of one seed."
    )


def _files() -> str:
    return (
        "## Files\n\n"
        "| file | content |\n"
        "| --- | --- |\n"
        "| `config.json`, `model.safetensors` | the model |\n"
        "| `generation_config.json` | beam search as in the evaluation |\n"
        "| `tokenizer.json`, `tokenizer_config.json` | one token per level of a code |\n"
        "| `catalogue.json` | id, title and code of every item; `max_history` |\n"
        "| `trie.npz` | the prefix tree of the codes in compressed sparse rows: the edges of state s are "
        "`indptr[s]` to `indptr[s + 1]`, edge e has the token `tokens[e]` and leads to state e + 1 |\n"
        "| `example.py` | the next 20 items after a history |"
    )
