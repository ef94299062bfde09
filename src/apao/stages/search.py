"""The command ``search``: hyper-parameters of several objectives, with the same number of trials for each, by Optuna.

A trial is an ordinary run with overrides in its name, trained and evaluated as always: one that is finished already is
not trained again. Its score is a metric of the lists for the validation items, which is the same for all objectives, as
their losses are not. Optuna proposes the values and keeps the trials in a file per objective.

Each trial has a sampler with a seed of its own, so that the values depend only on the search's seed and on the trials
before. A search that was interrupted therefore repeats the trial that it was at, whose run resumes from its checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from apao.errors import Diverged, UserError, nearest
from apao.files import explained, locked, read_json, read_record, record_path, sha256_of, verified
from apao.progress import console
from apao.report.values import number
from apao.stages.evaluate import evaluate
from apao.stages.record import hashes_of
from apao.stages.train import train
from apao.study.params import Params
from apao.study.paths import SEARCHES, DatasetPaths
from apao.study.references import owners
from apao.study.run_params import RunParams, RunRecord, TrainedParams, first_difference
from apao.study.runs import Run
from apao.study.searches import Search, parts_of, space_of
from apao.study.tuned import BY_SEARCH, Tuning
from apao.trackers.base import Tracker
from apao.training.loop import Row, stream_seed

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.pruners import MedianPruner, NopPruner
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError as error:
    raise UserError(f'apao search needs Optuna ({error}): pip install "apao[search]"') from error

METRIC = "ndcg@10"
"""Metric of the validation items by which trials are compared."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

Version = Callable[[TrainedParams], str]
"""The version of the code that trains a run."""


def search(
    name: str,
    params: Params,
    objectives: Collection[str],
    device: torch.device,
    version: Version,
    tracker: Tracker | None,
) -> Iterator[tuple[str, Tuning]]:
    """Search the best values of each objective, or continue; yields them as pairs of objective and tuning.

    Args:
        name: a search of params.yaml.
        params: of the whole project.
        objectives: those to search; empty for all of the search.
        device: where to train and to evaluate.
        version: gives the version of the code that trains; what another one trained is trained again.
        tracker: gets the numbers of every trial.

    Raises:
        UserError: for an unknown name, trials of an earlier search with other parameters, or no finished trial.
    """
    entry = params.search(name)
    for objective in objectives:
        if objective not in entry.objectives:
            raise UserError(f"searches.{name} has no objective {objective!r}; {nearest(objective, entry.objectives)}")
    chosen = [objective for objective in entry.objectives if objective in (objectives or entry.objectives)]
    for each in chosen:
        yield each, ObjectiveSearch(name, entry, each, params, device, version, tracker).tuning()


