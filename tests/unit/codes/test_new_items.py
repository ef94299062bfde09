"""Items that a dataset does not have: coded by its codebooks, and recommended by a model that never met them."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import run_params
from helpers.project import ROOT, TOY
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

import apao
from apao.codes.coding import nearest_codes
from apao.codes.collisions import placed, reassigned
from apao.codes.embedders import EmbedderParams, VectorFile
from apao.codes.itemcodes import ItemCodes
from apao.codes.items import ItemTable
from apao.codes.tokenizers.base import TOKENIZERS
from apao.codes.tokenizers.rqkmeans import residual_kmeans
from apao.data.table import Table
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import read_record, record_path
from apao.stages import new_items
from apao.stages.codes import build_codes
from apao.stages.new_items import _check_tokens, _read, _vectors, code_new_items
from apao.stages.train import train
from apao.study.runs import Run

CPU = torch.device("cpu")


def test_nearest_codes_by_plain_loops():
    rng = np.random.default_rng(0)
    vectors, books = rng.normal(size=(20, 5)), [rng.normal(size=(rows, 5)) for rows in (3, 4, 2)]
    books[1][2] = 0  # as of the items that are alone in their cluster of the level before
    for left, code in zip(vectors, nearest_codes(vectors, books), strict=True):
        for book, token in zip(books, code, strict=True):
            assert token == np.argmin([np.square(left - row).sum() for row in book])
            left = left - book[token]  # noqa: PLW2901


def test_items_in_clusters_of_their_own_are_found_again():
    vectors = np.repeat(np.eye(6), 5, axis=0) + np.random.default_rng(1).normal(0, 0.01, (30, 6))
    old, new = np.arange(30) % 5 > 0, np.arange(30) % 5 == 0
    coding = residual_kmeans(vectors[old], levels=2, clusters=6)
    codes = nearest_codes(vectors[new], coding.codebooks)
    first_of_cluster = coding.codes[:, 0].reshape(6, 4)
    assert (codes[:, 0] == first_of_cluster[:, 0]).all() and (first_of_cluster == first_of_cluster[:, :1]).all()


def test_the_items_of_a_catalogue_that_has_few_more_than_codes_are_found_again():
    """Most are alone in their cluster, so what is left of them is zero, and so is a centroid of the next level."""
    vectors = np.random.default_rng(3).normal(size=(100, 24))
    coding = residual_kmeans(vectors, levels=3, clusters=64)
    assert any((book == 0).all(axis=1).any() for book in coding.codebooks[1:])
    codes = reassigned(coding.codes, coding.vectors, coding.codebooks, most=64)
    assert (codes == coding.codes).all() and (nearest_codes(vectors, coding.codebooks) == codes).all()


few_codes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=9)
with_tokens_beyond = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=9)


@given(with_tokens_beyond, few_codes)
def test_policies_beside_a_catalogue(known, new):
    rng = np.random.default_rng(2)
    books = [rng.normal(size=(2, 4)), rng.normal(size=(3, 4))]
    known, new = (np.array(codes, dtype=np.int64) for codes in (known, new))
    vectors = books[0][new[:, 0]] + books[1][new[:, 1]] + rng.normal(0, 0.1, (len(new), 4))
    assert placed(new, known, "keep") is new

    numbered = np.column_stack([known, np.zeros(len(known), dtype=np.int64)])
    numbered[:, -1] = [(known[:item] == code).all(axis=1).sum() for item, code in enumerate(known)]
    codes = placed(new, numbered, "extra")
    for item, code in enumerate(new):
        before = (known == code).all(axis=1).sum() + (new[:item] == code).all(axis=1).sum()
        assert codes[item].tolist() == [*code, min(before, numbered[:, -1].max())]

    codes, taken = placed(new, known, "reassign", vectors, books), {tuple(code) for code in known}
    tokens = sorted({token for _, token in known.tolist()})
    for before, vector, code in zip(new.tolist(), vectors, map(tuple, codes.tolist()), strict=True):
        free = [token for token in tokens if (before[0], token) not in taken]
        if tuple(before) not in taken or not free:
            assert code == tuple(before)
        else:
            left = vector - books[0][before[0]]
            # Tokens without a row stand for no vector: only when no other is free, the lowest first.
            rows = [token for token in free if token < 3]
            best = min(rows, key=lambda token: np.square(left - books[1][token]).sum()) if rows else free[0]
            assert code == (before[0], best)
        taken.add(code)


def test_an_item_without_text_is_refused_where_texts_are_embedded(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("item,title\n 1 ,Lamp\n2, \n")
    with pytest.raises(UserError, match=r"new\.csv:3: item '2' has no text in title, so nothing to embed"):
        _read(path, ["title"], frozenset(), needs_text=True)
    assert _read(path, ["title"], frozenset(), needs_text=False)["item"].tolist() == ["1", "2"]


def test_texts_are_embedded_in_batches_and_equal_ones_once(monkeypatch):
    asked = []

    def encode(encoder, texts, embedder):
        asked.append(texts)
        return np.array([[len(text)] for text in texts])

    monkeypatch.setattr(new_items, "load_encoder", lambda *given: None)
    monkeypatch.setattr(new_items, "encode_batch", encode)
    table = pd.DataFrame({"item": list("abcd"), "title": "", "text": ["x", "yy", "x", "zzz"]})
    found = _vectors(table, EmbedderParams(model="m", batch_size=2), Path("new.csv"), "cpu")
    assert found.tolist() == [[1], [2], [1], [3]] and asked == [["x", "yy"], ["zzz"]]


def test_tokens_that_no_item_of_the_dataset_has_are_refused():
    known, ids = ItemCodes(np.array([[0, 1], [1, 0], [1, 2]])), pd.Series(["a", "b"])
    _check_tokens(np.array([[0, 2], [1, 1]]), known, ids, Path("new.csv"))
    with pytest.raises(UserError, match="item 'b' has token 2 at level 1, which no item of the dataset has"):
        _check_tokens(np.array([[0, 2], [2, 0]]), known, ids, Path("new.csv"))
    with pytest.raises(UserError, match="have 1 levels, the dataset's 2"):
        _check_tokens(np.array([[0], [1]]), known, ids, Path("new.csv"))


# --- A world of six kinds of items: after an item of one kind comes one of the next ----------------------------------

KINDS, OF_KIND, USERS = 6, 6, 80
TOKENIZER = TOKENIZERS["rq-kmeans"](
    method="rq-kmeans", embedder="mine", levels=2, clusters=KINDS, collisions="reassign"
)
RUN = Run.parse("toy/tiger/ce/seed7")


def vectors_of(names):
    """An item's vector says its kind, and a little of itself."""
    rows = [
        np.eye(KINDS + 4)[int(name[0])] + 0.1 * np.random.default_rng(int(name[1:])).normal(size=KINDS + 4)
        for name in names
    ]
    return np.array(rows, dtype=np.float32)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A dataset with its codes; beside it a file with one new item of each kind."""
    monkeypatch.chdir(tmp_path)
    TOY.folder.mkdir(parents=True)
    old = [f"{kind}{number}" for kind, number in product(range(KINDS), range(1, OF_KIND))]
    new = [f"{kind}0" for kind in range(KINDS)]
    rng = np.random.default_rng(3)
    rows = [(user, (user + step) % KINDS, step) for user in range(USERS) for step in range(9)]
    table = pd.DataFrame(rows, columns=["user", "kind", "timestamp"])
    numbers = rng.integers(0, OF_KIND - 1, len(table))
    table["item"] = table["kind"] * (OF_KIND - 1) + numbers
    table["split"] = pd.Categorical(["train"] * len(table))
    table[["user", "item", "split"]].to_parquet(TOY.interactions)
    pd.DataFrame({"item": range(len(old)), "raw_id": old, "title": old, "text": old}).to_parquet(TOY.items)
    save_file({"embeddings": vectors_of(old)}, TOY.embeddings)
    np.save("vectors.npy", vectors_of([*old, *new]))
    (tmp_path / "ids.txt").write_text("\n".join([*old, *new]))
    (tmp_path / "new.csv").write_text("item,title\n" + "".join(f"{name},New {name}\n" for name in new))
    build_codes("toy", source(), TOKENIZER, DecodingParams(beam="all"), CPU)
    return old, new


def source():
    return Table(source="csv", path="x.csv", text=("title",), recipe="r", codes="c")


def embedder():
    return VectorFile(file="vectors.npy", ids="ids.txt")


def code(name="new.csv", tokenizer=TOKENIZER):
    code_new_items("toy", ("title",), tokenizer, embedder(), Path(name), CPU)


def test_new_items_get_codes_beside_the_old_ones(world):
    old, new = world
    before = TOY.codes.read_bytes()
    code()
    assert TOY.codes.read_bytes() == before
    known, items = ItemCodes.read(TOY.codes), ItemTable.read(TOY.new_items)
    assert items.raw_ids.tolist() == new and items.titles[0] == "New 00" and not items.train_counts.any()
    for kind, found in enumerate(items.codes.codes):
        of_kind = known.codes[[int(name[0]) == kind for name in old]]
        assert found[0] == of_kind[0, 0] and found.tolist() not in of_kind.tolist()
    read = read_record(record_path(TOY.folder, "new_items"))["inputs"]
    names = {"new.csv", "vectors.npy", "ids.txt"}
    assert read.keys() == {*names, *map(str, (TOY.items, TOY.codes, TOY.codebooks, TOY.embeddings))}


def test_new_items_go_through_a_learned_encoder(world):
    """By the encoder that is kept beside the codebooks; the tokens are those of the old items of their kind."""
    old, new = world
    learned = TOKENIZERS["rq-vae"](
        method="rq-vae", embedder="mine", levels=2, clusters=KINDS, collisions="reassign", hidden=(16,), epochs=100
    )
    build_codes("toy", source(), learned, DecodingParams(beam="all"), CPU)
    code(tokenizer=learned)
    known, items = ItemCodes.read(TOY.codes), ItemTable.read(TOY.new_items)
    assert items.raw_ids.tolist() == new
    for kind, found in enumerate(items.codes.codes):
        assert found[0] in known.codes[[int(name[0]) == kind for name in old], 0]


def test_new_items_are_recommended_without_training(world):
    """For histories that go on with each kind, the new item of that kind comes first of the new ones."""
    _, new = world
    params = run_params("tiger", epochs=30, lr=1e-2, batch_size=64, decoding={"beam": "all"})
    train(RUN, params, CPU)
    code()
    model = apao.load(RUN.folder, device="cpu", new_items=TOY.new_items)
    histories = [[f"{(kind + step) % KINDS}{1 + step % 5}" for step in range(-6, 0)] for kind in range(KINDS)]
    found = model.recommend(histories, k=1, only=new)
    assert found["item"].tolist() == new
    # Among all items it is one of the six of its kind.
    whole = model.recommend(histories, k=OF_KIND + 1, keep_seen=True)
    hits = [name in set(rows["item"]) for name, (_, rows) in zip(new, whole.groupby("history"), strict=True)]
    assert sum(hits) >= 5
    # They may be part of a history, too.
    assert len(model.recommend([["10", "20"]], k=3)) == 3
    # What it says of the old ones is what it said.
    plain = apao.load(RUN.folder, device="cpu").score(histories, ["11", "22"])
    pd.testing.assert_frame_equal(model.score(histories, ["11", "22"]), plain, atol=1e-5)


MISTAKES = {
    "old.csv": ("item,title\n11,Old\n", r"old\.csv:2: item '11' is in the dataset already"),
    "twice.csv": ("item,title\n00,New\n00,New\n", r"twice\.csv:3: item '00' has a row above"),
    "blank.csv": ("item,title\n ,New\n", r"blank\.csv:2: item '' is no id"),
    "none.csv": ("item,title\n", r"none\.csv: holds no items"),
    "column.csv": ("item,name\n00,New\n", r"column\.csv:1: the header has no column 'title'"),
    "vector.csv": ("item,title\n77,New\n", r"vectors\.npy: has no entry for 1 of the 1 items, such as '77'"),
    "new.json": ("{}", r"new\.json: expected a table that ends in \.csv or \.tsv"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_file_and_line(world, tmp_path, name):
    text, message = MISTAKES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        code(name)
    with pytest.raises(UserError, match=r"absent\.csv: not found; --items names an existing table"):
        code("absent.csv")


@pytest.mark.parametrize("content", [b"", b"x" * 20, save({"level_2": np.ones((2, 2), np.float32)})])
def test_damaged_codebooks_are_named(world, content):
    TOY.codebooks.write_bytes(content)
    record_path(TOY.folder, "codes").unlink()
    with pytest.raises(UserError, match=r"codebooks\.safetensors: not the codebooks of a tokenizer"):
        code()


def test_a_quotation_mark_in_a_tsv_is_a_character(world, tmp_path, capsys):
    (tmp_path / "new.tsv").write_text('item\ttitle\n00\t"Heroes\n10\tLamp\n20\tMonitor 24"\n30\tDesk\n')
    code("new.tsv")
    assert ItemTable.read(TOY.new_items).titles.tolist() == ['"Heroes', "Lamp", 'Monitor 24"', "Desk"]
    (tmp_path / "new.csv").write_text('item,title\n00,"Heroes\n10,Lamp"\n20,Desk\n')
    code("new.csv")
    assert "warning: new.csv:2: a value in quotation marks spans lines" in " ".join(capsys.readouterr().err.split())


def test_new_items_of_other_codes_are_refused(world):
    train(RUN, run_params("tiger", epochs=1), CPU)
    other = TOKENIZER.model_copy(update={"seed": 1, "clusters": 3})
    build_codes("toy", source(), other, DecodingParams(beam="all"), CPU)
    code(tokenizer=other)
    with pytest.raises(UserError, match=r"train the run again, or restore the codes and code the items again"):
        apao.load(RUN.folder, new_items=TOY.new_items)
    # The codes of the training are back: coding the items again is all that is to be done.
    build_codes("toy", source(), TOKENIZER, DecodingParams(beam="all"), CPU)
    with pytest.raises(UserError, match="was coded beside other codes than those that toy/tiger/ce/seed7"):
        apao.load(RUN.folder, new_items=TOY.new_items)
    code()
    apao.load(RUN.folder, new_items=TOY.new_items)
    TOY.new_items.unlink()
    with pytest.raises(UserError, match=r"expected a file new_items\.parquet, .* make it: apao codes toy --items FILE"):
        apao.load(RUN.folder, new_items=TOY.new_items)


def test_new_items_must_be_new_and_known_in_tokens():
    def table(ids, codes):
        return ItemTable(
            np.array(ids, object), np.array(ids, object), ItemCodes(np.array(codes)), np.ones(len(ids), int)
        )

    items = table(["a", "b"], [[0, 0], [1, 1]])
    assert items.with_new(table(["c"], [[0, 1]]), ROOT).numbers(["c", "a", "x"]).tolist() == [2, 0, -1]
    with pytest.raises(UserError, match=re.escape(f"{ROOT}: item 'b' is already in the catalogue")):
        items.with_new(table(["b"], [[0, 1]]), ROOT)
    for codes in ([[0, 2]], [[0, 0, 0]]):
        with pytest.raises(UserError, match="holds codes that the run's vocabulary lacks"):
            items.with_new(table(["c"], codes), ROOT)
