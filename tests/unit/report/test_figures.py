from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.text import Text

from apao.errors import UserError
from apao.evaluation.metrics import PREFIX_RECALL
from apao.report import style
from apao.report.kinds.prefix_recall import _gain, gain_percent
from apao.report.results import Estimate, Results
from apao.stages.report import report
from apao.study.paths import FIGURES, OWN, RESULTS, Collection
from apao.study.runs import Run

SEEDS = [1, 2, 3]
WIDE = {"datasets": ["office", "beauty"], "backbones": ["tiger", "llama"], "seeds": SEEDS}
MANY = ["ce", "ce+eos=false", "apao-pointwise", "apao-pointwise+weights=eq17", "apao-pairwise"]
SWEEPS = {
    "many-beta": {"objectives": MANY[2:], "key": "beta", "values": [0.05, 0.1, 0.2, 0.3, 0.4]},
    "many-eta": {"objectives": MANY[2:], "key": "eta", "values": [5e-6, 1e-5, 3e-5, 1e-4, 5e-4]},
}
CROWDED = {
    "figure1": {"dataset": "office", "backbones": ["tiger", "llama"], "objectives": MANY, "seeds": SEEDS},
    "figure2": {
        "dataset": "office",
        "backbone": "tiger",
        "modules": {"full": "apao-pairwise", "w/o a $long$ name of a_module {x}": "ce"},
        "prefixes": {f"w/o prefix {m}": f"apao-pairwise+drop_level={m}" for m in range(4)},
        "seeds": SEEDS,
    },
    "figure3": {**WIDE, "sweeps": ["many-beta", "many-eta"]},
    "figure4": {**WIDE, "objectives": MANY},
    "figure5": {**WIDE, "objectives": MANY},
    "recommended-items": {**WIDE, "kind": "recommended-items", "objectives": MANY},
}


def build(name, params):
    with style.applied():
        drawing = params.study(name).build(Results(params))
        drawing.figure.draw_without_rendering()
    return drawing


def draw(project, name, study):
    params = project.params(SWEEPS, **{name: study})
    project.fill(name, params)
    return build(name, params).figure


@pytest.mark.parametrize("name", CROWDED)
def test_nothing_is_cut_off_or_covered(project, name):
    figure = draw(project, name, CROWDED[name])
    renderer = figure.canvas.get_renderer()
    page = figure.bbox.padded(1)
    ticks = {label: shown for axes in figure.axes for label, shown in tick_labels(axes)}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and ticks.get(text, text.get_visible())]
    assert len(texts) > 10
    for text in texts:
        box = text.get_window_extent(renderer)
        assert page.containsx(box.x0), text
        assert page.containsx(box.x1), text
        assert page.containsy(box.y0), text
        assert page.containsy(box.y1), text
    legends = [legend for part in [figure, *figure.subfigs] for legend in part.legends]
    for legend in legends:
        box = legend.get_window_extent(renderer)
        for axes in figure.axes:
            assert not box.overlaps(axes.get_tightbbox(renderer)), name
    for axes in figure.axes:
        boxes = [label.get_window_extent(renderer) for label, shown in tick_labels(axes) if shown]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), axes


def tick_labels(axes):
    """Every tick label, and whether it is drawn: matplotlib also keeps ticks beyond the limits."""
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        for tick in axis.get_major_ticks():
            within = min(limits) <= tick.get_loc() <= max(limits)
            yield tick.label1, within and tick.label1.get_visible() and bool(tick.label1.get_text())
            yield tick.label2, False


def test_pdf_embeds_truetype_fonts_and_no_date(project):
    params = project.params(figure5={**WIDE, "objectives": ["ce", "apao-pairwise"]})
    project.fill("figure5", params)
    report("figure5", params)
    content = (project.folder / "figures/figure5.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"/CreationDate" not in content


def test_nine_series_look_different():
    looks = [style.look(series) for series in range(len(style.COLOURS) + 3)]
    assert len({(look["color"], look["marker"]) for look in looks}) == len(looks)


def test_the_users_own_style_does_not_matter(project):
    params = project.params(figure2=CROWDED["figure2"])
    project.fill("figure2", params)
    report("figure2", params)
    plain = (project.folder / "figures/figure2.png").read_bytes()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "yellow", "savefig.dpi": 50}):
        report("figure2", params)
        assert mpl.rcParams["font.size"] == 20
    assert (project.folder / "figures/figure2.png").read_bytes() == plain


