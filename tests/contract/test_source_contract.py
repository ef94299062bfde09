"""Contract of ``data.base``, for every registered data source; without downloads."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest

from apao.data.base import SOURCES, Source

BASE = {"recipe": "small", "codes": "some"}


@pytest.fixture(params=list(SOURCES))
def cls(request) -> type[Source]:
    return SOURCES[request.param]


@pytest.fixture
def source(cls) -> Source:
    """An entry with only its required keys: the first value of a choice, made-up values otherwise."""
    required = {}
    for name, field in cls.model_fields.items():
        if field.is_required() and name not in BASE:
            choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
            required[name] = choices[0] if choices else "some.csv" if field.annotation is Path else "some"
    return cls(**BASE, **required)


def test_documented(cls):
    for thing in (cls, cls.download, cls.read, *([cls.published_codes] if cls.publishes_codes else [])):
        assert thing.__doc__
    assert cls.__dict__["__doc__"] and sys.modules[cls.__module__].__doc__


def test_defaults(source):
    assert source.core == 5
    assert len(set(source.text)) == len(source.text)
    assert set(source.fetched_by) <= set(type(source).model_fields) - {"source", "core", "recipe", "codes"}


def test_published_codes_are_declared(cls):
    assert cls.publishes_codes == (cls.published_codes is not Source.published_codes)


def test_parameters_survive_json(source):
    assert type(source).model_validate(json.loads(source.model_dump_json())) == source


def test_a_core_that_leave_one_out_cannot_split_is_refused(source):
    values = source.model_dump()
    type(source).model_validate({**values, "core": 3})
    for core in (2, 0, -1, 2.5):
        with pytest.raises(ValueError, match="core"):
            type(source).model_validate({**values, "core": core})


def test_unknown_keys_are_refused_by_name(source):
    with pytest.raises(ValueError, match="unknown key 'corr'; did you mean 'core'"):
        type(source).model_validate({**source.model_dump(), "corr": 5})


def test_every_entry_of_params_yaml_is_one_of_them(params):
    for name, entry in params.datasets.items():
        assert SOURCES[entry.source] is type(entry), name
        assert set(entry.text) <= set(type(entry).model_fields["text"].default or entry.text), name
