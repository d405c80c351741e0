"""A study's trials as Optuna keeps them: opened, closed, brought in line with the rows. The rows decide; what
is done here may be done twice, or by anybody."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from imagenette.config import Config
from imagenette.results import Status
from imagenette.study.queue import Row
from imagenette.study.schema import Choices, Range, Search

STATES = {
    Status.FINISHED: TrialState.COMPLETE,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}
IMPORTANCE = "fANOVA (Hutter et al. 2014)"


class Trials:
    """One study in Optuna's storage. search: for a study that asks a sampler."""

    def __init__(
        self, storage: optuna.storages.RDBStorage, study_id: int, *, search: Search | None = None
    ) -> None:
        self._storage, self._id, self._search = storage, study_id, search
        self._study: optuna.Study | None = None

    def name_objective(self, objective: str) -> None:
        """Have Optuna and its dashboard call the value by its metric. Drivers may do it at once."""
        if self.study.metric_names != [objective]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names([objective])

    def open(self, row: Row, *, seed: int) -> Row:
        """Make a RUNNING trial for a claimed row: with the row's values, or with what the sampler draws. The
        row with its trial and values."""
        attrs = {"cell": row.cell, "attempt": row.attempt, "host": row.host or ""}
        if row.values:
            trial = self._frozen(row, state=TrialState.RUNNING, user_attrs=attrs)
            trial_id = self._storage.create_new_trial(self._id, trial)
            return replace(row, trial_id=trial_id, trial=self._storage.get_trial(trial_id).number)
        assert self._search is not None
        # A sampler of its own for each trial: workers that share a seed would all try the same values.
        self.study.sampler = _sampler(self._search, seed=1000 * self._search.seed + row.position)
        asked = self.study.ask({name: _range(kind) for name, kind in self._search.space.items()})
        for name, value in attrs.items():
            asked.set_user_attr(name, value)
        values = {**asked.params, "seed": seed}
        return replace(row, trial_id=asked._trial_id, trial=asked.number, values=values)

    def report(self, trial_id: int, accuracies: Mapping[int, float]) -> bool:
        """Tell the accuracy of each epoch, and whether the pruner would stop here."""
        known = self._storage.get_trial(trial_id).intermediate_values
        try:
            for epoch, accuracy in accuracies.items():
                if epoch not in known:
                    self._storage.set_trial_intermediate_value(trial_id, epoch, accuracy)
        except optuna.exceptions.UpdateFinishedTrialError:  # taken back meanwhile: the claim's loss ends it
            return False
        return self.study.pruner.prune(self.study, self._storage.get_trial(trial_id))

    def close(self, trial_id: int, state: Status, value: float | None, **attrs: Any) -> None:
        """End a trial: FINISHED, PRUNED or FAILED. One that has ended already stays as it is."""
        try:
            for name, attr in attrs.items():
                if attr is not None:
                    self._storage.set_trial_user_attr(trial_id, name, attr)
            values = [value] if value is not None else None
            self._storage.set_trial_state_values(trial_id, STATES[state], values)
        except optuna.exceptions.UpdateFinishedTrialError:
            pass

    def reconcile(self, read_rows: Callable[[], Sequence[Row]]) -> None:
        """Close what dead workers left open: rows that ended while Optuna was not told, trials of attempts
        that were given up, trials that no row knows."""
        # The trials first: a row read afterwards is never older than its trial.
        running = self._storage.get_all_trials(self._id, deepcopy=False, states=(TrialState.RUNNING,))
        rows = {row.cell: row for row in read_rows()}
        for trial in running:
            row = rows.get(trial.user_attrs.get("cell", ""))
            if row is None:
                if all(other.ended for other in rows.values()):
                    self.close(trial._trial_id, Status.FAILED, None, reason="its worker was lost")
            elif row.ended and row.trial_id == trial._trial_id:
                about = {"reason": row.reason, "run_id": row.run_id, "output": row.output}
                self.close(trial._trial_id, row.state, row.value, **about)
            elif row.state != Status.RUNNING or row.attempt > trial.user_attrs.get("attempt", 0):
                reason = row.reason if row.state != Status.FINISHED else None
                self.close(trial._trial_id, Status.FAILED, None, reason=reason or "its worker was lost")

    @property
    def study(self) -> optuna.Study:
        """With the search's pruner; `open` gives it a sampler."""
        if self._study is None:
            self._study = optuna.load_study(
                study_name=self._storage.get_study_name_from_id(self._id),
                storage=self._storage,
                pruner=_pruner(self._search.pruner if self._search else "none"),
            )
        return self._study

    def _frozen(self, row: Row, **more: Any) -> FrozenTrial:
        """The row's values as a trial, in the space that Optuna's dashboard shows."""
        space = self._search.space if self._search else None
        known = {n: _range(space[n]) if space and n in space else _kind(n, v) for n, v in row.values.items()}
        kinds = {n: kind for n, kind in known.items() if kind and (space is None or n in space)}
        return optuna.create_trial(params={n: row.values[n] for n in kinds}, distributions=kinds, **more)


def importances(rows: Sequence[Row], *, search: Search | None = None) -> dict[str, float]:
    """Share of the objective's variance that each varied knob explains (the seed is one of them), by fANOVA
    on the finished cells, largest first; empty while fewer than two knobs vary or too few cells are done."""
    done = [row for row in rows if row.state == Status.FINISHED and row.value is not None]
    names = done[0].values if done else {}
    choices = {name: {row.values[name]: None for row in done} for name in names}
    varied = {name: list(values) for name, values in choices.items() if len(values) > 1}
    if len(varied) < 2 or len(done) < 4 * len(varied) or len({row.value for row in done}) == 1:
        return {}
    space = search.space if search else {}
    kinds = {n: _range(space[n]) if n in space else CategoricalDistribution(c) for n, c in varied.items()}
    study = optuna.create_study(direction="maximize")
    for row in done:
        params = {name: row.values[name] for name in varied}
        study.add_trial(optuna.create_trial(value=row.value, params=params, distributions=kinds))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _sampler(search: Search, *, seed: int) -> optuna.samplers.BaseSampler:
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    # constant_liar: other workers' running trials count as bad, so that no two try the same spot.
    return optuna.samplers.TPESampler(constant_liar=True, seed=seed)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()


def _range(dimension: Range | Choices) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.choices)
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _kind(name: str, value: Any) -> BaseDistribution | None:
    """For a grid: wide enough that later cells of the same knob fit too. None for free text (a path), whose
    values Optuna would want to know all in advance."""
    if isinstance(value, bool):
        return CategoricalDistribution((False, True))
    if isinstance(value, str):
        options = get_args(Config.model_fields[name].annotation)
        return CategoricalDistribution(options) if value in options else None
    return IntDistribution(0, 2**53) if isinstance(value, int) else FloatDistribution(0.0, 1e300)
