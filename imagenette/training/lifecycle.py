"""How a run gets its tracker, and how it ends: finished, preempted, pruned or failed. Rank 0's part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from imagenette.artifacts import CONFIG, LAST_MODEL, SELECTED_MODEL, write_tables
from imagenette.config import plugin as plugins
from imagenette.data import Dataset, Split
from imagenette.data.batches import EvalBatches
from imagenette.errors import InputError, RunError
from imagenette.network.self_test import SelfTest
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED, Status, describe, summary_metrics
from imagenette.tracking import Tracker
from imagenette.tracking.mlflow_tracker import MlflowTracker
from imagenette.tracking.outbox import Card
from imagenette.tracking.provenance import reproduce_command
from imagenette.training.checkpoint import Checkpoints
from imagenette.training.distributed import loader_threads
from imagenette.training.job import Job, Result
from imagenette.training.loop import Diverged
from imagenette.training.step import Task, TrainState

_OPENING_SECONDS = 8.0  # that a stopped run waits for a server that hangs: SIGKILL may follow soon


def open_tracker(
    job: Job, dataset: Dataset, task: Task, *, facts: Mapping[str, str], history: Sequence[Epoch] = ()
) -> Tracker:
    """The tracker of the run: a new one, or the one that the output folder belongs to. facts: tags on network
    and machine. history: epochs that are done.

    A dead server and a folder in use are refused here; the rest, MLflow's import above all, goes on in a
    thread once a first step is done, and the tracker raises what it meets."""
    config = job.config
    trial = {} if job.trial is None else {"trial": str(job.trial)}
    # A tag besides the param, which `mlflow run` has logged as it was typed, without the hash.
    plugin = {} if config.plugin == plugins.NONE else {"plugin": config.plugin}
    card = Card(
        experiment=job.experiment,
        run_name=job.name,
        params=config.params(),
        tags={
            **facts,
            "study": job.study,
            "arm": job.arm or job.setting,
            "seed": str(config.seed),
            "depth": str(config.depth),
            "role": "trial" if trial else "run",
            "config_digest": config.digest(),
            "selection": "holdout" if task.holdout is not None else "test",
            "output": str(job.output.resolve()),
            "reproduce": reproduce_command(config.params()),
            **trial,
            **plugin,
        },
        dataset={
            "name": dataset.name,
            "digest": dataset.digest,
            "source": dataset.source,
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
            "classes": len(dataset.classes),
            "side": dataset.side,
        },
        parent_run_id=job.parent,
    )
    try:
        return MlflowTracker(
            job.output,
            card,
            tracking_uri=job.tracking_uri,
            offline=job.offline,
            files=[job.output / CONFIG],
            history=history,
        )
    except RunError as error:
        _write_untracked(job, error)
        raise


def _write_untracked(job: Job, error: RunError) -> None:
    """The run could not be opened, and the result says so: whoever started this may try again."""
    Result(status=Status.UNTRACKED, message=str(error)).write(job.output)


def finish(
    job: Job,
    dataset: Dataset,
    task: Task,
    state: TrainState,
    store: Checkpoints,
    last: Predictions,
    tracker: Tracker,
    *,
    doing: Callable[[str], None] = lambda what: None,
) -> Result:
    """Tables, the selected and the last model, figures, the result in words; then the tracker is closed.

    doing: told what is under way."""
    # Here, not above: they bring in MLflow and matplotlib, seconds that only rank 0's end needs to spend.
    from imagenette.network.export import WEIGHTS, save_model
    from imagenette.network.models import is_plugin_s
    from imagenette.training.run_figures import draw_summary

    config, test = job.config, task.test
    doing("writing tables")
    metrics = summary_metrics(state.history, holdout=task.holdout is not None)
    selected = store.selected()
    pictures = _pictures(dataset.test, config.eval_size)
    folder, predictions = job.output / "summary", {FINAL: last, SELECTED: selected.predictions}
    classes: dict[str, Sequence[str]] = {"classes": dataset.classes, "labels": dataset.labels}
    for path in write_tables(folder, state.history, predictions, names=dataset.test.names, **classes):
        tracker.artifact(path)
    plugin = plugins.loaded() if config.plugin != plugins.NONE else None
    about = {"data_digest": dataset.digest, "depth": str(config.depth)}
    if plugin and is_plugin_s(config.architecture):
        about["plugin"] = f"{plugin.file}#{plugin.hash}"  # without it the network cannot be built again
    weights = {SELECTED_MODEL: (selected.epoch, selected.net, selected.predictions)}
    if selected.epoch != config.epochs:
        weights[LAST_MODEL] = (config.epochs, copy.deepcopy(state.judged.state_dict()), last)
    for name, (epoch, net, answers) in weights.items():
        doing(f"saving the {name} model")
        state.judged.load_state_dict(net)
        path = job.output / "models" / name
        save_model(
            state.judged,
            path,
            **classes,
            side=dataset.side,
            size=config.eval_size,
            mean=dataset.mean,
            std=dataset.std,
            architecture=config.network,
            self_test=SelfTest.sample(dataset.test.names, pictures, answers),
            plugin=plugin,
            metadata=about | {"epoch": str(epoch)},
        )
        tracker.model(name, path, step=epoch, metrics=state.history[epoch - 1].metrics())
    tracker.tag(weights_bytes=str((job.output / "models" / SELECTED_MODEL / WEIGHTS).stat().st_size))
    tracker.result(metrics)
    doing("drawing figures")
    for path in draw_summary(
        folder,
        state.history,
        predictions,
        labels=dataset.labels,
        images=pictures,
        selected_epoch=selected.epoch,
    ):
        tracker.artifact(path)
    seconds = sum(epoch.speed_epoch_seconds for epoch in state.history)
    again = reproduce_command(config.params())
    description = describe(config, metrics, test_images=test.images, seconds=seconds, reproduce=again)
    doing("waiting for the tracking server" if not job.offline else "recording the end")
    return _end(job, tracker, Status.FINISHED, metrics=metrics, description=description)


def preempt(job: Job, state: TrainState, tracker: Tracker) -> Result:
    """Stopped on request; the state is saved."""
    at = f"stopped at epoch {state.epoch}, step {state.step}"
    message = f"{at}; the same command with output={job.output} goes on"
    if not tracker.opened(within=_OPENING_SECONDS):  # the next attempt opens it, with every epoch so far
        result = Result(status=Status.PREEMPTED, message=message)
        result.write(job.output)
        return result
    return _end(job, tracker, Status.PREEMPTED, message=message)


def prune(job: Job, state: TrainState, tracker: Tracker) -> Result:
    """Ended by the study's pruner after a whole epoch."""
    message = f"pruned after epoch {state.history[-1].index} of {job.config.epochs}"
    return _end(job, tracker, Status.PRUNED, message=message)


