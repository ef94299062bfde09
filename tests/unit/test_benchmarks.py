"""The benchmarks' own machinery; nothing is measured here."""

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import measure, report
from benchmarks.__main__ import app
from benchmarks.cases import cases

SCOPES = ("quick", "full", "gpu")
MACHINE = {"device": "cpu", "cpu": "x", "threads": 2, "torch": "2", "matrix": "4x3x1"} | {
    f"{kind}_gflop_per_s": 100.0 for kind in ("fp32", "bf16")
}


def rows(scope):
    """A row for every case of a scope, as if each had been measured."""
    return [
        {"name": name, "value": 20.0 + i, "unit": "examples/s", "low": 19.0, "high": 200.0, "repeats": 3}
        | {"mflop_per_unit": 5.0, "gflop_per_s": 7.0, "peak_memory_mb": 900, "rated": [90.0, 99.0], "others": 0.0}
        | {"times_fewer_operations": 2.5 if name.startswith(("ratio", "versus")) else None}
        for i, name in enumerate(cases(scope))
    ]


@pytest.mark.parametrize("scope", SCOPES)
def test_every_case_can_be_reported(scope, tmp_path):
    found = rows(scope)
    names = [row["name"] for row in found]
    table = report.results_table({"machine": MACHINE, "results": found})
    assert all(f"| {row['name']} |" in table for row in found)
    assert table.count("| x 2.5 |") == sum(name.startswith(("ratio", "versus")) for name in names)
    shown = report.table4(found)
    assert "| tiger | ce | 1" in shown and "@" not in shown and "trie" not in shown
    assert "| llama | scores 100 negatives | 80 |" in report.table1_cost(found)
    report.draw_curves(found, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("scope", SCOPES)
def test_overrides_reach_every_case_that_is_left(scope):
    """With overrides there are the cases of a recipe only; a key that no recipe has is refused by each of them."""
    plain, overridden = cases(scope), cases(scope, {"threads": 2})
    left_out = {name.split("/")[0] for name in set(plain) - set(overridden)}
    assert set(overridden) < set(plain) and left_out == {"decode", "recommend", "ratio"}
    assert [name for name in set(plain) - set(overridden) if name.startswith("decode")] == ["decode/trie@items=1000000"]


def run(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["case", "quick", "train/tiger/cee"], "train/tiger/cee: no case of this name; did you mean 'train/tiger/ce'?"),
        (["case", "quick", "decode/tiger/beam20+nosuch=3"], "unknown key 'nosuch'"),
        (["case", "quick", "recommend/tiger/one+threads=2"], "recommend/tiger/one has no recipe"),
        (["profile", "quick", "nosuch"], "nosuch: no case of this name"),
        (["run", "quick", "--only", "nosuch"], "--only nosuch: no case of quick"),
        (["table1", "tiger/ce"], "tiger/ce: expected a case and its examples per second"),
        (["table1", "tiger/ce=3"], "expected the rates of ce and of apao-pairwise on each backbone"),
        (["compare", "nosuch.json"], "nosuch.json: not found"),
        (["recbole", "--seeds", "a,b"], "--seeds a,b: expected numbers"),
        (["scale", "quick", "--folder", "nosuch"], "--folder nosuch: no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.machine", lambda device, threads: MACHINE)
    monkeypatch.setattr("benchmarks.__main__.matrix_rate", lambda dtype, device: 100.0)
    found = run(*arguments)
    assert found.exit_code == 1
    assert "error: " in found.output and message in " ".join(found.output.split())


def test_compare_names_what_differs(tmp_path):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    row = rows("quick")[0]
    before.write_text(json.dumps({"machine": MACHINE, "results": [row]}))
    other = {**MACHINE, "fp32_gflop_per_s": 104.0, "bf16_gflop_per_s": 50.0, "threads": 1}
    after.write_text(json.dumps({"machine": other, "results": [{**row, "value": 40.0}]}))
    said = run("compare", str(before), "--after", str(after)).output
    assert "+100.0 %  within the spread" in said
    assert (
        "threads was 2, and is 1" in said and "bf16_gflop_per_s was 100.0, and is 50.0" in said and "fp32" not in said
    )


def test_a_comparison_counts_the_operations_of_both_ways_per_unit():
    def product(rows, units):
        def work():
            torch.ones(rows, 3) @ torch.ones(3, 5)
            return units

        return work

    found = measure.compared(product(8, 2), product(2, 1), "x other", 0.0, torch.device("cpu"))
    assert found.fewer == (2 * 8 * 3 * 5 / 2) / (2 * 2 * 3 * 5)
    assert found.row("ratio")["times_fewer_operations"] == 2.0
