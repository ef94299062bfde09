"""Files of vectors: every form gives the rows that were written; every error names its place."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from apao.codes.embedders import VectorFile
from apao.codes.given import joined
from apao.codes.vectors import read_vectors
from apao.errors import UserError
from apao.files import verified
from apao.stages.embed import embed
from apao.study.paths import DatasetPaths

CPU = torch.device("cpu")

PATHS = DatasetPaths("toy")
ITEMS = ["10", "9", "x y"]
ROWS = np.array([[0.5, -1.0], [2.0, 0.25], [-3.0, 4.0]], dtype=np.float32)


@pytest.fixture(autouse=True)
def _catalogue(project):
    PATHS.folder.mkdir(parents=True)
    pd.DataFrame({"item": range(3), "raw_id": ITEMS, "text": ["", "a", "b"]}).to_parquet(PATHS.items)


def write_ids(ids, suffix=".txt"):
    path = Path(f"ids{suffix}")
    if suffix == ".txt":
        path.write_text("\n".join(ids) + "\n", encoding="utf-8-sig")
    elif suffix == ".json":
        path.write_text(json.dumps(ids))
    else:
        np.save(path, np.array(ids))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".json", ".npy"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy_with_ids(suffix, dtype):
    np.save("vectors.npy", ROWS.astype(dtype))
    ids, vectors = read_vectors(VectorFile(file="vectors.npy", ids=write_ids(ITEMS, suffix)))
    assert ids == ITEMS and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, ROWS)


def test_whole_numbers_are_ids():
    np.save("vectors.npy", ROWS)
    for suffix in (".json", ".npy"):
        assert read_vectors(VectorFile(file="vectors.npy", ids=write_ids([10, 9, -3], suffix)))[0] == ["10", "9", "-3"]


def test_parquet_with_lists_or_columns():
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)):
        table = pa.table({"asin": ITEMS, "vector": pa.array(ROWS.tolist(), type=kind)})
        # Several row groups are several chunks.
        pq.write_table(table, "vectors.parquet", row_group_size=2)
        ids, vectors = read_vectors(VectorFile(file="vectors.parquet", item="asin"))
        assert ids == ITEMS
        np.testing.assert_array_equal(vectors, ROWS)
    pd.DataFrame({"d0": ROWS[:, 0], "item": [10, 9, 8], "d1": ROWS[:, 1]}).to_parquet("vectors.parquet")
    ids, vectors = read_vectors(VectorFile(file="vectors.parquet"))
    assert ids == ["10", "9", "8"]
    np.testing.assert_array_equal(vectors, ROWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_safetensors_with_ids_in_the_metadata_or_beside(dtype):
    tensor = torch.from_numpy(ROWS).to(dtype)
    save_torch({"anything": tensor}, "vectors.safetensors", metadata={"ids": json.dumps(ITEMS)})
    ids, vectors = read_vectors(VectorFile(file="vectors.safetensors"))
    assert ids == ITEMS
    np.testing.assert_array_equal(vectors, ROWS)
    save_torch({"embeddings": tensor, "other": tensor + 1}, "vectors.safetensors")
    ids, vectors = read_vectors(VectorFile(file="vectors.safetensors", ids=write_ids(ITEMS)))
    assert ids == ITEMS
    np.testing.assert_array_equal(vectors, ROWS)


def test_the_stage_joins_by_raw_id(capsys):
    """The file has the items in another order, and one more."""
    np.save("vectors.npy", np.vstack([ROWS[::-1], [[7, 7]]]))
    write_ids([*ITEMS[::-1], "more"])
    embed("toy", VectorFile(file="vectors.npy", ids="ids.txt"), CPU)
    np.testing.assert_array_equal(load_file(verified(PATHS.embeddings))["embeddings"], ROWS)
    assert json.loads(PATHS.embedding_facts.read_text()) == {
        "items": 3, "width": 2, "distinct_vectors": 3, "largest_group_with_one_vector": 1,
        "item_of_largest_group": None, "file": "vectors.npy", "rows": 4, "rows_of_no_item": 1,
        "example_of_no_item": "more",
    }  # fmt: skip
    record = json.loads((PATHS.folder / "embed.provenance.json").read_text())
    assert set(record["inputs"]) == {str(PATHS.items), "vectors.npy", "ids.txt"}
    said = capsys.readouterr().err
    assert "toy: vectors.npy: 4 rows, of which 1 belong to no item (such as 'more')" in said
    assert "toy: 3 items, 2 numbers each; 3 distinct vectors" in said and "warning" not in said


def test_items_with_one_vector_are_a_warning(capsys):
    rows = np.zeros((3, 2), dtype=np.float32)
    rows[1] *= -1  # -0.0 is the same number
    save_file({"v": rows}, "vectors.safetensors", {"ids": json.dumps(ITEMS)})
    embed("toy", VectorFile(file="vectors.safetensors"), CPU)
    facts = json.loads(PATHS.embedding_facts.read_text())
    assert (facts["distinct_vectors"], facts["largest_group_with_one_vector"]) == (1, 3)
    assert "warning: toy: 3 of 3 items (100.0 %) have the same vector, that of '10'" in capsys.readouterr().err


def npy(rows, ids):
    def write():
        np.save("vectors.npy", rows)
        return VectorFile(file="vectors.npy", ids=ids if isinstance(ids, str) else write_ids(ids))

    return write


def parquet(**columns):
    def write():
        pd.DataFrame(columns).to_parquet("vectors.parquet")
        return VectorFile(file="vectors.parquet")

    return write


def tensors(found, **metadata):
    def write():
        save_file(found, "vectors.safetensors", metadata)
        return VectorFile(file="vectors.safetensors")

    return write


def written(name, content, **keys):
    def write():
        Path(name).write_bytes(content)
        return VectorFile(file=name, **keys)

    return write


def ids_file(name, content):
    def write():
        np.save("vectors.npy", ROWS)
        Path(name).write_bytes(content)
        return VectorFile(file="vectors.npy", ids=name)

    return write


def npy_of(values):
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


class Explosive:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


OBJECTS = np.array([Explosive()], dtype=object)
BROKEN = np.where([[False], [True], [False]], np.nan, ROWS)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (npy(ROWS, ITEMS[:2]), r"ids\.txt: has 2 item ids for the 3 rows of vectors\.npy"),
        (npy(ROWS, ["10", "9", "9"]), r"vectors\.npy: rows 1 and 2 both have the item id '9'"),
        (npy(ROWS, ["10", "B9", "B8"]), r"vectors\.npy: has no entry for 2 of the 3 items, such as '9'; .*like '10'"),
        (npy(ROWS[:, 0], ITEMS), r"vectors\.npy: expected floating-point numbers .* found float32 of shape \(3,\)"),
        (npy(ROWS[:, :0], ITEMS), r"vectors\.npy: expected floating-point numbers .* shape \(3, 0\)"),
        (npy(ROWS.astype(int), ITEMS), r"vectors\.npy: expected floating-point numbers .* found int64"),
        (npy(BROKEN, ITEMS), r"vectors\.npy: row 1 \(item '9'\) contains a number that is not finite"),
        (npy(ROWS.astype(np.float64) * 1e39, ITEMS), r"vectors\.npy: row 0 .* not finite, as do 2 other rows"),
        (npy(OBJECTS, ITEMS), r"vectors\.npy: not a \.npy array of numbers.*Python objects"),
        (npy(ROWS, "none.txt"), r"none\.txt: not found; name an existing file"),
        (
            written("vectors.npy", pickle.dumps(Explosive()), ids="vectors.npy"),
            r"vectors\.npy: not a \.npy array",
        ),
        (ids_file("ids.txt", b"10\n\n9\n"), r"ids\.txt:2: the line is empty; expected one item id per line"),
        (ids_file("ids.txt", b"10\n\xff\n9\n"), r"ids\.txt: not UTF-8"),
        (ids_file("ids.json", b'{"10": 0}'), r"ids\.json: expected a list of item ids, found a dict"),
        (ids_file("ids.json", b'["10", 9.5, "x"]'), r"ids\.json: entry 1 is 9.5; expected an item id"),
        (ids_file("ids.json", b'["10", true, "x"]'), r"ids\.json: entry 1 is True"),
        (ids_file("ids.json", b'["10",'), r"ids\.json: not valid JSON"),
        (
            ids_file("ids.npy", npy_of(ITEMS).replace(b"1\0\0\0", b"\xff" * 4)),
            r"ids\.npy: contains invalid characters",
        ),
        (ids_file("ids.npy", b"\x93NUMPY"), r"ids\.npy: not a \.npy array of strings or whole numbers"),
        (parquet(item=ITEMS, a=[0.5, None, 1.0]), r"vectors\.parquet: row 1 \(item '9'\) contains .* not finite"),
        (parquet(item=ITEMS, a=[0.5, 1.0, 1.0], title=ITEMS), r"vectors\.parquet: the column 'title' contains"),
        (
            parquet(item=ITEMS, v=[[1.0], [1.0, 2.0], [3.0]]),
            r"vectors\.parquet: row 1 has 2 numbers in 'v', row 0 has 1",
        ),
        (parquet(item=ITEMS, v=[[1.0], None, [3.0]]), r"vectors\.parquet: row 1 has 0 numbers in 'v', row 0 has 1"),
        (parquet(item=ITEMS, v=[[1.0], [None], [3.0]]), r"vectors\.parquet: row 1 \(item '9'\) contains .* not finite"),
        (parquet(item=ITEMS, v=[["a"], ["b"], ["c"]]), r"vectors\.parquet: the lists of 'v' contain"),
        (parquet(item=ITEMS), r"vectors\.parquet: has no column of vectors"),
        (tensors({"a": ROWS}), r"vectors\.safetensors: has no `ids` \(a JSON list\) in its metadata"),
        (tensors({"a": ROWS}, ids="[1,"), r"vectors\.safetensors: `ids` in its metadata is not valid JSON"),
        (tensors({"a": ROWS}, ids="{}"), r"vectors\.safetensors: metadata `ids`: expected a list"),
        (tensors({"a": ROWS, "b": ROWS}, ids="[]"), r"vectors\.safetensors: has the tensors a, b; expected one"),
        (tensors({"a": ROWS}, ids="[]"), r"vectors\.safetensors: has 0 item ids for the 3 rows"),
        (written("vectors.safetensors", b"no"), r"vectors\.safetensors: not a safetensors file"),
    ],
)
def test_mistakes_are_named(write, message):
    params = write()
    with pytest.raises(UserError, match=rf"^{message}"):
        embed("toy", params, CPU)
    assert not PATHS.embeddings.exists() and not Path("exploded").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"file": "v.npy"}, "has no item ids; name a file of ids in the key ids"),
        ({"file": "v.npz", "ids": "i.txt"}, r"ends in \.npy, \.parquet, \.safetensors, found 'v\.npz'"),
        ({"file": "v.npy", "ids": "i.pkl"}, r"ends in \.txt, \.json, \.npy, found 'i\.pkl'"),
        ({"file": "v.parquet", "ids": "i.txt"}, "remove the key ids and name the column in item"),
    ],
)
def test_what_params_refuse(keys, message):
    with pytest.raises(ValidationError, match=message):
        VectorFile(**keys)


@given(st.permutations([f"i{n}" for n in range(8)]), st.integers(0, 8))
def test_join(ids, items):
    """Every item has its own row; missing ones are listed in the order of the file."""
    wanted = [f"i{n}" for n in range(items)]
    join = joined(ids, wanted, Path("file"), PATHS.items)
    assert [ids[row] for row in join.rows] == wanted
    assert list(join.unused) == [name for name in ids if name not in wanted]