def test_figure1_numbers(project):
    study = {**CROWDED["figure1"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1, 2]}
    params = project.params(figure1=study)
    rows = [{"items": n, "beam_seconds_per_user": n / 1e6, "exact_seconds_per_user": n / 1e3} for n in (10_000, 1000)]
    timing = {"beam": 20, "device": "NVIDIA X", "threads": 2, "users": 4, "rows": rows}
    project.json("results/office/tiger/decoding_time.json", timing)
    for seed, last in ((1, 0.5), (2, 0.7)):
        pruning = {"beam": 20, "top": 20, "users": 9, "kept": [1.0, last]}
        project.json(f"results/office/tiger/ce/seed{seed}/pruning.json", pruning)
    report("figure1", params)
    frame = pd.read_csv("figures/figure1.csv")
    exact = frame[frame["series"] == "exact scoring"]
    assert exact[["x", "value"]].to_numpy().tolist() == [[1000, 1.0], [10_000, 10.0]]
    kept = frame[frame["panel"] == "c"]
    assert kept["x"].tolist() == [1, 2]
    assert kept["value"].tolist() == pytest.approx([1.0, 0.6])
    assert kept["sd"].tolist() == pytest.approx([0.0, 0.02**0.5])
    caption = (project.folder / "figures/figure1.rst").read_text()
    for said in ("NVIDIA X, 2 threads", "dataset office", "seeds 1, 2", "Scale tiny", "Means over 2 seeds"):
        assert said in caption
    assert caption.count("\n") == 1


def test_figure2_numbers(project):
    study = {**CROWDED["figure2"], "modules": {"full": "apao-pairwise+weights=release"}, "seeds": [1]}
    params = project.params(figure2=study)
    # "release" is the default weighting, so the label is that of the plain run.
    project.metrics("office/tiger/apao-pairwise/seed1", {"ndcg@10": 0.031, "recall@10": 0.062})
    project.fill("figure2", params)
    report("figure2", params)
    frame = pd.read_csv("figures/figure2.csv")
    full = frame[(frame["label"] == "full") & (frame["panel"] == "a")].set_index("metric")["value"]
    assert full.to_dict() == {"ndcg@10": 0.031, "recall@10": 0.062}
    assert frame[frame["panel"] == "b"]["label"].nunique() == 4


def test_figure3_numbers(project):
    study = {**WIDE, "datasets": ["ml-100k"], "backbones": ["llama"], "sweeps": ["b"], "seeds": [1]}
    sweep = {"objectives": ["apao-pairwise"], "key": "beta", "values": [0.2, 0.1]}
    params = project.params({"b": sweep}, figure3=study)
    project.metrics("ml-100k/llama/apao-pairwise/seed1", {"ndcg@10": 0.03}, {"ndcg@10": 0.5})
    project.metrics("ml-100k/llama/apao-pairwise+beta=0.1/seed1", {"ndcg@10": 0.02}, {"ndcg@10": 0.6})
    project.fill("figure3", params)
    report("figure3", params)
    frame = pd.read_csv("figures/figure3.csv")
    assert frame[["key", "at", "value", "own_value"]].to_numpy().tolist() == [
        ["beta", 0.1, 0.02, False],
        ["beta", 0.2, 0.03, True],
    ]


def test_figure3_has_a_column_for_each_key_and_a_line_where_it_is_swept(project):
    more = {"objectives": ["s-dpo"], "key": "beta", "values": [0.5, 1, 2]}
    params = project.params({"more": more}, figure3={**WIDE, "sweeps": ["beta", "tau", "more"]})
    project.fill("figure3", params)
    figure = build("figure3", params).figure
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == [f"office, {b}: along {k}" for b in ("tiger", "llama") for k in ("β", "τ")]
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks[:2] == [["0.1", "0.2", "0.5", "1", "2"], ["1", "2"]]
    assert [len(axes.containers) for axes in figure.axes[:2]] == [3, 1]


