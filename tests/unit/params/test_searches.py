"""Searches in params.yaml: what is tried for which objective, and mistakes in one line each."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apao.errors import UserError
from apao.study.params import load
from apao.study.searches import DIGITS, Dimension, space_of

SEARCH = """\
searches:
  office:
    dataset: office
    backbone: llama
    objectives: [ce, pairwise]
    trials: 20
    seed: 3
    space:
      lr: {low: 1.0e-4, high: 1.0e-2, log: true}
      layers: {low: 1, high: 4}
      beta: {low: 0, high: 0.5}
      weights: {choices: [release, uniform]}
"""


@pytest.fixture
def read(tmp_path, text):
    """A function that loads the whole file with one passage of the search replaced."""

    def load_changed(old="", new=""):
        assert SEARCH.count(old) == 1 or not old
        (tmp_path / "params.yaml").write_text(text + (SEARCH.replace(old, new) if old else SEARCH))
        return load(tmp_path / "params.yaml")

    return load_changed


def test_keys_that_an_objective_does_not_have_are_left_out(read):
    params = read()
    search = params.search("office")
    assert list(space_of(params, search, "pairwise")) == ["lr", "layers", "beta", "weights"]
    assert list(space_of(params, search, "ce")) == ["lr", "layers"]
    with pytest.raises(UserError, match="unknown search 'offise'; did you mean 'office'"):
        params.search("offise")


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("trials:", "trails:", "trails", "unknown key 'trails'; did you mean 'trials'"),
        ("trials: 20", "trials: 0", "trials", "greater than 0, found 0"),
        ("dataset: office", "dataset: offise", "", "unknown dataset 'offise'; did you mean 'office'"),
        ("backbone: llama", "backbone: lama", "", "unknown backbone 'lama'; did you mean 'llama'"),
        ("[ce, pairwise]", "[ce, pairwize]", "objectives.1", "'pairwize' is not defined under objectives; did you"),
        ("[ce, pairwise]", "[ce+lr=1, pairwise]", "objectives.0", "'ce\\+lr=1' is not defined under objectives"),
        ("      beta:", "      bata:", "space.bata", "unknown key 'bata'; did you mean 'beta'"),
        ("low: 1.0e-4, ", "", "space.lr", "expected low and high, or choices"),
        ("low: 1.0e-4", "low: 0.1", "space.lr", "low 0.1 is not below high 0.01"),
        ("low: 1.0e-4", "low: 0", "space.lr", "low 0 has no logarithm"),
        ("low: 1.0e-4", "low: -1", "space.lr", "low -1 has no logarithm"),
        ("low: 1.0e-4", "low: yes", "space.lr.low", "expected a number or a name, found True"),
        ("high: 1.0e-2", "hi: 1.0e-2", "space.lr.hi", "unknown key 'hi'; did you mean 'high'"),
        ("low: 0, high: 0.5", "low: -1, high: 0.5", "space.beta", "pairwise\\+beta=-1\\+.*greater than or equal to 0"),
        ("low: 1, high: 4", "low: 0.5, high: 4", "space.layers", "ce\\+layers=0\\.5\\+.*valid integer"),
        ("low: 1, high: 4", "choices: [1]", "space.layers.choices", "at least 2 items"),
        ("low: 1, high: 4", "choices: [2, 3, 2]", "space.layers", "gives a choice twice"),
        ("low: 1, high: 4", "low: 1, high: 4, choices: [1, 2]", "space.layers", "has choices and a range"),
        ("[release, uniform]", "[release, unifrom]", "space.weights", "weights=unifrom.*'uniform'"),
        ("weights: {choices: [release, uniform]}", "eos: {low: 0, high: 1}", "space.eos", "write eos=false"),
        ("lr: {low: 1.0e-4, high: 1.0e-2, log: true}\n      layers: {low: 1, high: 4}", "negatives: {low: 1, high: 9}",
         "objectives.0", "ce has none of the keys of the space; leave it out"),
        ("    space:", "    median_stopping: true\n    space:", "space.beta", "changes the loss"),
        ("backbone: llama", "backbone: tiger", "space.layers", "unknown key 'layers'"),
    ],
)  # fmt: skip
def test_mistakes_name_the_line_and_key(read, tmp_path, old, new, key, said):
    where = re.escape(".".join(filter(None, ["searches.office", key])))
    with pytest.raises(UserError, match=rf"^{re.escape(str(tmp_path))}/params\.yaml:\d+: {where}: .*{said}") as error:
        read(old, new)
    assert "\n" not in str(error.value)


def test_a_value_that_params_yaml_itself_tunes_is_not_searched(read):
    """It would take precedence over the file that the search writes."""
    with pytest.raises(UserError, match=r"space\.beta: .*overridden by objectives\.pairwise\.tuned\.films\.beta"):
        read("dataset: office", "dataset: films")


SPACE = SEARCH[SEARCH.index("    space:") :]


def test_the_median_stops_trials_only_where_the_loss_is_the_same(read):
    stopping = "    median_stopping: true\n    space: "
    assert read(SPACE, stopping + "{lr: {low: 0.1, high: 1}}\n").search("office").median_stopping
    with pytest.raises(UserError, match=r"space\.selection: changes the loss"):
        read(SPACE, stopping + "{selection: {choices: [mean, release]}}\n")


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.floats(0, 1))
def test_tried_numbers_have_few_digits_and_stay_in_the_range(low, factor, at):
    high = low * factor
    value = low + at * (high - low)
    rounded = Dimension(low=low, high=high).rounded(value)
    assert low <= rounded <= high
    assert rounded in (low, high) or len(f"{rounded:e}".split("e")[0].replace(".", "").rstrip("0")) <= DIGITS
    assert rounded == pytest.approx(value, rel=0.5 * 10.0 ** (1 - DIGITS) * 1.001)


def test_choices_and_whole_numbers_are_tried_as_they_are():
    assert Dimension(choices=[0.123456, 2]).rounded(0.123456) == 0.123456
    assert Dimension(low=1000, high=99999).rounded(12345) == 12345


def test_the_shipped_searches_are_valid():
    params = load(Path(__file__).parents[3] / "params.yaml")
    assert params.searches
