"""A run has one spelling, which can be parsed and never leads out of results/."""

import math
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apao.errors import UserError
from apao.parameters import KEY, MAX_SEED, NAME, VALUE
from apao.study.paths import RESULTS, DatasetPaths
from apao.study.runs import Run, format_value, parse_value

names = st.from_regex(NAME, fullmatch=True)
keys = st.from_regex(KEY, fullmatch=True)
words = st.from_regex(VALUE, fullmatch=True).filter(lambda word: isinstance(parse_value(word), str))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.booleans() | numbers | words
overrides = st.dictionaries(keys, values, max_size=4).map(lambda found: tuple(sorted(found.items())))
runs = st.builds(Run, names, names, names, overrides, st.integers(0, MAX_SEED))


@given(runs)
def test_a_run_is_read_back_from_its_spelling(run):
    assert Run.parse(str(run)) == run
    assert Run.parse(f"results/{run}/") == run
    assert run.folder == Path("results", run.dataset, run.backbone, run.spelled_objective, f"seed{run.seed}")


@given(
    st.from_regex(
        rf"{NAME}/{NAME}/{NAME}(\+{KEY}=({VALUE}|-?[0-9]+(\.[0-9]*)?(e-?[0-9]{{1,3}})?)){{0,2}}/seed[0-9]{{1,10}}",
        fullmatch=True,
    )
)
@example("office/tiger/ce+lr=5e-4/seed1")
@example("office/tiger/ce+lr=0.0005/seed01")
@example("office/tiger/ce+lr=0.0005/seed1")
def test_only_the_one_spelling_is_taken(text):
    try:
        run = Run.parse(text)
    except UserError:
        return
    assert str(run) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("office/tiger/ce+lr=5e-4/seed1", "ce+lr=0.0005"),
        ("office/tiger/ce+lr=3.0e-05/seed1", "ce+lr=3e-5"),
        ("office/tiger/apao-pairwise+eta=0.1+beta=0.2/seed1", "apao-pairwise+beta=0.2+eta=0.1"),
        ("office/tiger/apao-pairwise+beta=1.0/seed1", "apao-pairwise+beta=1/"),
        ("office/tiger/apao-pairwise+beta=-0/seed1", "apao-pairwise+beta=0/"),
        ("office/tiger/apao-pairwise+negatives=007/seed1", "apao-pairwise+negatives=7"),
    ],
)
def test_another_spelling_is_answered_with_the_right_one(text, canonical):
    with pytest.raises(UserError, match=rf"write it as office/tiger/{re.escape(canonical)}"):
        Run.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "office/tiger/ce",
        "office/tiger/ce/seed",
        "office/tiger/ce/seed-1",
        "office/tiger/ce/seed01",
        "office/tiger/ce/seed1/more",
        "office/tiger/ce/seed1\n",
        "office//ce/seed1",
        "/office/tiger/ce/seed1",
        "../tiger/ce/seed1",
        "office/../ce/seed1",
        "results/../../tiger/ce/seed1",
        "office/tiger/ce+/seed1",
        "office/tiger/ce+beta=1+s-dpo/seed1",
        "office/tiger/ce+beta=/seed1",
        "office/tiger/ce+Beta=1/seed1",
        "office/tiger/ce+beta=1=2/seed1",
        "office/tiger/ce+beta=../seed1",
        "office/tiger/ce+beta=1+beta=2/seed1",
        "office/tiger/ce+lr=1e+3/seed1",
        f"office/tiger/ce/seed{MAX_SEED + 1}",
        "office/tiger/ce/seed" + "9" * 5000,
    ],
)
def test_what_names_no_run(text):
    with pytest.raises(UserError, match=r"does not name a run|gives a key twice"):
        Run.parse(text)


@given(st.text(), st.sampled_from(["{}/tiger/ce/seed1", "office/{}/ce/seed1", "office/tiger/{}/seed1", "{}"]))
@example("..", "{}/tiger/ce/seed1")
@example("a/../..", "office/{}/ce/seed1")
@example("/etc", "{}/tiger/ce/seed1")
@example("a\0b", "{}/tiger/ce/seed1")
@example("a\nb", "office/{}/ce/seed1")
@example("ce\n", "office/tiger/{}/seed1")
@example("Büro", "{}/tiger/ce/seed1")
@example("~root", "{}/tiger/ce/seed1")
@example("-rf", "{}/tiger/ce/seed1")
@example("a b;c", "{}/tiger/ce/seed1")
@example("٣", "office/tiger/ce+beta={}/seed1")
def test_no_text_leads_out_of_results(text, shape):
    try:
        run = Run.parse(shape.format(text))
    except UserError:
        return
    parts = PurePosixPath(str(run.folder)).parts
    assert len(parts) == 5 and parts[0] == str(RESULTS)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.>+=-]*", part) for part in parts)


@given(values)
def test_a_value_is_read_back_from_its_spelling(value):
    text = format_value(value)
    assert re.fullmatch(VALUE, text)
    found = parse_value(text)
    assert found == value and isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (0.2, "0.2"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e-4, "0.0001"),
        (3e-5, "3e-5"),
        (-1.5e-7, "-1.5e-7"),
        (1e22, "1e22"),
        (5e-324, "5e-324"),
        ("release", "release"),
    ],
)
def test_spelling_of_values(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(
    "word", ["nan", "inf", "-inf", "infinity", "1e999", "True", "yes", "release", "-", "1e", "0x10"]
)
def test_words_are_no_numbers(word):
    assert parse_value(word) == word


def test_numbers_keep_their_kind():
    assert [type(parse_value(text)) for text in ("1", "-3", "1e3", "1.5", "true")] == [int, int, float, float, bool]
    assert math.isclose(parse_value("1e3"), 1000.0)


def test_an_objective_as_studies_write_it():
    run = Run.of("office", "tiger", "apao-pairwise+eta=5.0e-4+beta=0.10", 3)
    assert str(run) == "office/tiger/apao-pairwise+beta=0.1+eta=0.0005/seed3"
    for spelled in ("", "ce/x", "ce+", "+beta=1", "ce beta=1", ".."):
        with pytest.raises(UserError, match="does not name an objective"):
            Run.of("office", "tiger", spelled, 1)


def test_more_overrides_replace_and_sort():
    run = Run.parse("office/tiger/apao-pairwise+beta=0.2/seed1").with_overrides(eta=1e-5, beta=0.4, ce=False)
    assert run.spelled_objective == "apao-pairwise+beta=0.4+ce=false+eta=1e-5"


def test_files_of_a_dataset_lie_below_its_folder():
    paths = DatasetPaths("office")
    found = [value for name in vars(DatasetPaths) if name != "root" and isinstance(value := getattr(paths, name), Path)]
    inside = [path for path in found if path.is_relative_to("data/office")]
    assert [path for path in found if path not in inside] == [Path("results/office/baselines/metrics.json")]
    assert len(set(found)) == len(found) == 16
