"""Registered classes are available in params.yaml; parameter models refuse invalid values."""

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from apao.errors import AtKey, UserError, nearest
from apao.parameters import Model, Registry


class Shape(Model):
    """Registered below."""

    type: str
    sides: int = 4
    """How many."""
    round: bool | None = None
    sizes: tuple[float, ...] = ()
    flags: tuple[bool, ...] = ()
    more: dict[str, Any] | None = None


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, each with a class, and a registry that has read neither."""
    folder = tmp_path / "shapes_of_a_test"
    folder.mkdir()
    head = "from typing import Literal\nfrom shapes_of_a_test import SHAPES\nfrom test_registry import Shape\n"
    (folder / "__init__.py").write_text("from apao.parameters import Registry\nSHAPES = Registry('shape', __name__)\n")
    for name in ("square", "circle"):
        text = f"@SHAPES.register\nclass {name.title()}(Shape):\n    type: Literal['{name}']\n"
        (folder / f"{name}_module.py").write_text(head + text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    yield folder
    for module in [name for name in sys.modules if name.startswith("shapes_of_a_test")]:
        del sys.modules[module]


def test_a_class_is_found_by_lying_in_the_package(package):
    from shapes_of_a_test import SHAPES

    assert list(SHAPES) == ["circle", "square"]
    assert [cls.__name__ for cls in SHAPES.classes()] == ["Circle", "Square"]
    assert SHAPES["square"](type="square").sides == 4
    with pytest.raises(UserError, match=r"unknown shape 'squire'; did you mean 'square'\? known: circle, square"):
        SHAPES["squire"]


def test_one_name_one_class():
    registry: Registry[Shape] = Registry("shape", "apao.objectives")

    @registry.register
    class Square(Shape):
        type: Literal["square"]

    with pytest.raises(ValueError, match="two shapes are called 'square'"):

        @registry.register
        class Quadrat(Shape):
            type: Literal["square"]


def key_and_message(error: ValidationError) -> tuple[tuple[str | int, ...], str]:
    first = error.errors()[0]
    found = first["ctx"]["error"]
    assert isinstance(found, AtKey)
    return found.key, str(found)


def test_an_unknown_key_is_answered_with_the_nearest():
    with pytest.raises(ValidationError) as caught:
        Shape(type="any", side=3)
    key, message = key_and_message(caught.value)
    assert key == ("side",)
    assert message.startswith("unknown key 'side'; did you mean 'sides'? known: flags, more, round, sides, ")


@pytest.mark.parametrize("values", [{"sides": True}, {"sizes": [1.5, False]}, {"sizes": (True,)}, {"type": False}])
def test_yes_and_no_are_no_numbers_and_no_names(values):
    with pytest.raises(ValidationError) as caught:
        Shape(**{"type": "any", **values})
    key, message = key_and_message(caught.value)
    assert key == tuple(values) and "expected a number or a name" in message


@pytest.mark.parametrize("values", [{"round": True}, {"flags": [True, False]}, {"more": {"a": True}}])
def test_yes_and_no_are_taken_where_they_belong(values):
    found = Shape(type="any", **values)
    name, value = next(iter(values.items()))
    assert getattr(found, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "inf"])
def test_numbers_are_finite(value):
    with pytest.raises(ValidationError, match="finite"):
        Shape(type="any", sizes=[value])


def test_parameters_do_not_change():
    shape = Shape(type="any")
    with pytest.raises(ValidationError, match="frozen"):
        shape.sides = 3


def test_what_is_no_mapping():
    with pytest.raises(ValidationError, match="valid dictionary"):
        Shape.model_validate(3)


def test_docstrings_reach_the_schema():
    assert Shape.model_json_schema()["properties"]["sides"]["description"] == "How many."


@pytest.mark.parametrize(
    ("word", "known", "text"),
    [
        ("betta", ["eta", "beta"], "did you mean 'beta'? known: beta, eta"),
        ("xyz", ["eta", "beta"], "known: beta, eta"),
        ("x", [], "known: none"),
    ],
)
def test_nearest(word, known, text):
    assert nearest(word, known) == text
