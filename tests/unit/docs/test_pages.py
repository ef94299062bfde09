"""Links of the documentation resolve (pages, headings, files, commands), also when read on a code host."""

import re

import pytest
import typer.main
from helpers.project import ROOT

from apao.cli import app

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
PAGES.append(ROOT / "docs/tutorial.ipynb")
NEW = set(re.findall(r'title="(.+?)"', (ROOT / "docs/extending.md").read_text()))
"""Files that the examples in docs/extending.md add."""


def id_of(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """The ids that are derived from a heading's text."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        # Names in the reference become anchors when the site is built, which checks them.
        assert not anchor or found.parent.name == "reference" or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_files_that_are_named_exist(page):
    named = re.findall(r"(?<![\w./-])(?:src|tests|docs|workflow|benchmarks)/[\w./-]*[\w/]", page.read_text())
    made = "benchmarks/results"
    missing = {name for name in named if not (ROOT / name).exists() and not name.startswith(made)} - NEW
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_commands_that_are_named_exist(page):
    known = typer.main.get_command(app).commands
    named = re.findall(r"(?:`|^    |&& |^\$ )apao (?:--\w+ \S+ )?([a-z]\S*?)(?=[\s`])", page.read_text(), re.MULTILINE)
    assert set(named) <= set(known)


def test_pages_that_other_files_name_exist():
    files = [ROOT / "params.yaml", ROOT / "pyproject.toml"]
    folders = (path for folder in ("src", "tests", "workflow") for path in ROOT.glob(f"{folder}/**/*.*"))
    files += [path for path in folders if path.is_file()]
    named = {name for file in files for name in re.findall(r"docs/[\w/-]+\.md", file.read_text(errors="ignore"))}
    assert named and not {name for name in named if not (ROOT / name).exists()}