def fail(job: Job, tracker: Tracker, error: BaseException) -> None:
    """Mark the run, unless its end is on record already and only the other ranks could not be reached; the
    error itself goes on to whoever reports it."""
    if Result.read(job.output):
        return
    status = Status.DIVERGED if isinstance(error, Diverged) else Status.FAILED
    message = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
    line = message.splitlines()[0] if message else status
    try:
        _end(job, tracker, status, message=line, description=message)
    except (RunError, InputError) as refusal:
        if not tracker.lost:
            raise
        if isinstance(refusal, RunError):
            _write_untracked(job, refusal)


def _end(
    job: Job,
    tracker: Tracker,
    status: Status,
    *,
    metrics: dict[str, float] | None = None,
    message: str = "",
    description: str | None = None,
) -> Result:
    if message:
        tracker.tag(reason=message)
    unsynced = tracker.close(status, description)
    result = Result(
        status=status,
        run_id=tracker.run_id,
        unsynced=unsynced,
        metrics=metrics or {},
        message=message,
        pages=tracker.pages,
    )
    result.write(job.output)
    return result


def _pictures(split: Split, size: int) -> npt.NDArray[np.uint8]:
    """[n, size, size, 3]: a whole split as the network sees it."""
    batches = EvalBatches(split, np.arange(len(split)), size=size, threads=loader_threads(0))
    return np.concatenate([images.permute(0, 2, 3, 1).numpy() for images, _ in batches])
