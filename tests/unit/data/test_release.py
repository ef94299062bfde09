"""The authors' files: sizes of the paper's Table 2 and the released ids, where a mirror has them."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from apao.data.histories import Histories
from apao.data.release import FILES, Release
from apao.errors import UserError
from apao.files import verified
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

MIRROR = os.environ.get("APAO_MIRROR")
needs_mirror = pytest.mark.skipif(MIRROR is None, reason="APAO_MIRROR names no copy of the release")

# users, items, interactions, density in percent: Table 2 of the paper
TABLE2 = {
    "Office": (4905, 2420, 53258, 0.45),
    "Grocery": (14681, 8713, 151254, 0.12),
    "Beauty": (22363, 12101, 198502, 0.07),
    "Yelp": (30431, 20033, 316354, 0.05),
}


def source(name, **keys):
    text = {"text": ["title", "description"]} if name == "Yelp" else {}
    return Release.model_validate({"source": "release", "name": name, "recipe": "r", "codes": "c", **text, **keys})


@needs_mirror
@pytest.mark.parametrize("name", TABLE2)
def test_sizes_and_ids_are_those_of_the_release(project, name):
    download(name, source(name), Path(MIRROR))
    preprocess(name, source(name))
    paths = DatasetPaths(name)
    stats = json.loads(paths.stats.read_text())
    assert tuple(stats[key] for key in ("users", "items", "interactions", "density_percent")) == TABLE2[name]
    assert stats["raw_interactions"] == stats["interactions"]
    released = json.loads((Path(MIRROR) / f"data/{name}/{name}.inter.json").read_text())
    assert list(released) == [str(user) for user in range(len(released))]
    histories = Histories.load(paths.interactions)
    assert np.diff(histories.offsets).tolist() == [len(items) for items in released.values()]
    assert histories.items.tolist() == [item for items in released.values() for item in items]
    catalogue = pd.read_parquet(paths.items)
    assert catalogue["raw_id"].tolist() == [str(item) for item in range(len(catalogue))]
    codes = json.loads(verified(source(name).published_codes(paths.raw)).read_text())
    assert sorted(codes, key=int) == catalogue["raw_id"].tolist()
    examples = len(histories.training_examples()[0])
    assert examples == sum(len(items) - 3 for items in released.values())
    if name == "Office":
        assert examples == 38_543


@needs_mirror
def test_item_texts(project):
    download("office", source("Office"), Path(MIRROR))
    raw = source("Office", text=["brand", "title"]).read(DatasetPaths("office").raw)
    assert raw.items.columns.tolist() == ["item", "brand", "title"]
    assert raw.items.iloc[0].tolist() == ["0", "VTech", "VTECH CS6114 DECT 6.0 Cordless Phone, White/Grey, 1 Handset"]


@pytest.fixture
def partial_mirror(tmp_path):
    """A mirror of Office's interactions and codes only."""
    folder = tmp_path / "mirror"
    for name in ("Office.inter.json", "Office.index.rq-kmeans.json"):
        target = folder / "data" / "Office" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(MIRROR) / "data" / "Office" / name, target)
    return folder


@needs_mirror
def test_item_texts_are_optional(project, partial_mirror, capsys):
    download("office", source("Office"), partial_mirror)
    preprocess("office", source("Office"))
    said = " ".join(capsys.readouterr().err.split())
    assert "the mirror has no data/Office/Office.item.json, so the items have no texts" in said
    assert source("Office").read(DatasetPaths("office").raw).items is None
    assert json.loads(DatasetPaths("office").stats.read_text())["items_without_text"] == 2420


@needs_mirror
def test_interactions_are_not_optional(project, partial_mirror):
    (partial_mirror / "data/Office/Office.inter.json").unlink()
    with pytest.raises(
        UserError, match=r"data/Office/Office\.inter\.json: not found, though the mirror has other files"
    ):
        download("office", source("Office"), partial_mirror)


@needs_mirror
def test_a_damaged_copy_is_named_and_replaced(project, partial_mirror):
    download("office", source("Office"), partial_mirror)
    copy = DatasetPaths("office").raw / "Office.inter.json"
    content = bytearray(copy.read_bytes())
    content[1000] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError, match=r"raw/Office\.inter\.json: its content changed"):
        preprocess("office", source("Office"))
    download("office", source("Office"), partial_mirror)
    preprocess("office", source("Office"))


def test_a_wrong_mirror_file_is_named(project, tmp_path):
    wrong = tmp_path / "data" / "Office" / "Office.inter.json"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("{}")
    with pytest.raises(UserError, match=r"Office\.inter\.json: not the expected file: expected 799708 bytes, found 2"):
        download("office", source("Office"), tmp_path)
    assert not DatasetPaths("office").manifest.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("inter", "[]", "expected a JSON object"),
        ("inter", '{"0": 5}', "0: Input should be a valid list, found 5"),
        ("inter", '{"0": [1, "2"]}', "0.1: Input should be a valid integer, found '2'"),
        ("inter", '{"0": [-1]}', "0.0: Input should be greater than or equal to 0, found -1"),
        ("inter", f'{{"0": [1{"0" * 400}]}}', "0.0: "),
        ("item", '{"0": "a title"}', "0: "),
        ("item", "3", ""),
    ],
)
def test_files_of_another_shape_are_named(tmp_path, file, content, message):
    (tmp_path / "Office.inter.json").write_text('{"0": [0, 1]}')
    (tmp_path / "Office.item.json").write_text(r'{"0": {"title": "\ud800", "brand": 5}}')
    assert source("Office").read(tmp_path).items.to_numpy().tolist() == [["0", "?", "", "", ""]]
    (tmp_path / f"Office.{file}.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(f"Office.{file}.json: {message}")):
        source("Office").read(tmp_path)


def test_every_file_is_known_by_a_hash():
    for name in TABLE2:
        for kind in ("inter", "item", "index.rq-kmeans"):
            expected = FILES[f"data/{name}/{name}.{kind}.json"]
            assert expected.sha256 is not None or expected.git_blob is not None


@pytest.mark.parametrize("keys", [{"name": "Books"}, {"text": ["titel"]}, {"name": "Yelp", "text": ["brand"]}])
def test_unknown_names_are_rejected(keys):
    with pytest.raises(ValidationError):
        source(**{"name": "Office", **keys})