def test_figure4_numbers(project):
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1]}
    params = project.params(figure4=study)

    def measured(*beams):
        rows = [{"beam": b, "seconds": b / 10, "ndcg@5": b / 1000, "recall@5": 0.5} for b in beams]
        return {"users": 250, "device": "cpu", "threads": 1, "beams": rows}

    project.json("results/office/tiger/ce/seed1/beams.json", measured(10, 5))
    report("figure4", params)
    frame = pd.read_csv("figures/figure4.csv")
    by = frame.pivot_table(index="beam", columns="quantity", values="value")
    assert by["ndcg@5"].to_dict() == {5: 0.005, 10: 0.01}
    assert by["seconds_per_1000_users"].to_dict() == {5: 2.0, 10: 4.0}  # 0.5 and 1 s for 250 users
    # Times that were measured beside other work are left out, also in words.
    report("figure4", project.params(figure4={**study, "times": False}))
    assert pd.read_csv("figures/figure4.csv")["quantity"].unique().tolist() == ["ndcg@5"]
    assert "time" not in Path("figures/figure4.rst").read_text()
    # Every run needs all beam sizes that were measured for the dataset.
    both = project.params(figure4={**study, "seeds": [1, 2]})
    project.json("results/office/tiger/ce/seed2/beams.json", measured(5, 10, 50))
    with pytest.raises(UserError, match=r"seed1/beams\.json: has no beam size 50"):
        report("figure4", both)


def test_figure4_of_two_seeds_has_the_mean_of_their_intervals(project):
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"], "seeds": [1, 2]}
    params = project.params(figure4=study)
    for seed, value, ends in ((1, 0.2, [0.1, 0.3]), (2, 0.3, [0.2, 0.5])):
        rows = [{"beam": 5, "seconds": 1.0, "ndcg@5": value, "intervals": {"ndcg@5": ends}}]
        content = {"users": 100, "device": "cpu", "threads": 1, "beams": rows}
        project.json(f"results/office/tiger/ce/seed{seed}/beams.json", content)
    report("figure4", params)
    frame = pd.read_csv("figures/figure4.csv").set_index("quantity")
    assert frame.loc["ndcg@5", ["value", "low", "high"]].tolist() == pytest.approx([0.25, 0.15, 0.4])
    assert frame.loc["seconds_per_1000_users", ["low", "high"]].isna().all()
    said = Path("figures/figure4.rst").read_text()
    assert (
        "Means over 2 seeds, too few for an interval over seeds" in said
        and "one over the users of several seeds has the means of theirs as ends" in said
    )


def test_figure4_leaves_a_gap_where_the_beam_is_narrower_than_the_cutoff(project):
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"]}
    params = project.params(figure4=study)

    def measure(*beams):
        rows = [{"beam": b, "seconds": 1.0, "ndcg@5": None if b < 5 else b / 1000} for b in beams]
        content = {"users": 100, "device": "cpu", "threads": 1, "beams": rows}
        for seed in SEEDS:
            project.json(f"results/office/tiger/ce/seed{seed}/beams.json", content)

    measure(2, 5, 10)
    report("figure4", params)
    frame = pd.read_csv("figures/figure4.csv").set_index(["quantity", "beam"])["value"]
    assert math.isnan(frame["ndcg@5", 2]) and frame["ndcg@5", 5] == 0.005
    assert frame["seconds_per_1000_users"].tolist() == [10.0] * 3
    assert "fewer than 5 beams give no NDCG@5" in Path("figures/figure4.rst").read_text().replace("\n", " ")
    drawing = build("figure4", params)
    above, below = (axes.containers[0].lines[0].get_xdata() for axes in drawing.figure.axes)
    assert len(above) == 2 and len(below) == 3
    measure(2)
    report("figure4", params)


def test_figure5_gain_is_over_the_best_other_at_each_prefix(project):
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "seeds": [1]}
    params = project.params(figure5={**study, "objectives": ["ce", "apao-pointwise", "apao-pairwise"]})
    for objective, recall in (("ce", [0.5, 0.2]), ("apao-pointwise", [0.4, 0.25]), ("apao-pairwise", [0.6, 0.2])):
        project.metrics(f"office/tiger/{objective}/seed1", {}, **{"prefix_recall@20": recall})
    project.fill("figure5", params)
    report("figure5", params)
    frame = pd.read_csv("figures/figure5.csv")
    gain = frame[frame["quantity"] == "gain_percent"]
    assert gain["series"].unique().tolist() == ["apao-pairwise"]
    assert gain["value"].tolist() == pytest.approx([20.0, -20.0])
    assert frame[frame["series"] == "ce"]["value"].tolist() == [0.5, 0.2]


