"""Every parser of untrusted input, with valid files for each."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from helpers.content import record_of
from helpers.models import backbone_of, run_params
from hostile import Target
from safetensors.torch import save as save_tensors

from apao.backbones.base import BACKBONES
from apao.backbones.exchange import check_sizes, read_weights
from apao.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apao.codes.embedders import VectorFile
from apao.codes.embeddings import read_embeddings
from apao.codes.given import joined
from apao.codes.itemcodes import ItemCodes
from apao.codes.tokenizers.file import given_codes
from apao.codes.vectors import read_vectors
from apao.data.base import SOURCES, RawTables, Source
from apao.data.histories import PARTS, Histories
from apao.data.prepared import prepare
from apao.data.summary import check_items, statistics, summary
from apao.errors import UserError, one_line
from apao.evaluation.metrics import user_metrics
from apao.evaluation.params import DecodingParams
from apao.files import verified
from apao.report.kinds import beam_sizes, exact_ranking
from apao.report.results import Results
from apao.stages.download import check_raw, download
from apao.study.paths import RESULTS, DatasetPaths
from apao.study.run_params import RunRecord
from apao.study.runs import Run
from apao.verify.compare import report, verify

PATHS = DatasetPaths("shop")
RUN = Run.parse("shop/llama/ce/seed1")


def source(kind: str, **keys: Any) -> Source:
    """An entry under ``datasets``."""
    return SOURCES[kind].model_validate({"source": kind, "recipe": "r", "codes": "c", **keys})


# --- interactions and items ------------------------------------------------------------------------------------------


def read_source(given: Source) -> Callable[[], None]:
    """A function that reads the downloaded files of ``given``."""

    def read() -> None:
        assert_tables(given, given.read(PATHS.raw))

    return read


def assert_tables(given: Source, raw: RawTables) -> None:
    """Assert what ``RawTables`` guarantees, and that the next stage can read the result."""
    assert list(raw.interactions) == ["user", "item", "timestamp"]
    assert str(raw.interactions["timestamp"].dtype) == "int64"
    assert all(line.isprintable() for line in map(one_line, (*raw.notes, *raw.warnings)))
    for name in ("user", "item"):
        assert all(isinstance(value, str) and value.strip() for value in raw.interactions[name])
    assert all(isinstance(time, int) for time in raw.interactions["timestamp"].tolist())
    if raw.items is not None:
        assert list(raw.items) == ["item", *given.text] and raw.items["item"].is_unique
        assert all(isinstance(value, str) for name in raw.items for value in raw.items[name])
    try:
        prepared = prepare("shop", raw, core=3, ties="random")
        check_items("shop", raw, prepared)
    except UserError:  # the filter leaves nothing, or no item has a row
        return
    prepared.interactions.to_parquet(io.BytesIO())
    prepared.items.to_parquet(io.BytesIO())
    stats = statistics("shop", given, raw, prepared)
    json.dumps(stats, allow_nan=False)
    assert all(len(line) > 0 for line in summary(stats))


GRID = [(f"u{user}", f"i{item}", 1_400_000_000 + 86_400 * item) for user in range(3) for item in range(3)]
LINES = "\n".join(f'{user},{item},{time},"Thing, {item}"' for user, item, time in GRID)
TABLE = f"user,item:token,timestamp,title\n{LINES}\n".encode()
ITEM_TABLE = "item,title\n" + "".join(f'i{item},"Thing ""{item}""\nof two lines"\n' for item in range(3))
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"{user}\t{item}\t3\t{time}.0\n" for user, item, time in GRID
)
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + "".join(
    f"i{item}\tThing {item}\t1995\tDrama\n" for item in range(3)
)
AMAZON_REVIEWS = "".join(
    json.dumps({"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": time}) + "\n"
    for user, item, time in GRID
)
AMAZON_ITEMS = "".join(
    repr({"asin": f"i{item}", "title": f"Thing &amp; <b>{item}</b>", "price": 9.5, "brand": "A'B",
          "description": 'say "hi"', "categories": [["Office", "Pens"], ["Office"]]}) + "\n"
    for item in range(3)
)  # fmt: skip
LATER_REVIEWS = "".join(
    json.dumps({"user_id": user, "parent_asin": item, "asin": "x", "timestamp": 1000 * time}) + "\n"
    for user, item, time in GRID
)
LATER_ITEMS = "".join(
    json.dumps({"parent_asin": f"i{item}", "title": "Thing", "store": "B", "description": ["a", "b"],
                "categories": ["Office", "Pens"], "price": None}) + "\n"
    for item in range(3)
)  # fmt: skip
YELP_REVIEWS = "".join(
    json.dumps({"user_id": user, "business_id": item, "date": "2019-03-04 05:06:07"}) + "\n" for user, item, _ in GRID
)
YELP_ITEMS = "".join(
    json.dumps({"business_id": f"i{item}", "name": "Café", "categories": "Food, Bars"}) + "\n" for item in range(3)
)
RELEASE_HISTORIES = json.dumps({str(user): [0, 1, 2] for user in range(3)})
FIELDS = {"title": "Thing", "description": "d", "brand": "b", "categories": "c"}
RELEASE_ITEMS = json.dumps({str(item): FIELDS for item in range(3)})


def lenient(kind: str, **keys: Any) -> Source:
    """A source that tolerates any share of malformed lines, so that the other lines are tested."""
    return source(kind, max_malformed=1.0, **keys)


AMAZON_FILES = {
    "data/shop/raw/reviews_Pens_5.json.gz": gzip.compress(AMAZON_REVIEWS.encode(), mtime=0),
    "data/shop/raw/meta_Pens.json.gz": gzip.compress(AMAZON_ITEMS.encode(), mtime=0),
}
LATER_FILES = {
    "data/shop/raw/reviews_Pens_5.json.gz": gzip.compress(LATER_REVIEWS.encode(), mtime=0),
    "data/shop/raw/meta_Pens.json.gz": gzip.compress(LATER_ITEMS.encode(), mtime=0),
}
YELP_FILES = {
    "data/shop/raw/yelp_academic_dataset_review.json": YELP_REVIEWS.encode(),
    "data/shop/raw/yelp_academic_dataset_business.json": YELP_ITEMS.encode(),
}
ML1M_RATINGS = "".join(f"{user}::{item}::5::{time}\n" for user, item, time in GRID)
ML1M_FILES = {
    "data/shop/raw/ratings.dat": ML1M_RATINGS.encode(),
    "data/shop/raw/movies.dat": "".join(f"i{item}::Caf\u00e9 (1995)::Drama|War\n" for item in range(3)).encode(
        "latin-1"
    ),
}
STEAM_REVIEWS = "".join(
    repr({"username": user, "product_id": item, "date": f"2019-03-0{int(item[1:]) + 1}"}) + "\n"
    for user, item, _ in GRID
)
STEAM_GAMES = "".join(repr({"id": f"i{item}", "title": "A'B", "genres": ["x"]}) + "\n" for item in range(3))
STEAM_FILES = {
    "data/shop/raw/steam_reviews.json.gz": gzip.compress(STEAM_REVIEWS.encode(), mtime=0),
    "data/shop/raw/steam_games.json.gz": gzip.compress(STEAM_GAMES.encode(), mtime=0),
}
FILMS_FILES = {"data/shop/raw/ml-100k.inter": INTER.encode(), "data/shop/raw/ml-100k.item": ITEM.encode()}
RELEASE_FILES = {
    "data/shop/raw/Office.inter.json": RELEASE_HISTORIES.encode(),
    "data/shop/raw/Office.item.json": RELEASE_ITEMS.encode(),
}


def compressed(content: bytes) -> bytes:
    """Compress with gzip, without a time stamp."""
    return gzip.compress(content, mtime=0)


def of_source(given: Source, files: dict[str, bytes], which: int, pack: Callable[[bytes], bytes] = bytes) -> Target:
    """A target for one file of a source; the others are valid."""
    name = list(files)[which]
    content = files[name] if pack is bytes else gzip.decompress(files[name])
    return Target(name, (content,), read_source(given), pack, {n: c for n, c in files.items() if n != name})


AMAZON = lenient("amazon", category="Pens")
YELP = lenient("yelp", folder=".")
OWN = source("csv", path="shop.csv", text=["title"])
OWN_ITEMS = source("csv", path="shop.csv", text=["title"], items_path="items.csv")
UNQUOTED = source("csv", path="shop.tsv", text=["title"])
UNQUOTED_TABLE = TABLE.replace(b",", b"\t").replace(b"\t ", b", ")
DATE_TIMES = ("2019-01-31T12:00:00.123456789+01:00", "2019-01-31 12:00:00.5Z", "2019-01-31T12:00 UTC")
NUMBER_TIMES = ("1546300800.123456789", "1.5463008005E+09", "-.5")


def dated(times: tuple[str, ...]) -> bytes:
    """A table with many spellings of one kind of time."""
    lines = (f"{user},{item},{times[n % len(times)]},T" for n, (user, item, _) in enumerate(GRID))
    return "\n".join(["user,item,timestamp,title", *lines, ""]).encode()


OWN_FILES = {"data/shop/raw/interactions.table": TABLE, "data/shop/raw/items.table": ITEM_TABLE.encode()}

# --- codes -----------------------------------------------------------------------------------------------------------

RELEASED_CODES = "data/shop/raw/Office.index.rq-kmeans.json"
CODES = np.array([[0, 1], [0, 2], [1, 0], [3, 1]])


def parquet(table: pd.DataFrame) -> bytes:
    """The file of a table."""
    file = io.BytesIO()
    table.to_parquet(file, index=False)
    return file.getvalue()


CATALOGUE = parquet(
    pd.DataFrame({"item": range(len(CODES)), "raw_id": [str(i) for i in range(len(CODES))], "text": "a"})
)
CODES_TABLE = parquet(
    pd.DataFrame({"item": range(len(CODES)), **{f"level_{i + 1}": column for i, column in enumerate(CODES.T)}})
)
CODES_JSON = json.dumps({str(item): [f"<a_{a}>", f"<b_{b}>"] for item, (a, b) in enumerate(CODES.tolist())})


OWN_CODES = parquet(
    pd.DataFrame({"item": [str(i) for i in range(len(CODES))], "level_1": CODES[:, 0], "level_2": CODES[:, 1]})
)


def read_given(name: str) -> Callable[[], None]:
    """Read codes from a release or from a user's file."""

    def read() -> None:
        found = given_codes(Path(name), IDS, PATHS.items)
        assert len(found.codes) == len(CODES)
        assert_codes(ItemCodes(found.codes))

    return read


