"""The page of one history: its data against brute force, and what a browser makes of it."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from helpers.runs import LENGTHS, wide_codes, write_run, write_wide_dataset

import apao
from apao.cli import app
from apao.decoding.exact import exact_scores
from apao.errors import UserError
from apao.evaluation.metrics import code_ranks
from apao.stages.lost import survey
from apao.stages.show import show
from apao.stages.shown_search import Names, ShownSearch, page_case, user_history
from apao.stages.trained import TrainedRun

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome to open the page with")
CASES = {
    "tiger": ("tiger", {"type": "ce"}, 3),
    "llama": ("llama", {"type": "ce"}, 3),
    "msl": ("tiger", {"type": "msl", "tau": 2.0}, 4),
}


@pytest.fixture(params=CASES)
def run(request, tmp_path, monkeypatch):
    """A run with random weights whose beam is narrower than its catalogue."""
    monkeypatch.chdir(tmp_path)
    backbone, objective, levels = CASES[request.param]
    codes = wide_codes(levels)
    write_wide_dataset(codes)
    return write_run(backbone, codes, objective, {}, seed=1)[0]


one = pytest.mark.parametrize("run", ["tiger"], indirect=True)


@pytest.fixture
def trained(run):
    loaded = apao.load(run.folder, device="cpu").trained
    return TrainedRun(run, loaded.params, loaded.device)


def exact_logp(trained, history):
    """Log-probability of each distinct code, as one dictionary."""
    codes = torch.as_tensor(trained.codes.distinct_tokens)
    eos, softmax = trained.params.decodes_eos, trained.params.objective.softmax
    newest = trained.codes.tokens[history[-trained.params.backbone.max_history :]]
    context = trained.backbone.encode(torch.as_tensor(newest.reshape(1, -1)))
    scores = exact_scores(trained.backbone, context, trained.trie, codes, eos, softmax)[0]
    return dict(zip(map(tuple, codes.tolist()), (scores * (codes.shape[1] + eos)).tolist(), strict=True))


@pytest.mark.parametrize("beam", [20, 2])
def test_survey_counts_what_search_and_exact_sorting_say(trained, beam):
    trained.beam = beam  # with two beams nearly every target is lost on the way
    found, lost = 0, []
    for decoded in trained.decode("test"):
        for user, rank in zip(decoded.users, code_ranks(decoded.beams, decoded.targets), strict=True):
            history, target = user_history(trained, user)
            scores = exact_logp(trained, history)
            own = scores[tuple(trained.codes.tokens[target].tolist())]
            exact = 1 + sum(score > own for score in scores.values())
            found += rank > 0
            lost += [(exact, user)] if rank == 0 and exact <= 20 else []
    known = survey(trained)
    assert (known.users, known.found) == (len(LENGTHS), found)
    assert known.lost.tolist() == [[user, rank] for rank, user in sorted(lost)]
    assert lost or beam == 20


def case_of(trained, user):
    history, target = user_history(trained, user)
    names = Names(trained.codes, [f"Film {i}" for i in range(trained.codes.items)])
    return page_case(
        ShownSearch.of(trained, history.tolist(), target), names, f"User {user}", history.tolist(), 20
    ), history


def test_lists_are_those_of_recommend_and_of_exact_sorting(run, trained):
    case, history = case_of(trained, 3)
    listed = apao.load(run.folder, device="cpu").recommend([[f"i{i}" for i in history]], k=20, keep_seen=True)
    codes = list(dict.fromkeys(listed["code"]))
    assert ["".join(f"<{token}>" for token in item["code"]) for item in case["found"]][: len(codes)] == codes
    scores = exact_logp(trained, history)
    best = sorted(scores, key=lambda code: -scores[code])[:20]
    assert [item["path"] for item in case["exact"]] == [".".join(map(str, code)) for code in best]
    assert [item["logp"] for item in case["exact"]] == pytest.approx([scores[code] for code in best], abs=1e-4)
    assert [item["exactRank"] for item in case["exact"]] == list(range(1, 21))
    found = {item["path"]: rank for rank, item in enumerate(case["found"], start=1)}
    for item in case["exact"]:
        assert item["foundRank"] == found.get(item["path"]) and (item["lost"] is None) == (item["path"] in found)
        code = list(map(int, item["path"].split(".")))
        assert item["titles"] == [f"Film {i}" for i, other in enumerate(trained.codes.tokens.tolist()) if other == code]


def test_every_lost_code_is_cut_once_where_its_prefix_ranked_behind_the_beam(trained):
    trained.beam = 2
    case, _ = case_of(trained, 3)
    assert any(item["lost"] for item in case["exact"])
    for item in [*case["exact"], case["target"]]:
        tokens = item["path"].split(".")
        rows = [{row["path"]: row for row in step["rows"]} for step in case["steps"]]
        fates = [rows[m - 1][".".join(tokens[:m])]["fate"] for m in range(1, len(tokens) + 1)]
        if item["lost"] is None:
            assert fates == ["kept"] * len(tokens)
            continue
        step = item["lost"]["step"]
        assert fates == ["kept"] * (step - 1) + ["cut"] + ["gone"] * (len(tokens) - step)
        loss, cut = item["lost"], rows[step - 1][".".join(tokens[:step])]
        assert loss["kept"] == 2 < loss["place"] == cut["place"] <= loss["candidates"]
        assert loss["logp"] == pytest.approx(cut["logp"]) and loss["logp"] <= loss["lastKept"] + 1e-5


def test_rows_count_the_exact_top_behind_each_prefix(trained):
    case, _ = case_of(trained, 5)
    exact = [item["path"] + "." for item in case["exact"]]
    for step in case["steps"]:
        assert len([row for row in step["rows"] if row["fate"] == "kept"]) + step["hidden"] == step["kept"]
        for row in step["rows"]:
            assert row["top"] == sum(path.startswith(row["path"] + ".") for path in exact)
    assert sum(row["target"] for step in case["steps"] for row in step["rows"]) == len(case["steps"])


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


@one
def test_page_holds_everything_and_asks_nobody(run, trained):
    page = show(str(run), user="u2", history=None, output=None, device="cpu").read_text()
    assert not re.search(r"""(src|href)=|url\(|@import|fetch\(|https?://(?!www\.w3\.org/2000/svg)""", page)
    assert "default-src 'none'" in page and "Film 3 <b>" not in page
    (case,) = data_of(page)["cases"]
    history, target = user_history(trained, 2)
    assert case["history"]["titles"] == [f"Film {i} <b>" for i in history[-8:]]
    assert case["target"]["path"] == ".".join(map(str, trained.codes.tokens[target].tolist()))


@one
def test_a_history_has_no_target(run, tmp_path):
    app(["show", str(run), "--history", "i1,i2", "--output", str(tmp_path / "p.html")], standalone_mode=False)
    (case,) = data_of((tmp_path / "p.html").read_text())["cases"]
    assert case["target"] is None and case["history"]["titles"] == ["Film 1 <b>", "Film 2 <b>"]


@one
def test_without_a_user_the_page_has_those_whose_target_is_lost(run, trained):
    lost = survey(trained).lost
    data = data_of(show(str(run), None, None, None, "cpu").read_text())
    users = [int(user) for user, _ in lost] or [0]
    assert [case["label"].split(":")[0] for case in data["cases"]] == [f"User u{user}" for user in users]
    assert f"for {len(lost)} more it is among the exact top 20" in data["footer"]


@one
def test_a_page_that_cannot_be_written_ends_the_command_before_the_survey(run, tmp_path, monkeypatch):
    monkeypatch.setattr("apao.stages.show.survey", lambda trained: pytest.fail("surveyed"))
    with pytest.raises(UserError, match="a folder"):
        show(str(run), None, None, tmp_path, "cpu")


@one
@pytest.mark.parametrize(
    ("user", "history", "message"),
    [
        ("u1", "i1", "--user or --history, not both"),
        ("u20", None, "data/toy/users.parquet: has no user 'u20'"),
        (None, "i1,nope", "--history: unknown item 'nope'; the run's catalogue has ids like 'i0'"),
        (None, "", "--history '': expected comma-separated item ids"),
    ],
)
def test_show_refuses(run, user, history, message):
    with pytest.raises(UserError, match=message):
        show(str(run), user, history, None, "cpu")


# --- in a browser


def opened(page, *options):
    """The page's document after its script has run."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@in_browser
def test_a_browser_draws_every_row_link_and_sentence(run, tmp_path):
    page = show(str(run), user="u3", history=None, output=tmp_path / "page.html", device="cpu")
    (case,) = data_of(page.read_text())["cases"]
    # The row of the target is pointed at: its whole path lights up, and a line says what it is.
    pointed = (
        "<script>document.querySelector('.tree .rows:last-of-type .row.target, .row.target').focus()</script></body>"
    )
    page.write_text(page.read_text().replace("</body>", pointed))
    document = opened(page, "--dump-dom")
    rows = sum(len(step["rows"]) for step in case["steps"])
    assert len(re.findall(r'class="row[ "]', document)) == rows + len(case["found"]) + len(case["exact"])
    joined = len([item for item in case["exact"] if item["foundRank"]])
    assert document.count("<path") == rows + joined
    assert "<h1>The right item" in document and "Film" in document and "<noscript>" not in document
    assert "&lt;b&gt;" in document
    assert len(re.findall(r'class="row [^"]*target[^"]*lit"', document)) >= len(case["steps"])
    assert re.search(r'class="detail"[^>]*>\w+_\d+', document)


@one
@in_browser
def test_light_and_dark(run, tmp_path):
    from PIL import Image

    page = show(str(run), user="u3", history=None, output=tmp_path / "page.html", device="cpu")
    ground = {}
    for scheme, value in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        scheme_option = f"--blink-settings=preferredColorScheme={value}"
        opened(page, scheme_option, "--window-size=1200,1000", f"--screenshot={picture}")
        pixels = np.asarray(Image.open(picture).convert("L"))
        ground[scheme] = int(pixels[2, 2])
        assert pixels.std() > 10
    assert ground["dark"] < 60 and ground["light"] > 200


@one
def test_a_folder_is_shown_with_its_own_weights(run, tmp_path):
    """Also where the study has no run of that name any more."""
    moved = run.folder.rename(tmp_path / "moved")
    assert show(str(moved), None, "i1,i2", None, "cpu") == moved / "show.html"
