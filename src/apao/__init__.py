"""apao: training generative recommenders for beam search, from raw data to every figure."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apao.stages.load import load
    from apao.stages.recommender import Recommender
    from apao.study.runs import Run

__all__ = ["Recommender", "Run", "load"]
__version__ = "0.1.0"

_HOME = {"Recommender": "apao.stages.recommender", "Run": "apao.study.runs", "load": "apao.stages.load"}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: torch takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