def read_codes() -> None:
    """Read the code table of the stage before."""
    assert_codes(ItemCodes.read(PATHS.codes))


def assert_codes(codes: ItemCodes) -> None:
    """Assert that every item has tokens that decode to its code."""
    assert codes.tokens.shape == codes.codes.shape and codes.codes.dtype == np.int64
    spelled = [[codes.vocabulary[token] for token in row] for row in codes.tokens]
    again = ItemCodes.from_strings({str(item): row for item, row in enumerate(spelled)}, "again")
    assert np.array_equal(again.codes, codes.codes)


# --- tables and numbers of earlier stages ----------------------------------------------------------------------------

OF_TWO_USERS = {"user": np.repeat([0, 1], 4), "item": [0, 1, 2, 3] * 2}
HISTORIES = parquet(pd.DataFrame({**OF_TWO_USERS, "split": pd.Categorical(["train", "train", "valid", "test"] * 2)}))
BY_TIME = pd.Categorical(["train", "valid", "rest", "test", *["train"] * 4], categories=pd.Index(PARTS))
HISTORIES_BY_TIME = parquet(pd.DataFrame({**OF_TWO_USERS, "split": BY_TIME}))
RANKS = parquet(
    pd.DataFrame(
        {
            "split": ["valid", "test"] * 2,
            "user": [0, 0, 1, 1],
            "rank": 1,
            "items_before": 0,
            "group": 1,
            "prefix_1": True,
        }
    )
)
METRICS = json.dumps({"test": {"recall@10": 0.5, "prefix_recall@20": [1.0, 0.5]}, "popular": {"recall@10": 0.1}})
BEAM = {"beam": 10, "seconds": 0.5, "recall@10": 0.25, "intervals": {"recall@10": [0.125, 0.5]}}
BEAMS = json.dumps({"users": 8, "beams": [BEAM, {**BEAM, "beam": 20, "intervals": None}]})
EXACT = json.dumps({"users": 2, "of_users": 2, "ranks": {"beam": [0, 1], "exact": [12, 1]}})
HISTORY_CSV = "epoch,steps,loss,seconds,best\n1,3,2.5,0.1,False\n2,3,2.25,0.1,True\n"
ROWS = torch.arange(4.0 * 3).reshape(4, 3)
EMBEDDINGS = save_tensors({"embeddings": ROWS})
IDS = [str(item) for item in range(4)]
OWN_VECTORS = save_tensors({"mine": ROWS}, metadata={"ids": json.dumps(IDS)})
OWN_TABLE = parquet(pd.DataFrame({"item": IDS, "a": ROWS[:, 0].numpy(), "b": ROWS[:, 1].numpy()}))
OWN_LISTS = parquet(pd.DataFrame({"item": IDS, "vector": ROWS.tolist()}))


