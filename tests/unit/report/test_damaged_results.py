"""Result files that were damaged or edited: one error that names the file and what was expected of it."""

from __future__ import annotations

import json
from operator import setitem

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from apao.errors import UserError
from apao.report import style
from apao.report.results import Results
from apao.stages.report import report
from apao.study.paths import FIGURES, RESULTS, Collection

RUN = "office/tiger/ce/seed1"
GRID = {"datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce", "apao-pairwise"], "seeds": [1]}
STUDIES = {
    "recommended-items": GRID | {"kind": "recommended-items"},
    "exact-ranking": GRID | {"kind": "exact-ranking"},
    "figure4": GRID,
    "figure1": {"dataset": "office", "backbones": ["tiger"], "objectives": ["ce", "apao-pairwise"], "seeds": [1]},
}
EXACT = {"users": 2, "of_users": 2, "ranks": {"user": [0, 1], "beam": [1, 0], "exact": [1, 2]}}


def in_ranks(value):
    return lambda content: setitem(content["ranks"], "beam", value)


@pytest.mark.parametrize(
    ("study", "file", "damage", "said"),
    [
        ("recommended-items", "metrics.json", lambda content: content.clear(), "expected an entry with this name"),
        ("exact-ranking", "exact.json", in_ranks([]), "expected a list that is not empty at 'ranks.beam'"),
        ("exact-ranking", "exact.json", in_ranks(3), "expected a list that is not empty at 'ranks.beam'"),
        ("exact-ranking", "exact.json", in_ranks(["x"]), "expected a finite number at 'ranks.beam.0'"),
        ("exact-ranking", "exact.json", in_ranks([1.5, 2]), "a rank at ranks.beam is no whole number"),
        ("figure4", "beams.json", lambda content: content.update(beams=3), "expected a list that is not empty"),
        ("figure4", "beams.json", lambda content: content["beams"][1].pop("seconds"), "name at 'beams.1.seconds'"),
        ("figure1", "pruning.json", lambda content: content.update(kept=None), "expected a list that is not empty"),
        ("figure1", "pruning.json", lambda content: content.update(beam=50), "beam, top and users are"),
    ],
)
def test_damaged_results_are_named(project, study, file, damage, said):
    params = filled(project, study)
    path = project.folder / f"results/{RUN}/{file}"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as error:
        report(study, params)
    assert file in str(error.value) and RUN in str(error.value)


def filled(project, study):
    params = project.params(**{study: STUDIES[study]})
    if study == "exact-ranking":
        for run in params.study(study).runs():
            project.json(f"results/{run}/exact.json", EXACT)
    project.fill(study, params)
    return params


def test_decoding_times_that_are_no_list(project):
    params = filled(project, "figure1")
    (path,) = project.folder.rglob("decoding_time.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": 3}))
    with pytest.raises(UserError, match=r"decoding_time\.json: expected a list that is not empty at 'rows'"):
        report("figure1", params)


def test_beams_without_intervals_are_those_of_an_earlier_revision(project):
    params = filled(project, "figure4")
    path = project.folder / f"results/{RUN}/beams.json"
    content = json.loads(path.read_text())
    for beam in content["beams"]:
        beam["intervals"] = None
    path.write_text(json.dumps(content))
    report("figure4", params)
    frame = pd.read_csv("figures/figure4.csv").set_index(["objective", "quantity"])
    assert frame.loc[("ce", "ndcg@5"), "low"].isna().all()
    assert frame.loc[("apao-pairwise", "ndcg@5"), "low"].notna().any()


def test_an_objective_without_properties_of_its_lists_is_marked(project):
    """As evaluations of earlier revisions are."""
    params = filled(project, "recommended-items")
    path = project.folder / f"results/{RUN}/metrics.json"
    content = json.loads(path.read_text())
    content["test"] = {name: content["test"][name] for name in ("users", "seconds", "recall@10")}
    path.write_text(json.dumps(content))
    with style.applied():
        drawing = params.study("recommended-items").build(Results(params))
        texts = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
        plt.close(drawing.figure)
    assert any("ce" in text for text in texts)
    assert set(drawing.numbers["objective"]) == {"apao-pairwise"}


def test_panels_of_exact_ranking_share_the_longest_axis(project):
    study = STUDIES["exact-ranking"] | {"backbones": ["tiger", "llama"], "objectives": ["ce"]}
    params = project.params(exact=study)
    for backbone, hits in (("tiger", 5), ("llama", 1)):
        ranks = [1] * hits + [0] * (10 - hits)
        content = {"users": 10, "of_users": 10, "ranks": {"user": list(range(10)), "beam": ranks, "exact": ranks}}
        project.json(f"results/office/{backbone}/ce/seed1/exact.json", content)
    with style.applied():
        drawing = params.study("exact").build(Results(params))
        ends = {axes.get_xlim()[1] for axes in drawing.figure.axes if axes.patches}
        plt.close(drawing.figure)
    (end,) = ends
    assert end > 0.5


def test_intervals_of_metrics_without_baselines_or_paper_explain_only_what_is_drawn(project):
    study = GRID | {"kind": "metric-intervals", "objectives": ["mine"], "metrics": ["recall@10"]}
    params = project.params(metrics=study)
    project.metrics("office/tiger/mine/seed1", {})
    project.ranks("office/tiger/mine/seed1", [1, 0])
    with style.applied():
        drawing = params.study("metrics").build(Results(params, Collection(RESULTS, FIGURES, gaps=True)))
        shown = [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]
        plt.close(drawing.figure)
    assert shown == ["ours with its 95 % interval"] and "dotted" not in drawing.caption