def test_figure5_of_three_seeds(project):
    """The gain is that of the means, 0.4 over 0.3; by seed it is 100, 0 and 50 percent, wider than over the users."""
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "seeds": [1, 2, 3]}
    params = project.params(figure5={**study, "objectives": ["ce", "apao-pairwise"]})
    for seed, before, after in ((1, 0.1, 0.2), (2, 0.4, 0.4), (3, 0.4, 0.6)):
        kept_first(project, "ce", seed, before)
        kept_first(project, "apao-pairwise", seed, after)
    report("figure5", params)
    frame = pd.read_csv("figures/figure5.csv")
    (gain,) = frame[frame["quantity"] == "gain_percent"].to_dict("records")
    assert gain["value"] == pytest.approx(100 / 3)
    # A standard deviation of 50 over three seeds.
    half = 4.3027 * 50 / math.sqrt(3)
    assert [gain["low"], gain["high"]] == pytest.approx([50 - half, 50 + half], abs=0.1)


def test_figure5_has_no_interval_over_seeds_that_differ(project):
    """As published runs may: each objective has three, but not the same. The interval is that over the users."""
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "seeds": [1, 2, 3, 4]}
    params = project.params(figure5={**study, "objectives": ["ce", "apao-pairwise"]})
    shares = {"apao-pairwise": {1: 0.1, 2: 0.2, 4: 0.9}, "ce": {1: 0.3, 2: 0.4, 3: 0.5}}
    ours, theirs = (
        ([kept_first(project, name, seed, share) for seed, share in by_seed.items()], Estimate(tuple(by_seed.values())))
        for name, by_seed in shares.items()
    )
    gain = _gain(Results(params), 0, ours, theirs)
    assert gain.percent == pytest.approx(0) and -12 < gain.interval[0] < 0 < gain.interval[1] < 12


def kept_first(project, objective, seed, share):
    """A run that keeps the first prefix of this share of 1,000 users."""
    name = f"office/tiger/{objective}/seed{seed}"
    project.metrics(name, {}, **{"users": 1000, "prefix_recall@20": [share]})
    project.ranks(name, [0] * 1000)
    path = Path(f"results/{name}/ranks.parquet")
    users = pd.read_parquet(path)
    users.assign(prefix_1=users["user"] < 1000 * share).to_parquet(path)
    return Run.parse(name)


def test_figure5_of_two_seeds_has_intervals_over_the_users(project):
    """Each seed of ce keeps the prefixes of the other half of the users, so that their mean is 0.5 for every user."""
    objectives = {"ce": (range(500), range(500, 1000)), "apao-pairwise": (range(1000), range(1000))}
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "seeds": [1, 2], "objectives": list(objectives)}
    params = project.params(figure5=study)
    for objective, by_seed in objectives.items():
        for seed, hits in zip((1, 2), by_seed, strict=True):
            name = f"office/tiger/{objective}/seed{seed}"
            project.metrics(name, {}, **{"users": 1000, "prefix_recall@20": [len(hits) / 1000]})
            project.ranks(name, [0] * 1000)
            path = Path(f"results/{name}/ranks.parquet")
            users = pd.read_parquet(path)
            users.assign(prefix_1=users["user"].isin(hits)).to_parquet(path)
    report("figure5", params)
    frame = pd.read_csv("figures/figure5.csv").set_index(["series", "quantity"])[["value", "low", "high"]]
    recall, gain = (frame.loc[key].tolist() for key in (("ce", PREFIX_RECALL), ("apao-pairwise", "gain_percent")))
    assert recall == pytest.approx([0.5] * 3) and gain == pytest.approx([100] * 3)
    assert "Means over 2 seeds, too few for an interval over seeds" in Path("figures/figure5.rst").read_text()


def test_exact_ranking_of_two_seeds_has_intervals_over_the_users(project):
    study = {"kind": "exact-ranking", "datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"]}
    params = project.params(beam_or_model={**study, "seeds": [1, 2]})
    halves = [1] * 50 + [0] * 50
    for seed, beam, exact in ((1, halves, halves), (2, halves[::-1], halves)):
        ranks = {"user": list(range(100)), "beam": beam, "exact": exact}
        project.json(f"results/office/tiger/ce/seed{seed}/exact.json", {"users": 100, "of_users": 100, "ranks": ranks})
    report("beam_or_model", params)
    frame = pd.read_csv("figures/beam_or_model.csv").set_index("way")[["value", "low", "high"]]
    assert frame.loc["beam"].tolist() == pytest.approx([0.5] * 3)
    # Half of 100 users, the same for both seeds: 0.5 / sqrt(100).
    assert frame.loc["exact"].tolist() == pytest.approx([0.5, 0.402, 0.598], abs=0.012)