class _AnyParams:
    """The part of ``Params`` that ``Results`` uses."""

    scale = "small"

    @staticmethod
    def normalised(run: Run) -> Run:
        return run


def read_histories() -> None:
    """Read histories as for training examples."""
    histories = Histories.load(PATHS.interactions)
    lengths, ends = np.diff(histories.offsets), histories.train_end(np.arange(histories.users))
    assert histories.offsets[-1] == len(histories.items) and (ends >= 0).all() and (ends <= lengths).all()
    users, positions = histories.training_examples()
    assert len(users) == len(positions) == np.maximum(ends - 1, 0).sum()
    for split in ("valid", "test"):
        evaluated, targets = histories.evaluated(split), histories.evaluation_targets(split)
        assert (targets < lengths).all() and (targets[evaluated] >= np.maximum(ends[evaluated], 1)).all()
        assert len(histories.target_items(split, evaluated)) == len(evaluated)


def read_metrics() -> None:
    """Read a run's metrics as tables and figures do."""
    results = Results(_AnyParams)  # type: ignore[arg-type]
    assert np.isfinite(results.metric([RUN], "test", "recall@10").mean)
    assert all(np.isfinite(level.mean) for level in results.levels([RUN], "metrics.json", "test", "prefix_recall@20"))


def read_beams() -> None:
    """A run's metrics by beam size."""
    results = Results(_AnyParams)  # type: ignore[arg-type]
    for beam, seconds in beam_sizes.by_beam(RUN, results, beam_sizes.SECONDS).items():
        assert np.isfinite(seconds) and isinstance(beam, int)
    assert all(len(ends) == 2 for ends in beam_sizes.user_intervals(RUN, results, "recall@10").values())


