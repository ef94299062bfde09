"""The command ``show``: an HTML page with what beam search keeps and drops at each step."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from string import Template
from typing import Any

from apao.errors import UserError
from apao.files import atomic_path
from apao.progress import console
from apao.stages.exact import TOP
from apao.stages.history_files import Known, history_of
from apao.stages.load import load
from apao.stages.lost import Survey, survey
from apao.stages.named import Users, run_folder, titles
from apao.stages.shown_search import Names, ShownSearch, page_case, user_history
from apao.stages.trained import TrainedRun
from apao.study.paths import DatasetPaths

ASSETS = Path(__file__).parent / "assets"
USERS_SHOWN = 12
"""Maximum number of users on the page if none is named."""


def show(run: str, user: str | None, history: str | None, output: Path | None, device: str) -> Path:
    """Write the page of a run and return its path.

    Without ``user`` or ``history`` it has the test users whose target is in the exact top 20 and is not found, the
    best exact rank first; if there are none, the first user.

    Args:
        run: a run's name or folder.
        user: raw id of a user of the dataset, whose target is the test item.
        history: raw item ids, separated by commas, oldest first; there is no target then.
        output: the file. None: ``show.html`` in the run's folder.
        device: auto, cpu or cuda.

    Raises:
        UserError: for an unknown user or item, for both ``user`` and ``history``, or for a missing file.
    """
    if user is not None and history is not None:
        raise UserError("give --user or --history, not both")
    folder = run_folder(run)
    model = load(folder, device)
    loaded = model.trained
    trained = TrainedRun(loaded.run, loaded.params, loaded.device, model.root, folder, loaded.backbone)
    names, paths = Names(trained.codes, titles(model.items).tolist()), DatasetPaths(trained.run.dataset, model.root)
    path = output or folder / "show.html"
    # First, so that a file that cannot be written ends the command at once.
    with atomic_path(path) as temporary:
        if history is not None:
            items = model.catalogue.numbers(history_of(history, Known.of(model.catalogue))).tolist()
            cases, said = [_case(trained, names, "A given history", items, None)], ""
        elif user is not None:
            (number,) = Users.read(paths).numbers([user])
            if trained.histories.evaluation_targets("test")[number] < 0:
                raise UserError(
                    f"user {user!r} has no test item, because the dataset is split by time; "
                    "take another user, or give the items with --history"
                )
            cases, said = [_user_case(trained, names, number, f"User {user}")], ""
        else:
            cases, said = _telling_cases(trained, names, Users.read(paths))
        temporary.write_text(_page(trained, cases, said), encoding="utf-8")
    console.print(str(path))
    return path


def _telling_cases(trained: TrainedRun, names: Names, users: Users) -> tuple[list[dict[str, Any]], str]:
    """The users whose target the search loses, and a sentence about all users."""
    found = survey(trained)
    ids = users.raw_ids
    labelled = [(user, f"User {ids[user]}: right item exactly no. {rank}, not found") for user, rank in found.lost]
    first = int(trained.histories.evaluated("test")[0])
    chosen = labelled[:USERS_SHOWN] or [(first, f"User {ids[first]}")]
    return [_user_case(trained, names, *each) for each in chosen], _sentence(found)


def _sentence(found: Survey) -> str:
    return (
        f"Of {found.users:,} test users, beam search has the right item among its first {TOP} for {found.found:,}; for "
        f"{len(found.lost):,} more it is among the exact top {TOP} and is lost on the way. "
    )


def _user_case(trained: TrainedRun, names: Names, user: int, label: str) -> dict[str, Any]:
    items, target = user_history(trained, user)
    return _case(trained, names, label, items.tolist(), target)


def _case(trained: TrainedRun, names: Names, label: str, items: list[int], target: int | None) -> dict[str, Any]:
    search = ShownSearch.of(trained, items, target)
    return page_case(search, names, label, items, trained.params.backbone.max_history)


def _page(trained: TrainedRun, cases: list[dict[str, Any]], said: str) -> str:
    legal_only = trained.params.objective.softmax.legal_only
    eos = " with the closing eos" if trained.params.decodes_eos else ""
    data = {
        "run": str(trained.run),
        "lists": f"Probabilities of whole codes{eos}. Lines join the same item; red ones were lost by the search.",
        "footer": (
            f"{said}Beam of {trained.beam}. Probabilities are under the softmax over "
            f"{'the legal tokens' if legal_only else 'the whole vocabulary'}. "
            f"Made by apao show {quote(str(trained.run))}."
        ),
        "cases": cases,
    }
    # Inside a script element only "<" could end it; JSON may spell it so.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    files = {name: (ASSETS / f"show.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    title = f"Beam search of {trained.run}".replace("<", "&lt;")
    return Template(files["html"]).substitute(title=title, style=files["css"], data=text, script=files["js"])
