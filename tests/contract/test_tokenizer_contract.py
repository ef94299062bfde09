"""Contract of ``codes.tokenizers.base``, for every registered tokenizer."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from apao.codes.coding import Coding, relative_errors
from apao.codes.collisions import CollisionPolicy, apply_policy
from apao.codes.itemcodes import ItemCodes
from apao.codes.quality import quality
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, Tokenizer
from apao.data.base import Source
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import verified
from apao.stages.codes import build_codes
from apao.study.paths import DatasetPaths

PATHS = DatasetPaths("shop")
CPU = torch.device("cpu")
ITEMS = 40
RAW_IDS = [f"B{item:03d}" for item in range(ITEMS)]
EMBEDDINGS = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
EMBEDDINGS[30:34] = EMBEDDINGS[3]
GIVEN = {raw_id: [f"<a_{item % 3}>", f"<b_{item % 11}>"] for item, raw_id in enumerate([*RAW_IDS, "unknown"])}
SMALL = {"levels": 2, "clusters": 4, "epochs": 30}
"""Sizes with few codes, so that items collide, and short trainings."""


class Shop(Source):
    """A source that publishes item codes."""

    source: Literal["shop"] = "shop"
    recipe: str = "small"
    codes: str = "some"
    text: tuple[str, ...] = ()

    publishes_codes: ClassVar[bool] = True

    def download(self, folder, mirror):
        raise NotImplementedError

    def read(self, folder):
        raise NotImplementedError

    def published_codes(self, folder: Path) -> Path:
        return folder / "codes.json"


@pytest.fixture(autouse=True)
def _shop(tmp_path, monkeypatch):
    """The files of a dataset that a tokenizer may read, below the working directory."""
    monkeypatch.chdir(tmp_path)
    PATHS.raw.mkdir(parents=True)
    pd.DataFrame({"item": range(ITEMS), "raw_id": RAW_IDS, "text": "a thing"}).to_parquet(PATHS.items)
    save_file({"embeddings": EMBEDDINGS}, PATHS.embeddings)
    for path in (Path("own.json"), PATHS.raw / "codes.json"):
        path.write_text(json.dumps(GIVEN))


OTHER_WAYS = [("rq-kmeans", {"mini_batches": 30}), ("rq-kmeans", {"balanced": True}), ("pq", {"rotation": "pca"})]
"""Tokenizers with values of their optional keys with which they fit in another way."""


@pytest.fixture(
    params=[*((name, {}) for name in TOKENIZERS), *OTHER_WAYS], ids=lambda entry: "-".join([entry[0], *entry[1]])
)
def entry(request) -> tuple[str, dict]:
    return request.param


@pytest.fixture
def cls(entry) -> type[Tokenizer]:
    return TOKENIZERS[entry[0]]


@pytest.fixture
def tokenizer(cls, entry) -> Tokenizer:
    """An entry with its required keys and small sizes."""
    values = entry[1] | {name: value for name, value in SMALL.items() if name in cls.model_fields}
    for name, field in cls.model_fields.items():
        if name == "method":
            values[name] = field.annotation.__args__[0]
        elif field.is_required():
            values[name] = "own.json" if field.annotation is Path else "some"
    return cls(**values)


def policies(tokenizer: Tokenizer) -> list[CollisionPolicy]:
    return list(get_args(type(tokenizer).model_fields["collisions"].annotation))


def changed(tokenizer: Tokenizer, **values) -> Tokenizer:
    return type(tokenizer).model_validate({**tokenizer.model_dump(), **values})


def inputs_of(tokenizer: Tokenizer) -> Inputs:
    """The declared inputs and nothing else."""
    return Inputs(
        RAW_IDS,
        PATHS.items,
        Path("unfinished"),
        CPU,
        EMBEDDINGS.copy() if tokenizer.reads_embeddings else None,
        PATHS.raw / "codes.json" if tokenizer.reads_published else None,
    )


def fitted(tokenizer: Tokenizer) -> Coding:
    """Fitted from the start: one that resumes would find the result of the fit before in its folder."""
    shutil.rmtree("unfinished", ignore_errors=True)
    return tokenizer.fit(inputs_of(tokenizer))


def distinct(codes: np.ndarray) -> int:
    return len(np.unique(codes, axis=0))


def test_documented_and_in_the_schema(cls, tokenizer, definitions):
    assert cls.__dict__["__doc__"] and sys.modules[cls.__module__].__doc__
    entries = definitions["properties"]["codes"]["additionalProperties"]
    assert entries["discriminator"]["mapping"][tokenizer.method] == f"#/$defs/{cls.__name__}"
    fields = definitions["$defs"][cls.__name__]["properties"]
    assert not [name for name, field in fields.items() if name != "method" and not field.get("description")]
    assert cls.enlarged_by is None or cls.enlarged_by in fields


def test_parameters_survive_json(tokenizer):
    assert type(tokenizer).model_validate(json.loads(tokenizer.model_dump_json())) == tokenizer


def test_what_it_reads_is_declared(cls, tokenizer):
    assert cls.model_fields["embedder"].is_required() == cls.reads_embeddings
    read = PATHS.coded_from(tokenizer)
    assert (PATHS.embeddings in read, PATHS.raw_hash in read) == (cls.reads_embeddings, cls.reads_published)
    assert set(tokenizer.own_files()) <= set(read)


def test_every_item_gets_a_code(tokenizer):
    coding = fitted(tokenizer)
    assert coding.codes.dtype == np.int64 and coding.codes.min() >= 0
    assert len(coding.codes) == ITEMS and 1 <= coding.codes.shape[1] <= 25
    json.dumps(coding.facts, allow_nan=False)
    assert not set(coding.facts) & set(quality(ItemCodes(coding.codes)))
    assert all(isinstance(note, str) and note.isprintable() for note in coding.notes)


def test_codebooks_approximate_vectors(tokenizer):
    coding = fitted(tokenizer)
    assert (coding.vectors is None) == (not coding.codebooks) == (coding.relative_errors is None)
    if coding.vectors is not None:
        assert len(coding.codebooks) == coding.codes.shape[1] and len(coding.vectors) == ITEMS
        for codebook, codes in zip(coding.codebooks, coding.codes.T, strict=True):
            assert codebook.shape[1] == coding.vectors.shape[1] and codes.max() < len(codebook)
            assert np.isfinite(codebook).all()
        assert coding.relative_errors[-1] < 1


def test_items_that_were_not_fitted(tokenizer):
    """The fitted items as if they were new: about as good codes by the codebooks, the same ones from a file."""
    inputs, coding = inputs_of(tokenizer), fitted(tokenizer)
    if not coding.codebooks and type(tokenizer).code_new is Tokenizer.code_new:
        with pytest.raises(UserError, match="cannot be given to new items"):
            tokenizer.code_new(inputs, coding.codebooks)
        return
    if tokenizer.reads_embeddings and coding.codebooks:
        inputs = replace(inputs, vectors=tokenizer.encoded(EMBEDDINGS, coding.encoder))
        np.testing.assert_allclose(inputs.vectors, coding.vectors)
    codes = tokenizer.code_new(inputs, coding.codebooks)
    assert codes.shape == coding.codes.shape and codes.dtype == np.int64
    if coding.codebooks:
        assert relative_errors(coding.vectors, codes, coding.codebooks)[-1] <= 1.05 * coding.relative_errors[-1]
    else:
        assert np.array_equal(codes, coding.codes)


def test_the_same_inputs_and_seed_give_the_same_codes(tokenizer):
    one, other = fitted(tokenizer), fitted(tokenizer)
    assert np.array_equal(one.codes, other.codes) and one.facts == other.facts
    assert all(np.array_equal(a, b) for a, b in zip(one.codebooks, other.codebooks, strict=True))
    if "seed" in type(tokenizer).model_fields:
        another = fitted(changed(tokenizer, seed=tokenizer.seed + 1))
        assert another.codes.shape == one.codes.shape
        pairs = [(another.codes, one.codes), *zip(another.codebooks, one.codebooks, strict=True)]
        assert not all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("policy", get_args(CollisionPolicy))
def test_there_are_no_more_levels_and_codes_than_stated(tokenizer, policy):
    if policy not in policies(tokenizer):
        pytest.skip(f"{tokenizer.method} does not take {policy}")
    tokenizer = changed(tokenizer, collisions=policy)
    sizes, coding = tokenizer.sizes, fitted(tokenizer)
    final = apply_policy(coding, policy, sizes)[0].codes
    if sizes is None:
        assert tokenizer.depth in (None, final.shape[1]) and tokenizer.capacity is None
    else:
        assert len(sizes) == coding.codes.shape[1] and (coding.codes < sizes).all()
        assert tokenizer.depth == final.shape[1]
        assert (tokenizer.capacity is None) == (policy == "extra")
        assert tokenizer.capacity is None or distinct(final) <= tokenizer.capacity


def test_collision_policies(tokenizer):
    """The policy ``reassign`` is available if and only if there are codebooks."""
    coding = fitted(tokenizer)
    assert ("reassign" in policies(tokenizer)) == bool(coding.codebooks)
    assert {"keep", "extra"} <= set(policies(tokenizer))
    for policy in policies(tokenizer):
        final, moved = apply_policy(coding, policy, tokenizer.sizes)
        assert moved.shape == (ITEMS,) and moved.dtype == bool
        if policy == "keep":
            assert final is coding and not moved.any()
        elif policy == "extra":
            assert distinct(final.codes) == ITEMS and np.array_equal(final.codes[:, :-1], coding.codes)
        else:
            assert np.array_equal(final.codes[~moved], coding.codes[~moved])
            assert np.array_equal(final.codes[:, :-1], coding.codes[:, :-1])
            assert distinct(final.codes) == distinct(coding.codes) + moved.sum()


def test_the_stage_writes_codes_and_their_quality(tokenizer):
    for policy in policies(tokenizer):
        entry = changed(tokenizer, collisions=policy)
        build_codes("shop", Shop(), entry, DecodingParams(beam="all"), CPU)
        codes, books = ItemCodes.read(verified(PATHS.codes)), load_file(verified(PATHS.codebooks))
        coding = fitted(entry)
        final, moved = apply_policy(coding, policy, entry.sizes)
        assert np.array_equal(codes.codes, final.codes)
        encoder = {f"encoder.{name}" for name in coding.encoder}
        assert set(books) == {f"level_{level + 1}" for level in range(len(final.codebooks))} | encoder
        report = json.loads(verified(PATHS.code_quality).read_text())
        before = report.pop("before_collision_policy")
        assert (before is None) == (not moved.any())
        expected = {"collision_policy": policy, "items_moved": moved.sum(), **quality(codes, final.relative_errors)}
        assert report == {**expected, "largest_group_example": report["largest_group_example"], **coding.facts}
        record = json.loads((PATHS.folder / "codes.provenance.json").read_text())
        assert record["params"] == json.loads(entry.model_dump_json()) and record["device"] == "cpu"
        own = {str(path) for path in (PATHS.items, *entry.own_files())}
        assert own <= set(record["inputs"]) and (str(PATHS.embeddings) in record["inputs"]) == entry.reads_embeddings


def test_what_was_left_unfinished_is_removed(tokenizer):
    (PATHS.folder / "codes.unfinished" / "0123").mkdir(parents=True)
    build_codes("shop", Shop(), tokenizer, DecodingParams(beam="all"), CPU)
    assert not (PATHS.folder / "codes.unfinished").exists()


def test_entries_of_params_yaml(params):
    """Every entry is of a registered class, and datasets with published codes have a source that publishes some."""
    for name, entry in params.codes.items():
        assert TOKENIZERS[entry.method] is type(entry), name
    for name, source in params.datasets.items():
        assert source.publishes_codes or not params.tokenizer_of(name).reads_published, name


def test_an_input_that_is_not_declared_is_not_there():
    inputs = Inputs(RAW_IDS, PATHS.items, Path("unfinished"), CPU)
    with pytest.raises(ValueError, match="must declare reads_embeddings = True"):
        _ = inputs.embeddings
    with pytest.raises(ValueError, match="must declare reads_published = True"):
        _ = inputs.published