def read_exact() -> None:
    """A run's ranks by beam search and by exact scoring."""
    for way in exact_ranking.WAYS:
        gains = exact_ranking.user_gains(Results(_AnyParams), RUN, way, "recall@10")  # type: ignore[arg-type]
        assert len(gains) and ((gains == 0) | (gains == 1)).all()


def read_history() -> None:
    """A run's training history."""
    assert Results(_AnyParams).history(RUN)["best"].any()  # type: ignore[arg-type]


def read_ranks() -> None:
    """A run's ranks."""
    metrics = user_metrics(Results(_AnyParams).test_ranks(RUN))  # type: ignore[arg-type]
    assert all(np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all() for values in metrics.values())


def read_embedded() -> None:
    """The items' embeddings."""
    vectors = read_embeddings(PATHS.embeddings, PATHS.items)
    assert len(vectors) == len(CODES) and vectors.shape[1] > 0 and np.isfinite(vectors).all()
    assert np.issubdtype(vectors.dtype, np.floating)


def npy(array: np.ndarray) -> bytes:
    """The file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_own_vectors(file: str, ids: str | None = None) -> Callable[[], None]:
    """Read a user's vectors and their ids as the stage ``embed`` does."""

    def read() -> None:
        params = VectorFile(file=Path(file), ids=None if ids is None else Path(ids))
        found, vectors = read_vectors(params)
        assert vectors.dtype == np.float32 and np.isfinite(vectors).all() and vectors.shape[1] > 0
        assert len(found) == len(vectors) and all(isinstance(name, str) and name for name in found)
        assert len(vectors[joined(found, IDS, params.file, PATHS.items).rows]) == len(IDS)

    return read


def of_ids(name: str, content: bytes) -> Target:
    """A target for a file of ids, which is compared with the file of vectors."""
    return Target(
        name, (content,), read_own_vectors("own.npy", name), beside={"own.npy": npy(ROWS.numpy())}, names="own"
    )


# --- records of downloads and stages ---------------------------------------------------------------------------------

SHA256 = "9a271f2a916b0b6ee6cecb2426f0b3206ef074578be55d9bc94f6f3fe3ab86aa"
"""SHA-256 of a file with 0 and a line break; not of the file outside the project."""
MANIFEST = json.dumps(
    {
        "source": {"source": "csv", "path": "shop.csv", "items_path": None},
        "files": {"interactions.table": {"sha256": SHA256, "bytes": 2}},
    }
)
RECORD = json.dumps(record_of({"codes.parquet": SHA256}, stage="codes"))


