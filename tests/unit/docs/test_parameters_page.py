"""The site's page of all keys, beside the schema that it is made from."""

import importlib.util
import json
import re

import pytest
from helpers.project import ROOT

SCHEMA = json.loads((ROOT / "schema.json").read_text())


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("parameters", ROOT / "docs" / "parameters.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page(SCHEMA)


def test_every_key_of_every_class_has_a_row(page):
    sections = dict(re.findall(r"^### [^\n]* \{ #(\w+) \}\n(.*?)(?=^###? |\Z)", page, re.DOTALL | re.MULTILINE))
    assert sections.keys() == SCHEMA["$defs"].keys()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(SCHEMA["properties"])
    for name, section in sections.items():
        rows = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
        assert rows == list(SCHEMA["$defs"][name]["properties"]), name


def test_links_lead_to_a_section(page):
    assert {*re.findall(r"\]\(#(\w+)\)", page)} <= {*re.findall(r"\{ #(\w+) \}", page)}


def test_a_row_has_the_kind_the_default_and_the_meaning(page):
    pairwise = page.partition("### `type: apao-pairwise`")[2].partition("\n### ")[0]
    assert "| `negatives` | integer > 0 | `100` | Sampled codes per example. |" in pairwise
    assert "| `weights` | `eq17`, `algorithm1`, `release`, `uniform` | `release` | ``eq17``" in pairwise
    assert "| `training` | [TrainingParams](#TrainingParams) |" in page
    assert "| `recipe` | string |  | Name of an entry" in page
    # In code as it is, elsewhere not as the beginning of a tag.
    assert "``reviews_<category>_5.json.gz``" in page and not re.search(r"<\w", re.sub(r"``.+?``|`.+?`", "", page))
