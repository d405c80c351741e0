"""The run that `mlflow run` made before any of our code ran, where the work is not that run's own: its
description says where the work went on, or what came of a command that trains nothing. No fluent call adopts
it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError
from imagenette.results import Status
from imagenette.tracking import views
from imagenette.tracking.client import connect, first_line, one_line, resolve_uri
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.environment import take_outer_run

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def outer_run(client: MlflowClient, role: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that describes that run in a text; an InputError or RunError inside describes it
    too."""
    run_id = take_outer_run()

    def describe(text: str) -> None:
        if run_id:
            set_tags(client, run_id, {"role": role, "mlflow.note.content": text})

    try:
        yield describe
    except (InputError, RunError) as error:
        describe(str(error))
        raise


def end_stopped(tracking_uri: str | None) -> None:
    """End that run where its command was asked to stop before it came to anything."""
    if run_id := take_outer_run():
        uri = resolve_uri(tracking_uri)
        with one_line(uri):
            client = connect(uri)
            reason = "stopped on request before the first step"
            set_tags(client, run_id, {"status": Status.PREEMPTED, "reason": reason})
            client.set_terminated(run_id, status=Status.PREEMPTED.mlflow)


def hand_over(client: MlflowClient, outer_run_id: str, run_id: str) -> None:
    """Mark the run `mlflow run` made as the mere launcher of the run, already there, that goes on: by its
    name too, for MLflow gave it a random one."""
    try:
        run = client.get_run(run_id).info
        address = views.path_of_run(run.experiment_id, run_id)
        note = f"Launcher only: the work went on in run [{run.run_name}]({address}), `{run_id}`."
        tags = {"resumed_run": run_id, "role": "launcher", "mlflow.note.content": note}
        client.update_run(outer_run_id, name=f"launcher of {run.run_name}")
        set_tags(client, outer_run_id, {"status": Status.RESUMED, **tags})
    except Exception as error:  # best effort: the work itself is not touched by it
        print(f"imagenette: could not mark launcher run {outer_run_id}: {first_line(error)}", file=sys.stderr)