def read_manifest() -> None:
    """Read the record of a download, as before its files are read."""
    check_raw("shop", OWN)


def download_again() -> None:
    """Download with this manifest, which decides which files are downloaded again."""
    download("shop", OWN, None)


def read_record() -> None:
    """Read a stage's record of its output."""
    assert verified(PATHS.codes) == PATHS.codes


# --- runs -------------------------------------------------------------------------------------------------------------


def read_run_name() -> None:
    """Parse a run name from the command line; bytes that are not UTF-8 arrive as Python decodes them."""
    text = os.fsdecode(Path("name").read_bytes())
    try:
        run = Run.parse(text)
    except UserError as error:
        raise UserError(f"name: {error}") from error
    assert str(run) == text.removeprefix("results/").rstrip("/") and Run.parse(str(run)) == run
    assert_inside_results(run)


def assert_inside_results(run: Run) -> None:
    """Assert that the run's folder is below results/."""
    inside = run.folder.resolve().relative_to(RESULTS.resolve())
    assert len(inside.parts) == 4


# --- weights, checkpoints, golden folders ----------------------------------------------------------------------------


def opened(file: bytes) -> bytes:
    """A safetensors file as header, blank line and the rest; inverse of ``closed``."""
    size = int.from_bytes(file[:8], "little")
    return file[8 : 8 + size].rstrip() + b"\n\n" + file[8 + size :]


def closed(content: bytes) -> bytes:
    """The file from a header and the numbers, with the correct length of the header."""
    header, _, rest = content.partition(b"\n\n")
    return len(header).to_bytes(8, "little") + header + rest


TOKENS = 3 + 6  # special, and those of CODES
MODEL = backbone_of("llama", TOKENS, layers=1)
WEIGHTS = save_tensors({name: value.contiguous() for name, value in MODEL.to_transformers().items()})
CONFIG = json.dumps({"model_type": "llama", **MODEL.params.transformers_config(TOKENS)})
NUMBERS = {"loss": 2.0, "ce": 1.5, "prefix_losses": [0.5, 0.5], "weights": [0.5, 0.5]}
EXPECTED = json.dumps(
    {
        "codes": json.loads(CODES_JSON),
        "vocabulary": {"<pad>": 0, "</s>": 1, "<unk>": 2, "<a_0>": 3},
        "valid_prefixes": [3, 4],
        "examples": [{"history": [0, 1], "target": 2}],
        "negatives": [[1, 3]],
        "beta": 0.5,
        "interactions": {"7": [0, 1, 2]},
        "backbones": {
            "llama": {
                "remark": "of no model in particular",
                "ce": {"loss": 2.0, "ce": 2.0, "token_logp": [[-1.0, -2.0, -3.0]]},
                "msl": {"1.5": {"loss": 2.0}},
                "apao-pointwise": {"0.1": NUMBERS},
                "apao-pairwise": {"0.1": NUMBERS},
                "beam": {
                    "beam_size": 2,
                    "users": [7],
                    "codes": [[["<a_0>", "<b_1>"], ["<a_1>", "<b_0>"]]],
                    "scores": [[-1, -2.5]],
                },
            }
        },
    }
)
GOLDEN_FILES = {
    "golden/expected.json": EXPECTED.encode(),
    "golden/llama.safetensors": WEIGHTS,
    "golden/llama.config.json": CONFIG.encode(),
}


def read_golden() -> None:
    """Read a folder of values from another implementation."""
    quantities = verify(Path("golden"), 1e-4)
    assert quantities and all(quantity.agrees in (True, False) for quantity in quantities)
    assert all(line.isprintable() for line in report(quantities, 1e-4))


def of_golden(file: str, pack: Callable[[bytes], bytes] = bytes) -> Target:
    """One file of a golden folder."""
    name = f"golden/{file}"
    content = GOLDEN_FILES[name] if pack is bytes else opened(GOLDEN_FILES[name])
    beside = {n: c for n, c in GOLDEN_FILES.items() if n != name}
    return Target(name, (content,), read_golden, pack, beside, names="golden")