def test_figure5_pairs_the_users_of_both_objectives(project):
    study = {
        **WIDE,
        "datasets": ["office"],
        "backbones": ["tiger"],
        "seeds": [1],
        "objectives": ["ce", "apao-pairwise"],
    }
    params = project.params(figure5=study)
    kept_first(project, "ce", 1, 0.05)
    kept_first(project, "apao-pairwise", 1, 0.06)
    report("figure5", params)
    frame = pd.read_csv("figures/figure5.csv")
    (gain,) = frame[frame["quantity"] == "gain_percent"].to_dict("records")
    assert gain["value"] == pytest.approx(20)
    # Every hit of ce is one of apao-pairwise too.
    assert 0 <= gain["low"] < 20 < gain["high"]


@pytest.mark.parametrize(
    ("ranks", "ends", "said"),
    [
        # Half of 200 users: a standard error of 0.5 / sqrt(200).
        ([[1] * 100 + [0] * 100], (0.5 - 0.0693, 0.5 + 0.0693), "One seed, so no spread over seeds is known; error"),
        # The other half: every user has 0.5 in the mean over the seeds, which no choice of users changes.
        (
            [[1] * 100 + [0] * 100, [0] * 100 + [1] * 100],
            (0.5, 0.5),
            "Means over 2 seeds, too few for an interval over seeds; error bars are 95 % bootstrap intervals over the "
            "test users",
        ),
        # Half of the half: a quarter has 1, a half 0.5, a quarter 0, with a standard deviation of sqrt(1 / 8).
        (
            [[1] * 100 + [0] * 100, [1] * 50 + [0] * 100 + [1] * 50],
            (0.5 - 0.049, 0.5 + 0.049),
            "too few for an interval over seeds; error bars are 95 % bootstrap intervals over the test users",
        ),
        # 0.5, 0.5 and 0.8: mean 0.6, standard error 0.1, and 4.3027 of them.
        (
            [[1] * 100 + [0] * 100, [1] * 100 + [0] * 100, [1] * 160 + [0] * 40],
            (0.6 - 0.43027, 0.6 + 0.43027),
            "Means over 3 seeds; error bars are 95 % bootstrap intervals over the test users (10,000 resamples), or "
            "the 95 % t-interval of that mean with 3 seeds or more, if that is wider.",
        ),
        # Three equal seeds: the interval over the users is the wider one.
        ([[1] * 100 + [0] * 100] * 3, (0.5 - 0.0693, 0.5 + 0.0693), "Means over 3 seeds; error bars are 95 %"),
    ],
)
def test_intervals_are_over_the_users_or_of_three_seeds_over_these_where_wider(project, ranks, ends, said):
    seeds = list(range(1, len(ranks) + 1))
    params = project.params(figure2={**CROWDED["figure2"], "metrics": ["recall@10"], "seeds": seeds})
    for seed, one in zip(seeds, ranks, strict=True):
        project.metrics(f"office/tiger/ce/seed{seed}", {"recall@10": sum(one) / len(one)})
        project.ranks(f"office/tiger/ce/seed{seed}", one)
    project.fill("figure2", params)
    report("figure2", params)
    row = pd.read_csv("figures/figure2.csv").set_index("objective").loc["ce"]
    assert row[["low", "high"]].tolist() == pytest.approx(ends, abs=0.006)
    assert said in (project.folder / "figures/figure2.rst").read_text().replace("\\%", "%")


def test_gain_over_nothing_is_unknown():
    assert math.isnan(gain_percent(0.1, 0.0))


def test_ragged_levels_are_named(project):
    params = project.params(figure5={**WIDE, "datasets": ["office"], "objectives": ["ce", "apao-pairwise"]})
    project.fill("figure5", params)
    project.metrics("office/llama/ce/seed2", {}, **{"prefix_recall@20": [0.5, 0.4]})
    with pytest.raises(UserError, match=r"office/llama/ce/seed2/metrics\.json: expected a list .*prefix_recall@20"):
        report("figure5", params)
    assert not (project.folder / "figures").exists()


def test_figure5_keeps_the_interval_over_users_where_seeds_agree(project):
    study = {**WIDE, "datasets": ["office"], "backbones": ["tiger"], "seeds": [1, 2, 3]}
    params = project.params(figure5={**study, "objectives": ["ce", "apao-pairwise"]})
    ours, theirs = (
        ([kept_first(project, name, seed, share) for seed in (1, 2, 3)], Estimate((share,) * 3))
        for name, share in (("apao-pairwise", 0.4), ("ce", 0.2))
    )
    gain = _gain(Results(params), 0, ours, theirs)
    assert gain.percent == pytest.approx(100) and gain.interval[0] < 95 < 105 < gain.interval[1]


