import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from apao.codes.itemcodes import ItemCodes
from apao.codes.tokenizers.file import FileCodes
from apao.codes.tokenizers.published import PublishedCodes
from apao.codes.tokenizers.rqkmeans import ResidualKMeans
from apao.data.base import SOURCES, Source
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import verified
from apao.stages.codes import build_codes
from apao.study.paths import DatasetPaths

PATHS = DatasetPaths("toy")


class WithCodes(Source):
    """A source with only a file of codes."""

    source: Literal["with-codes"] = "with-codes"
    recipe: str = "small"
    codes: str = "published"
    text: tuple[str, ...] = ("title",)

    publishes_codes: ClassVar[bool] = True

    def download(self, folder, mirror):
        raise NotImplementedError

    def read(self, folder):
        raise NotImplementedError

    def published_codes(self, folder: Path) -> Path:
        return folder / "codes.json"


def build(source, tokenizer):
    build_codes("toy", source, tokenizer, DecodingParams(beam="all"), torch.device("cpu"))


def write_items(raw_ids):
    PATHS.raw.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"item": np.arange(len(raw_ids), dtype=np.int32), "raw_id": raw_ids, "text": "a thing"})
    table.to_parquet(PATHS.items)


def write_published(codes):
    (PATHS.raw / "codes.json").write_text(json.dumps(codes))


def clusters(**changes):
    return ResidualKMeans(method="rq-kmeans", embedder="minilm", **{"levels": 2, "clusters": 4, **changes})


def published(collisions="keep"):
    return PublishedCodes(method="published", collisions=collisions)


def report():
    return json.loads(PATHS.code_quality.read_text())


@pytest.fixture
def embedded(project):
    """Ten items; 3 and 7 have one embedding, the others embeddings of their own."""
    rows = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    rows[7] = rows[3]
    write_items([f"B{i:04d}" for i in range(10)])
    save_file({"embeddings": rows}, PATHS.embeddings)
    return rows


def test_codes_books_and_report_agree(embedded):
    build(WithCodes(), clusters())
    codes, books = ItemCodes.read(verified(PATHS.codes)).codes, load_file(verified(PATHS.codebooks))
    assert codes.shape == (10, 2)
    assert sorted(books) == ["level_1", "level_2"]
    assert {book.dtype for book in books.values()} == {np.dtype(np.float32)}
    left = embedded - books["level_1"][codes[:, 0]]
    spread = np.square(embedded - embedded.mean(axis=0)).sum(axis=1).mean()
    errors = [np.square(rows).sum(axis=1).mean() / spread for rows in (left, left - books["level_2"][codes[:, 1]])]
    assert report()["relative_reconstruction_error"] == pytest.approx(errors, rel=1e-5)
    assert 1 > errors[0] > errors[1]
    assert codes[3].tolist() == codes[7].tolist()
    assert report()["collision_policy"] == "keep"
    assert report()["items_moved"] == 0
    assert report()["before_collision_policy"] is None
    assert report()["items_sharing_a_code"] >= 2
    record = json.loads((PATHS.folder / "codes.provenance.json").read_text())
    assert set(record["inputs"]) == {str(PATHS.items), str(PATHS.embeddings)}
    assert record["params"]["clusters"] == 4


def test_reassign_parts_what_keep_leaves_together(embedded):
    build(WithCodes(), clusters())
    kept, kept_report = ItemCodes.read(PATHS.codes).codes, report()
    build(WithCodes(), clusters(collisions="reassign"))
    codes, books = ItemCodes.read(PATHS.codes).codes, load_file(PATHS.codebooks)
    assert np.array_equal(codes[:, 0], kept[:, 0])
    assert codes[3].tolist() == kept[3].tolist()
    assert codes[7].tolist() != codes[3].tolist()
    moved = (codes != kept).any(axis=1).sum()
    final = report()
    assert final["items_moved"] == moved == kept_report["items_beyond_distinct_codes"]
    assert final["distinct_codes"] == kept_report["distinct_codes"] + moved
    assert final["relative_reconstruction_error"][1] > kept_report["relative_reconstruction_error"][1]
    before = final["before_collision_policy"]
    assert before == {key: kept_report[key] for key in before}
    assert codes[:, 1].max() < len(books["level_2"])


def test_extra_level_makes_codes_distinct(embedded):
    build(WithCodes(), clusters(collisions="extra"))
    codes = ItemCodes.read(PATHS.codes)
    assert (codes.levels, len(codes.distinct)) == (3, 10)
    assert sorted(load_file(PATHS.codebooks)) == ["level_1", "level_2"]
    assert report()["items_moved"] == (codes.codes[:, 2] > 0).sum() > 0
    assert len(report()["entropy_bits"]) == 3
    assert len(report()["before_collision_policy"]["entropy_bits"]) == 2


def test_a_policy_without_work_changes_nothing(project):
    write_items(["x", "y"])
    save_file({"embeddings": np.eye(2, dtype=np.float32)}, PATHS.embeddings)
    build(WithCodes(), clusters(collisions="reassign"))
    assert ItemCodes.read(PATHS.codes).codes.tolist() == [[0, 0], [1, 0]]
    assert (report()["items_moved"], report()["before_collision_policy"]) == (0, None)


FOREIGN = [np.zeros((9, 3)), np.zeros(10), np.full((10, 2), np.nan), np.zeros((10, 0)), np.zeros((10, 2), np.int32)]


@pytest.mark.parametrize("rows", FOREIGN)
def test_embeddings_of_another_catalogue_are_refused(embedded, rows):
    save_file({"embeddings": rows.astype(np.float32) if rows.dtype == float else rows}, PATHS.embeddings)
    with pytest.raises(UserError, match=r"embeddings\.safetensors: expected 10 rows of finite numbers"):
        build(WithCodes(), clusters())
    assert not PATHS.codes.exists()