TRAINED = run_params("llama", sizes={"layers": 1}).model_copy(update={"dataset": "shop", "seed": 1})
RUN_VALUES = {"run": str(RUN), **TRAINED.for_training(), "inputs": {str(PATHS.codes): SHA256}}
START = {"run": "shop/llama/msl/seed1", "training": TRAINED.for_training()}
RUN_RECORD = json.dumps(RUN_VALUES)
SECOND_STAGE = json.dumps(RUN_VALUES | {"objective": {"type": "apao-pairwise", "start": "msl"}, "start": START})


def read_run_record() -> None:
    """Read the parameters of a trained run as evaluation and reports do."""
    record = RunRecord.read(RUN)
    params = record.decoded(DecodingParams())
    json.dumps([params.for_training(), params.for_evaluation()], allow_nan=False)
    assert (record.difference(TRAINED) is None) == (record.for_training() == TRAINED.for_training())
    assert record.changed_inputs(Path()) == ([] if record.inputs.get(str(PATHS.codes)) == SHA256 else [PATHS.codes])
    torch.set_num_threads(params.training.threads)
    torch.set_num_threads(1)
    try:
        check_sizes(params.backbone, TOKENS, MODEL.to_transformers())
        params.backbone.build(TOKENS)
    except UserError as error:
        raise UserError(f"{RUN.record}: {error}") from error


def read_model() -> None:
    """Load a run's weights into its model."""
    weights = read_weights(RUN.model)
    try:
        MODEL.load_transformers(weights)
    except UserError as error:
        # As every stage that loads weights does.
        raise UserError(f"{RUN.model}: {error}") from error
    assert all(torch.isfinite(value).all() for value in MODEL.state_dict().values())


LANGUAGE_MODEL = BACKBONES["hf-causal"](type="hf-causal", model="not-needed")
LANGUAGE_MODEL_CONFIG = json.dumps(
    {
        "model_type": "llama",
        "vocab_size": TOKENS,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "apao": {"prompt_tokens": 2},
    }
)


def read_language_model() -> None:
    """Make a model of the sizes that a run's config.json gives, as a stage does before it loads the weights."""
    weights = {"all": torch.zeros(3000)}
    try:
        check_sizes(LANGUAGE_MODEL, TOKENS, weights, RUN.folder)
        model = LANGUAGE_MODEL.to_load(TOKENS, RUN.folder)
    except UserError as error:
        # As every stage that loads weights does.
        raise UserError(f"{RUN.folder / 'config.json'}: {error}") from error
    assert sum(value.numel() for value in model.parameters()) <= 30_000


def checkpoint_bytes() -> bytes:
    """A checkpoint's file."""
    from tempfile import TemporaryDirectory

    tensors = {"model": {"weight": torch.arange(6.0).reshape(3, 2)}, "random": {"torch": torch.arange(3).byte()}}
    with TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.safetensors")
        save_checkpoint(path, Checkpoint(tensors, {"history": [], "best_loss": 1.0, "best_epoch": 0}), "mine")
        return path.read_bytes()


CHECKPOINT = checkpoint_bytes()


def read_checkpoint() -> None:
    """Read a checkpoint: the saved state or an error, never another state."""
    found = load_checkpoint(RUN.folder / "checkpoint.safetensors", "mine")
    assert found is not None and torch.equal(found.tensors["model"]["weight"], torch.arange(6.0).reshape(3, 2))
    assert found.progress == {"history": [], "best_loss": 1.0, "best_epoch": 0}


