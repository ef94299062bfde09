"""Tuned values from finished sweeps: for every objective the best ones on the validation items."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from apao.errors import UserError, nearest
from apao.report.results import Results, seed_list
from apao.report.sweeps import best_point
from apao.study.runs import Value, format_value
from apao.study.sweeps import SweepStudy
from apao.study.tuned import BY_SWEEP, Tuning

if TYPE_CHECKING:
    from apao.study.params import Params


def tunings(name: str, params: Params, objectives: Collection[str]) -> list[tuple[str, Tuning]]:
    """The best values of the sweeps of the study ``name``, as pairs of objective and tuning, one per swept key.

    Sweeps of an objective with overrides are left out, since their best value may not be the best without overrides.

    Args:
        name: a study of the chosen scale that has sweeps.
        params: of the whole project.
        objectives: names of those to tune; empty for all that the study sweeps.

    Raises:
        UserError: when the study has no sweeps, or none of one of the objectives, or a run is not finished.
    """
    sweeping = {key: one for key, one in params.chosen_studies.items() if isinstance(one, SweepStudy)}
    if (study := sweeping.get(name)) is None:
        raise UserError(f"{name!r} is not a study of scale {params.scale} with sweeps; {nearest(name, sweeping)}")
    swept = [objective for objective in study.objectives if objective in params.objectives]
    for objective in objectives:
        if objective not in swept:
            raise UserError(
                f"studies.{params.scale}.{name} does not sweep {objective!r} without overrides; "
                f"{nearest(objective, swept)}"
            )
    results = Results(params)
    found: dict[tuple[str, str], dict[str, dict[str, Value]]] = {}
    tried: dict[tuple[str, str], str] = {}
    for curve in study.curves():
        if curve.objective not in (objectives or swept):
            continue
        place = f"{curve.dataset}/{curve.backbone}"
        best = best_point(study, results, curve).value
        found.setdefault((curve.objective, curve.key), {})[place] = {curve.key: best}
        tried[curve.objective, curve.key] = ", ".join(map(format_value, curve.values))
    by, seeds = f"{BY_SWEEP}: best validation {study.metric}", seed_list(study.seeds)
    return [
        (objective, Tuning(chosen_by=f"{by} of {key} in {tried[objective, key]}, seed {seeds}", values=values))
        for (objective, key), values in found.items()
    ]