def test_an_unreadable_embedding_file_is_named(embedded):
    PATHS.embeddings.write_bytes(b"not a tensor file")
    with pytest.raises(UserError, match=r"embeddings\.safetensors: not a safetensors file"):
        build(WithCodes(), clusters())


def test_missing_inputs_are_named(project):
    write_items(["x"])
    with pytest.raises(UserError, match=r"embeddings\.safetensors: not found"):
        build(WithCodes(), clusters())
    with pytest.raises(UserError, match=r"codes\.json: not found"):
        build(WithCodes(), published())


def test_published_codes_follow_the_raw_ids(project):
    write_items(["7", "5", "6"])
    write_published({"5": ["<a_1>", "<b_0>"], "6": ["<a_2>", "<b_9>"], "7": ["<a_1>", "<b_0>"]})
    build(WithCodes(), published())
    assert ItemCodes.read(verified(PATHS.codes)).codes.tolist() == [[1, 0], [1, 0], [2, 9]]
    assert load_file(verified(PATHS.codebooks)) == {}
    assert report()["relative_reconstruction_error"] is None
    assert report()["items_sharing_a_code"] == 2

    build(WithCodes(), published("extra"))
    assert ItemCodes.read(PATHS.codes).codes.tolist() == [[1, 0, 0], [1, 0, 1], [2, 9, 0]]
    assert report()["items_moved"] == 1


def test_the_codes_of_a_larger_catalogue_are_enough(project, capsys):
    """As after a stricter filter: unused codes are counted and reported."""
    write_items(["7", "5"])
    write_published({"5": ["<a_1>"], "6": ["<a_2>"], "7": ["<a_3>"], "8": ["<a_4>"]})
    build(WithCodes(), published())
    assert ItemCodes.read(PATHS.codes).codes.tolist() == [[3], [1]]
    assert report()["file"] == {
        "file": "data/toy/raw/codes.json", "rows": 4, "rows_of_no_item": 2, "example_of_no_item": "6"
    }  # fmt: skip
    assert "codes.json: 4 rows, of which 2 belong to no item (such as '6')" in capsys.readouterr().err


def own_codes(path, **changes):
    return FileCodes(method="file", path=path, **changes)


def test_own_codes_of_any_source(project):
    write_items(["B07", "B05", "B06"])
    index = {"B05": ["<a_1>", "<b_0>"], "B06": ["<a_2>", "<b_9>"], "B07": ["<a_1>", "<b_0>"]}
    Path("index.json").write_text(json.dumps(index))
    build(SOURCES["csv"](source="csv", path="x.csv", recipe="r", codes="c"), own_codes("index.json"))
    expected = [[1, 0], [1, 0], [2, 9]]
    assert ItemCodes.read(verified(PATHS.codes)).codes.tolist() == expected
    record = json.loads((PATHS.folder / "codes.provenance.json").read_text())
    assert set(record["inputs"]) == {str(PATHS.items), "index.json"}
    assert report()["shared_codes"] == 1
    assert report()["largest_group_example"] == {"code": "<a_1><b_0>", "items": ["B07", "B05"]}

    table = pd.DataFrame({"level_2": [9, 0, 0], "asin": ["B06", "B07", "B05"], "level_1": [2, 1, 1]})
    table.to_parquet("codes.parquet")
    build(WithCodes(), own_codes("codes.parquet", item="asin"))
    assert ItemCodes.read(PATHS.codes).codes.tolist() == expected
    build(WithCodes(), own_codes("codes.parquet", item="asin", collisions="extra"))
    assert ItemCodes.read(PATHS.codes).codes.tolist() == [[1, 0, 0], [1, 0, 1], [2, 9, 0]]


def test_own_codes_that_are_not_there_are_named(project):
    write_items(["a"])
    with pytest.raises(UserError, match=r"^index\.json: not found; name an existing file in params\.yaml"):
        build(WithCodes(), own_codes("index.json"))


def test_own_codes_cannot_be_reassigned_and_have_a_known_form():
    with pytest.raises(ValidationError, match="'keep' or 'extra'"):
        own_codes("index.json", collisions="reassign")
    with pytest.raises(ValidationError, match=r"ends in \.parquet, \.json, found 'codes\.csv'"):
        own_codes("codes.csv")


def test_published_codes_cannot_be_reassigned():
    with pytest.raises(ValidationError, match="'keep' or 'extra'"):
        published("reassign")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            {"0": ["<a_1>"]},
            r"codes\.json: has no entry for 1 of the 2 items, such as '1'; ids in the file look like '0'",
        ),
        ({"0": ["<a_1>"], "1": ["<c_1>"]}, r"codes\.json: item '1': expected a token like <a_0>"),
        ([["<a_1>"], ["<a_2>"]], "expected a JSON object of item ids and codes, found a list"),
    ],
)
def test_published_codes_of_other_items_are_refused(project, codes, message):
    write_items(["0", "1"])
    write_published(codes)
    with pytest.raises(UserError, match=message):
        build(WithCodes(), published())
    assert not PATHS.codes.exists()


def test_released_office_codes(release, project):
    source = SOURCES["release"](source="release", name="Office", recipe="paper", codes="published")
    source.download(PATHS.raw, release.parent)
    expected = json.loads((release / "Office" / "Office.index.rq-kmeans.json").read_text())
    write_items(list(expected))
    build(source, published())
    codes = ItemCodes.read(PATHS.codes)
    spelled = [[codes.vocabulary[token] for token in row] for row in codes.tokens]
    assert spelled == list(expected.values())
    assert report()["items_beyond_distinct_codes"] == 5