class ObjectiveSearch:
    """The trials of one objective."""

    def __init__(
        self,
        name: str,
        entry: Search,
        objective: str,
        params: Params,
        device: torch.device,
        version: Version,
        tracker: Tracker | None,
    ) -> None:
        self.name, self.entry, self.objective, self.params = name, entry, objective, params
        self.device, self.version, self.tracker = device, version, tracker
        self.space = space_of(params, entry, objective)
        if absent := [key for key in entry.space if key not in self.space]:
            console.print(f"{objective} is searched without {', '.join(absent)}, which it does not have")
        self.journal = SEARCHES / name / f"{objective}.journal"

    def tuning(self) -> Tuning:
        """The values of the best trial, after training those that are missing."""
        with _alone(self.journal):
            study = self._study()
            while len(done := study.get_trials(deepcopy=False, states=DONE)) < self.entry.trials:
                self._trial(study, len(done))
        done = done[: self.entry.trials]
        complete = [trial for trial in done if trial.state == TrialState.COMPLETE]
        if not complete:
            raise UserError(f"{self.journal}: none of its {len(done)} trials was trained to its end; change the space")
        best = max(complete, key=lambda trial: trial.value or 0.0)
        by = f"{BY_SEARCH}: best of {len(done)} trials of search {self.name}, validation {METRIC}"
        if len(complete) < len(done):
            by += f", {len(done) - len(complete)} of them stopped early"
        place = f"{self.entry.dataset}/{self.entry.backbone}"
        return Tuning(chosen_by=by, values={place: dict(self._run(best.params).overrides)})

    def _study(self) -> optuna.Study:
        """Optuna's study with all trials so far, none of them running.

        Raises:
            UserError: when its trials are of other parameters, data or code, or the file is damaged.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            # An absolute path, since Optuna's lock is a link to the file.
            storage = JournalStorage(JournalFileBackend(str(self.journal.resolve())))
            study = optuna.create_study(
                storage=storage,
                study_name=f"{self.name}/{self.objective}",
                direction="maximize",
                pruner=MedianPruner() if self.entry.median_stopping else NopPruner(),
                load_if_exists=True,
            )
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self.journal}: damaged ({error}); delete it to search again; finished runs are kept"
            ) from error
        facts = self._facts()
        if "facts" not in study.user_attrs:
            study.set_user_attr("facts", facts)
        if difference := first_difference(study.user_attrs["facts"], facts):
            raise UserError(
                f"{self.journal}: its trials were made with {difference}; delete it to search again (finished "
                "runs are kept), or give the search another name"
            )
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            # Of a process that was stopped. The next trial has the same values, since failed ones do not count.
            study.tell(trial.number, state=TrialState.FAIL)
        return study

    def _facts(self) -> Any:
        """What all trials have in common, as JSON values: without it they could not be compared."""
        params, paths = self.params.resolve(self.entry.run(self.objective)), DatasetPaths(self.entry.dataset)
        fixed = params.for_training()
        for part in ("objective", "training", "backbone"):
            fixed[part] = {key: value for key, value in fixed[part].items() if key not in self.space}
        return {
            "code": self.version(params),
            "seed": self.entry.seed,
            "median_stopping": self.entry.median_stopping,
            "space": {key: dimension.model_dump(mode="json") for key, dimension in self.space.items()},
            "params": {**fixed, "decoding": params.decoding.model_dump(mode="json")},
            "inputs": hashes_of([paths.interactions, paths.codes]),
        }

    def _run(self, drawn: dict[str, Any]) -> Run:
        values = {key: dimension.rounded(drawn[key]) for key, dimension in self.space.items()}
        return self.entry.run(self.objective, **values)

    def _distributions(self) -> dict[str, BaseDistribution]:
        first = {key: dimension.probes[0] for key, dimension in self.space.items()}
        parts = parts_of(self.params, self.entry.run(self.objective, **first))
        owner = owners(parts)
        found: dict[str, BaseDistribution] = {}
        for key, dimension in self.space.items():
            if dimension.choices is not None:
                found[key] = CategoricalDistribution(dimension.choices)
            elif isinstance(getattr(parts[owner[key]], key), int):
                low, high = map(int, dimension.ends)
                found[key] = IntDistribution(low, high, dimension.log)
            else:
                found[key] = FloatDistribution(*dimension.ends, dimension.log)
        return found

    def _trial(self, study: optuna.Study, index: int) -> None:
        """Make the trial that follows ``index`` others."""
        study.sampler = TPESampler(seed=stream_seed(self.entry.seed, index))
        trial = study.ask(self._distributions())
        run = self._run(trial.params)
        console.print(f"{self.name}: trial {index + 1} of {self.entry.trials}, {run}")
        params = self.params.resolve(run)
        if params.start is not None:
            # Here, so that if this one diverges it is an error and not the end of a trial. Searches side by side share
            # this run.
            start = Run.parse(params.start.run)
            lock = SEARCHES / f"{str(start).replace('/', '-')}.lock"
            with locked(lock, partial(console.print, f"waiting for another search that trains {start}")):
                self._train(start)
        finished = self._is_trained(run, params)

        def report(row: Row) -> None:
            trial.report(-row["valid_loss"], int(row["epoch"]))
            if trial.should_prune() and not finished:
                raise optuna.TrialPruned(f"epoch {row['epoch']:.0f} is worse than the median of earlier trials")

        earlier = run.model.exists()  # trained with other code or data, and whole until the new training ends
        try:
            self._train(run, report)
        except (optuna.TrialPruned, Diverged) as stopped:
            console.print(f"{run} is stopped{'' if earlier else ' and removed'}: {stopped}")
            run.checkpoint.unlink(missing_ok=True)
            if run.folder.exists() and not earlier:
                shutil.rmtree(run.folder)
                with suppress(OSError):  # other seeds of this run may be there
                    run.folder.parent.rmdir()
            study.tell(trial, state=TrialState.PRUNED)
            return
        score = self._score(run)
        console.print(f"{run}: validation {METRIC} {score:.4f}")
        study.tell(trial, score)

    def _train(self, run: Run, on_epoch: Callable[[Row], None] = lambda row: None) -> None:
        """Train a run, after the one it starts from, if it is not finished; ``on_epoch`` gets all rows in any case."""
        params = self.params.resolve(run)
        if params.start is not None:
            self._train(Run.parse(params.start.run))
        if self._is_trained(run, params):
            history = pd.read_csv(verified(run.folder / "history.csv"))
            for epoch, loss in zip(history["epoch"], history["valid_loss"], strict=True):
                on_epoch({"epoch": epoch, "valid_loss": loss})
        else:
            train(
                run,
                params,
                self.device,
                code=self.version(params),
                on_epoch=on_epoch,
                tracker=self.tracker,
            )

    def _is_trained(self, run: Run, params: TrainedParams) -> bool:
        """Whether a run is finished, by this code, with these parameters and with the inputs that there are."""
        path = record_path(run.folder, "train")
        if not path.exists() or read_record(path).get("code") != self.version(params):
            return False
        record = RunRecord.read(run)
        return record.difference(params) is None and record.inputs == hashes_of(params.training_inputs())

    def _score(self, run: Run) -> float:
        """The validation metric of a trained run, which is evaluated if that is not done."""
        params = RunRecord.read(run).decoded(self.params.decoding_of(run.dataset))
        if not _is_evaluated(run, params):
            evaluate(run, params, self.device, self.tracker)
        path = verified(run.folder / "metrics.json")
        return number(path, read_json(path), "valid", METRIC)


def _is_evaluated(run: Run, params: RunParams) -> bool:
    """Whether the trained weights are evaluated with these parameters."""
    path = record_path(run.folder, "evaluate")
    if not path.exists():
        return False
    record = read_record(path)
    return record["params"] == params.for_evaluation() and record["inputs"][str(run.model)] == sha256_of(run.model)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from using the file at the same time.

    Raises:
        UserError: when another process does, or the disk is full.
    """
    try:
        with locked(path):
            yield
    except BlockingIOError as error:
        raise UserError(f"{path}: another process makes its trials; wait, or search another objective") from error
    except OSError as error:
        raise explained(error, path) if error.filename is None else error from error