def test_exact_ranking_of_other_samples_has_no_interval_over_users(project):
    study = {"kind": "exact-ranking", "datasets": ["office"], "backbones": ["tiger"], "objectives": ["ce"]}
    params = project.params(beam_or_model={**study, "seeds": [1, 2]})
    for seed, users in ((1, 100), (2, 50)):
        ranks = {way: [1, 0] * (users // 2) for way in ("beam", "exact")}
        project.json(
            f"results/office/tiger/ce/seed{seed}/exact.json", {"users": users, "of_users": 100, "ranks": ranks}
        )
    report("beam_or_model", params)
    frame = pd.read_csv("figures/beam_or_model.csv")
    assert frame["value"].tolist() == [0.5, 0.5] and frame[["low", "high"]].isna().all(axis=None)


GAPS = Collection(RESULTS, FIGURES, gaps=True)


def drawn(params, name, collection=OWN, files=("metrics.json",)):
    with style.applied():
        return params.study(name).build(Results(params, collection, files))


def test_rows_say_their_seeds_and_what_has_neither_run_nor_paper_has_none(project):
    """The paper has numbers of apao-pairwise and none of mine; the panels of a metric share their axis."""
    study = {"kind": "metric-intervals", "datasets": ["office"], "backbones": ["tiger", "llama"], "seeds": SEEDS}
    params = project.params(metrics={**study, "objectives": ["ce", "mine", "apao-pairwise"], "metrics": ["recall@10"]})
    for backbone, seeds, level in (("tiger", (1,), 0.2), ("llama", (1, 2), 0.4)):
        for seed in seeds:
            project.metrics(f"office/{backbone}/ce/seed{seed}", {"recall@10": level})
            project.ranks(f"office/{backbone}/ce/seed{seed}", [1] * round(100 * level) + [0] * round(100 - 100 * level))
    figure = drawn(params, "metrics", GAPS, ("metrics.json", "ranks.parquet")).figure
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["ce (1 seed)", "apao-pairwise"], ["ce (2 seeds)", "apao-pairwise"]]
    # The upper end of llama's interval is drawn in a panel that tiger's ended first.
    assert {axes.get_xlim() for axes in figure.axes} == {figure.axes[0].get_xlim()}
    assert figure.axes[0].get_xlim()[0] == 0 and figure.axes[0].get_xlim()[1] > 0.49


@pytest.mark.parametrize(("seeds", "thin"), [([1], 0), ([1, 2], 2), (SEEDS, 0)])
def test_seeds_too_few_for_an_interval_are_drawn_one_by_one(project, seeds, thin):
    study = {"dataset": "office", "backbones": ["llama"], "objectives": ["ce"], "seeds": seeds, "times": False}
    params = project.params(figure1=study)
    for seed in seeds:
        kept = [0.9, 0.5 + 0.1 * seed]
        project.json(
            f"results/office/llama/ce/seed{seed}/pruning.json", {"beam": 20, "top": 20, "users": 10, "kept": kept}
        )
    drawing = drawn(params, "figure1")
    (axes,) = drawing.figure.axes
    singly = [line.get_ydata().tolist() for line in axes.get_lines() if line.get_linewidth() == 0.6]
    assert singly == [pytest.approx([90, 50 + 10 * seed]) for seed in seeds[:thin]]
    assert ("Thin lines are single seeds" in drawing.caption) == bool(thin)
    assert axes.get_title() == "office, llama: exact top 20 kept, beam 20" and "(c)" not in drawing.caption


@pytest.mark.parametrize(("epochs", "cut"), [(6, False), (12, True)])
def test_the_losses_of_the_first_epochs_do_not_flatten_the_rest(project, epochs, cut):
    study = {"kind": "training-curves", "datasets": ["office"], "backbones": ["llama"], "objectives": ["ce"]}
    params = project.params(curves={**study, "seeds": [1]})
    losses = [9.0, 8.0, 7.0, *([2.0] * (epochs - 3))]
    frame = {"epoch": range(1, epochs + 1), "seconds": 1.0, "best": [True] + [False] * (epochs - 1)}
    path = project.path("results/office/llama/ce/seed1/history.csv")
    pd.DataFrame({**frame, **dict.fromkeys(("train_ce", "valid_ce"), losses)}).to_csv(path, index=False)
    drawing = drawn(params, "curves")
    top = drawing.figure.axes[0].get_ylim()[1]
    assert top == pytest.approx(2.1) if cut else top > 9
    assert ("first 3 epochs are above the figure" in drawing.caption) == cut
