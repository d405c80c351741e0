"""A study on the tracking server: its parent run, stand-ins for reused runs, trainings that could not record
their own end.

For the driver processes of a study, one a machine, several at once. Explicit run ids only. Knows nothing of
Optuna or of cells: names and numbers come in as they are to be shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tenacity import retry, stop_after_attempt, wait_random

from imagenette.errors import InputError, RunError, hide_secrets
from imagenette.results import Status, summary_of
from imagenette.tracking import views
from imagenette.tracking.adoption import candidate, parent_of
from imagenette.tracking.client import check_alive, connect, first_line, one_line, resolve_uri
from imagenette.tracking.deliver import as_metrics, log_missing_params, set_tags
from imagenette.tracking.environment import EXPERIMENT, take_outer_run
from imagenette.tracking.experiments import look_in
from imagenette.tracking.mlflow_tracker import finite
from imagenette.tracking.outbox import Card, Outbox, count_lacking, holds_run, read_card, read_refused
from imagenette.tracking.outer_run import hand_over
from imagenette.tracking.provenance import process_tags, source_tags
from imagenette.tracking.reuse import find_reusable, shared_tags, shown_metrics
from imagenette.tracking.runs import UID, create_run, find_run, get_run
from imagenette.tracking.sync import end_lost, sync_one

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_FOLDER = "study"
_NOTE = "mlflow.note.content"
_WAITS = "the study goes on, its parent run waits"
_PROBE_SECONDS = 2.0
_Done = TypeVar("_Done")


class StudyRun:
    """The parent run of a study on the tracking server. For one thread."""

    def __init__(self, client: MlflowClient, uri: str, run: Run, *, study: str, uid: str) -> None:
        self._client, self._uri = client, uri
        self.run_id: str = run.info.run_id
        self.study, self.uid = study, uid
        self.experiment_id: str = run.info.experiment_id
        self.experiment: str = client.get_experiment(self.experiment_id).name
        """Where the parent is, and its children must be: that of `mlflow run` where it was adopted."""
        self._named: str | None = None
        self._measured: dict[str, tuple[int, float]] = {}
        self._dead = False
        self._printed: set[str] = set()

    @classmethod
    def open(
        cls,
        *,
        tracking_uri: str | None,
        experiment: str | None,
        name: str,
        uid: str,
        params: dict[str, str],
        tags: dict[str, str],
        description: str,
        known_run_id: str | None,
        register: Callable[[str | None, str], str],
        files: list[Path],
    ) -> Self:
        """Find the study's run, else make it, and set it running.

        experiment: a name; None = the usual one, for a study that may reuse runs of any.
        known_run_id: the parent as the study's database has it. register(replaced, run_id): name another
        parent there if it still is `replaced`, by one atomic step; the id that stands, whoever named it.
        The run `mlflow run` made (MLFLOW_RUN_ID, which is removed from the environment) becomes the parent
        where there is none yet, else is marked as its launcher.
        Raises RunError, in one line and within 10 s, if the server is dead, or if a first driver's
        MLFLOW_RUN_ID is not there; InputError if the experiment is deleted.
        """
        outer_run_id = take_outer_run()
        uri = resolve_uri(tracking_uri)
        with _needed(uri):
            client = connect(uri)
            place = experiment or EXPERIMENT
            new = partial(candidate, client, place, name=name, uid=uid, outer_run_id=outer_run_id)
            run = parent_of(client, uid, known_run_id, new=new, register=register)
            if outer_run_id not in (None, run.info.run_id):
                hand_over(client, outer_run_id, run.info.run_id)
            parent = cls(client, uri, run, study=name, uid=uid)
            parent._keep_views([key.removeprefix("varied.") for key in params if key.startswith("varied.")])
            parent._named = parent.experiment if experiment else None
            parent._fill_in(params, tags, files=files, description=description)
        return parent

    @property
    def page(self) -> str | None:
        """Where MLflow shows the study's runs in their arms; None of a store without pages."""
        return views.link(self._uri, self.experiment_id, views.key_of_study(self.study))

    def _keep_views(self, knobs: list[str]) -> None:
        found = {views.LEADERBOARD: views.leaderboard()}
        with suppress(InputError):  # a name that no filter can hold
            found[views.key_of_study(self.study)] = views.of_study(self.study, knobs)
        views.keep(self._client, self.experiment_id, found)

    def _note(self, description: str) -> dict[str, str]:
        """The description under the links that open the study's runs."""
        at = partial(views.path, self.experiment_id, views.key_of_study(self.study))
        links = f"[The runs by arm]({at()}), [as curves]({at(charts=True)})"
        return {_NOTE: f"{links}\n\n{description}"} if description else {}

    def refresh(self, *, files: list[Path], description: str, metrics: dict[str, float], step: int) -> bool:
        """Replace artifacts and description, log metrics that changed, show that this driver lives.

        Whether the server has it. A dead server costs a few seconds, and one line on stderr until it is
        back. A run that another driver ended is set running again: this driver still is.
        """
        show = partial(self._show, files=files, description=description, metrics=metrics, step=step)
        return bool(self._attempt(show))

    def end(self, status: Status, *, reason: str = "", description: str) -> bool:
        """End the run; FINISHED only if every cell is. Whether the server has it."""
        why = {"reason": reason} if reason else {}

        def end() -> bool:
            if not reason:
                self._forget_reason()
            set_tags(self._client, self.run_id, {"status": status, **why, **self._note(description)})
            self._client.set_terminated(self.run_id, status=status.mlflow)
            return True

        return bool(self._attempt(end))

    def reusable(self, digests: Iterable[str], *, data_digest: str) -> dict[str, Run]:
        """The oldest finished run for each config digest that has one on this data: in this experiment where
        one was named, else in any.

        Runs with an accuracy that is not finite do not count, nor runs that were themselves reused.
        Raises RunError if the server does not answer.
        """
        with _needed(self._uri):
            places = look_in(self._client, self._named)
            return find_reusable(self._client, places, digests, data_digest=data_digest)

    def add_reused(self, *, name: str, arm: str, source: Run, trial: int) -> str:
        """A finished child that stands for a run trained elsewhere: its id. Again is a no-op.

        Raises RunError if the server does not answer; called again, it goes on where it stopped.
        """
        source_id, params = source.info.run_id, source.data.params
        link = f"[{source.info.run_name}]({views.path_of_run(source.info.experiment_id, source_id)})"
        tags = shared_tags(source) | {"arm": arm, "trial": str(trial), "reused_run": source_id}
        tags[_NOTE] = f"Not trained again: {link} is a finished run of the same config on the same data."
        with _needed(self._uri):
            run = self._child(uid=f"{self.uid}:{name}:reused", name=name, tags={**tags, "role": "reused"})
            run_id: str = run.info.run_id
            if run.info.status != "FINISHED":
                log_missing_params(self._client, run, params)
                # The time is the run's own, so that a repeat is stored once. What a run has once stands at
                # step 0, as a training logs it; the rest is of its last epoch.
                shown, when, last = shown_metrics(source), run.info.start_time, params.get("epochs", 0)
                once = summary_of(shown)
                self._log_metrics(run_id, once, timestamp=when, step=0)
                rest = {name: value for name, value in shown.items() if name not in once}
                self._log_metrics(run_id, rest, timestamp=when, step=int(float(last)))
                set_tags(self._client, run_id, {**tags, "status": Status.FINISHED})
                self._client.set_terminated(run_id)
            elif run.data.tags.get("trial") != str(trial):  # its driver died before it closed the trial
                set_tags(self._client, run_id, {"trial": str(trial)})
            return run_id

    def record_failure(
        self,
        *,
        name: str,
        arm: str,
        seed: str,
        trial: int | None,
        reason: str,
        output: Path | None,
        run_id: str | None,
        uid: str,
    ) -> str | None:
        """Record that a training failed which could not record it itself; the id of its run.

        Into the outbox of `output` if there is one here, else into the run `run_id`, else into a child
        made for it, which `uid` names. A run that recorded its own end keeps it.
        None while the server, or a process that still holds the outbox, is in the way: try again later.
        """
        if output is not None and holds_run(output):
            return self._attempt(lambda: self._send(output)) if self._recorded(output, reason) else None

        def fail() -> str:
            run = get_run(self._client, run_id) if run_id else None
            if run is None or run.info.lifecycle_stage != "active":
                number = {} if trial is None else {"trial": str(trial)}
                tags = {**source_tags(), "role": "trial", "arm": arm, "seed": seed, **number}
                run = self._child(uid=uid, name=name, tags=tags)
            if not _recorded_its_end(run):
                set_tags(self._client, run.info.run_id, {"status": Status.FAILED, "reason": reason})
                self._client.set_terminated(run.info.run_id, status=Status.FAILED.mlflow)
            return str(run.info.run_id)

        return self._attempt(fail)

    def _recorded(self, output: Path, reason: str) -> bool:
        """Make the outbox end with an end, server or not; False while it cannot be written."""
        try:
            with Outbox(output) as outbox:
                last = outbox.records[-1] if outbox.records else None
            if last is None or last.kind != "end" or last.body["tags"]["status"] == Status.PREEMPTED:
                end_lost(output, reason, offline=True)
        except (InputError, RunError) as error:  # a process still holds it; the disk is full
            if str(error) not in self._printed:
                print(f"imagenette: {error}", file=sys.stderr)
            self._printed.add(str(error))
            return False
        return True

    def _send(self, output: Path) -> str | None:
        sync_one(output, None if read_card(output).tracking_uri else self._uri, login=self._uri)
        pending = count_lacking(output) - len(read_refused(output))
        return None if pending else read_card(output).run_id

    @retry(stop=stop_after_attempt(3), wait=wait_random(0.1, 0.5), reraise=True)
    def _fill_in(
        self, params: dict[str, str], tags: dict[str, str], *, files: list[Path], description: str
    ) -> None:
        """Tried again, because another driver may log the same params between our look and our call."""
        run = self._client.get_run(self.run_id)
        log_missing_params(self._client, run, params)
        source = {key: value for key, value in source_tags().items() if key not in run.data.tags}
        set_tags(self._client, self.run_id, {**source, **tags, UID: self.uid})
        self._show(files=files, description=description, metrics={}, step=0)

    def _show(self, *, files: list[Path], description: str, metrics: dict[str, float], step: int) -> bool:
        """Set running under this process, and bring all that is shown up to date."""
        self._client.update_run(self.run_id, status="RUNNING", name=self.study)
        tags = {"study": self.study, "role": "study", "status": Status.RUNNING}
        set_tags(self._client, self.run_id, {**tags, **process_tags(), **self._note(description)})
        new = {k: v for k, v in finite(metrics).items() if self._measured.get(k) != (step, v)}
        self._log_metrics(self.run_id, new, timestamp=time.time_ns() // 1_000_000, step=step)
        self._measured |= {key: (step, value) for key, value in new.items()}
        for file in files:
            self._client.log_artifact(self.run_id, str(file), _FOLDER)
        return True

    def _log_metrics(self, run_id: str, metrics: dict[str, float], *, timestamp: int, step: int) -> None:
        body = {"metrics": metrics, "timestamp": timestamp, "step": step}
        self._client.log_batch(run_id, metrics=as_metrics(body))

    def _child(self, *, uid: str, name: str, tags: dict[str, str]) -> Run:
        """The child that uid names, made if need be."""
        card = Card(
            uid=uid,
            experiment=self.experiment,
            run_name=name,
            tags={"study": self.study, **tags},
            start_time=time.time_ns() // 1_000_000,
            parent_run_id=self.run_id,
        )
        return find_run(self._client, card) or create_run(self._client, card)

    def _forget_reason(self) -> None:
        """What an earlier end left, before the study went on."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # there is none
            self._client.delete_tag(self.run_id, "reason")

    def _attempt(self, work: Callable[[], _Done]) -> _Done | None:
        """What work returns; None where it fails, with one line on stderr until the server is back."""
        try:
            check_alive(self._uri, timeout=_PROBE_SECONDS, advice=_WAITS)
            done = work()
        except Exception as error:  # whatever it is, the study goes on and comes again
            if not self._dead:
                ours = isinstance(error, InputError | RunError)
                uri = hide_secrets(self._uri)
                refusal = f"tracking server {uri} does not take records ({first_line(error)}): {_WAITS}"
                print(f"imagenette: {error if ours else refusal}", file=sys.stderr)
            self._dead = True
            return None
        if self._dead:
            print(f"imagenette: tracking server {hide_secrets(self._uri)} is back", file=sys.stderr)
        self._dead = False
        return done


@contextmanager
def _needed(uri: str) -> Iterator[None]:
    """Any failure of the server inside is a RunError of one line; that of a dead one comes at once."""
    check_alive(uri, advice="start it, a study needs it")
    with one_line(uri):
        yield


def _recorded_its_end(run: Run) -> bool:
    """`preempted` does not count: it only means that the run was to go on."""
    word = run.data.tags.get("status")
    if run.info.status == "RUNNING" or word in (None, Status.RUNNING, Status.PREEMPTED):
        return False
    return word in (Status.FINISHED, Status.PRUNED) or bool(run.data.tags.get("reason"))