TARGETS: dict[str, Target] = {
    "csv": of_source(OWN, OWN_FILES, 0),
    "csv-items": of_source(OWN_ITEMS, OWN_FILES, 1),
    "csv-unquoted": Target("data/shop/raw/interactions.table", (UNQUOTED_TABLE,), read_source(UNQUOTED)),
    "csv-times": Target("data/shop/raw/interactions.table", (dated(DATE_TIMES), dated(NUMBER_TIMES)), read_source(OWN)),
    "ml100k": of_source(source("ml-100k"), FILMS_FILES, 0),
    "ml100k-items": of_source(source("ml-100k"), FILMS_FILES, 1),
    "ml1m": of_source(source("ml-1m"), ML1M_FILES, 0),
    "ml1m-items": of_source(source("ml-1m"), ML1M_FILES, 1),
    "steam": of_source(lenient("steam"), STEAM_FILES, 0, compressed),
    "steam-items": of_source(lenient("steam"), STEAM_FILES, 1, compressed),
    "amazon": of_source(AMAZON, AMAZON_FILES, 0, compressed),
    "amazon-items": of_source(AMAZON, AMAZON_FILES, 1, compressed),
    "amazon-2023": of_source(AMAZON, LATER_FILES, 0, compressed),
    "amazon-2023-items": of_source(AMAZON, LATER_FILES, 1, compressed),
    "yelp": of_source(YELP, YELP_FILES, 0),
    "yelp-items": of_source(YELP, YELP_FILES, 1),
    "release": of_source(source("release", name="Office"), RELEASE_FILES, 0),
    "release-items": of_source(source("release", name="Office"), RELEASE_FILES, 1),
    "codes-json": Target(
        RELEASED_CODES, (CODES_JSON.encode(),), read_given(RELEASED_CODES),
        beside={"data/shop/items.parquet": CATALOGUE},
    ),
    "own-codes-json": Target(
        "own.json", (CODES_JSON.encode(),), read_given("own.json"), beside={"data/shop/items.parquet": CATALOGUE}
    ),
    "own-codes-table": Target(
        "own.parquet", (OWN_CODES,), read_given("own.parquet"), beside={"data/shop/items.parquet": CATALOGUE}
    ),
    "own-vectors-npy": Target(
        "own.npy", (npy(ROWS.numpy()), npy(ROWS.double().numpy())), read_own_vectors("own.npy", "own.txt"),
        beside={"own.txt": "\n".join(IDS).encode()},
    ),
    "own-vectors-safetensors": Target(
        "own.safetensors", (opened(OWN_VECTORS),), read_own_vectors("own.safetensors"), closed
    ),
    "own-vectors-table": Target("own.parquet", (OWN_TABLE, OWN_LISTS), read_own_vectors("own.parquet")),
    "own-ids-txt": of_ids("own.txt", "\n".join(IDS).encode()),
    "own-ids-json": of_ids("own.json", json.dumps(IDS).encode()),
    "own-ids-npy": of_ids("own-ids.npy", npy(np.array(IDS))),
    "codes-table": Target("data/shop/codes.parquet", (CODES_TABLE,), read_codes),
    "histories": Target("data/shop/interactions.parquet", (HISTORIES, HISTORIES_BY_TIME), read_histories),
    "embeddings": Target(
        "data/shop/embeddings.safetensors", (opened(EMBEDDINGS),), read_embedded, closed,
        {"data/shop/items.parquet": CATALOGUE},
    ),
    "manifest": Target(
        "data/shop/raw/manifest.json", (MANIFEST.encode(),), read_manifest,
        beside={"data/shop/raw/interactions.table": b"0\n"}, names="data/shop/raw",
    ),
    "manifest-download": Target(
        "data/shop/raw/manifest.json", (MANIFEST.encode(),), download_again,
        beside={"data/shop/raw/interactions.table": b"0\n", "shop.csv": TABLE}, writes=True,
    ),
    "record": Target(
        "data/shop/codes.provenance.json", (RECORD.encode(),), read_record, beside={"data/shop/codes.parquet": b"0\n"}
    ),
    "metrics": Target(str(RUN.folder / "metrics.json"), (METRICS.encode(),), read_metrics),
    "beams": Target(str(RUN.folder / "beams.json"), (BEAMS.encode(),), read_beams),
    "exact": Target(str(RUN.folder / "exact.json"), (EXACT.encode(),), read_exact),
    "history": Target(str(RUN.folder / "history.csv"), (HISTORY_CSV.encode(),), read_history),
    "ranks": Target(str(RUN.folder / "ranks.parquet"), (RANKS,), read_ranks),
    "run": Target(
        "name", (b"shop/tiger/apao-pairwise+beta=0.2+eta=1e-5/seed42", b"results/a/b/ce+s-dpo/seed0/"), read_run_name
    ),
    "run-record": Target(
        str(RUN.record), (RUN_RECORD.encode(), SECOND_STAGE.encode()), read_run_record,
        beside={str(PATHS.codes): b"0\n"},
    ),
    "language-model": Target(
        str(RUN.folder / "config.json"), (LANGUAGE_MODEL_CONFIG.encode(),), read_language_model,
    ),
    "model": Target(str(RUN.model), (opened(WEIGHTS),), read_model, closed),
    "checkpoint": Target(str(RUN.folder / "checkpoint.safetensors"), (opened(CHECKPOINT),), read_checkpoint, closed),
    "golden": of_golden("expected.json"),
    "golden-config": of_golden("llama.config.json"),
    "golden-weights": of_golden("llama.safetensors", closed),
}  # fmt: skip
