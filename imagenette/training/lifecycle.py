"""How a run is introduced to its tracker, and how it ends: finished, preempted or failed. Rank 0's part."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from imagenette.data import Dataset, Split
from imagenette.data.batches import EvalBatches
from imagenette.errors import InputError, RunError
from imagenette.network.self_test import Proof
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED, Status, describe, summary_metrics
from imagenette.tracking import DatasetInfo, RunHeader, Tracker, begin_tracker
from imagenette.tracking.opening import OpeningTracker
from imagenette.tracking.provenance import reproduce_command
from imagenette.training.checkpoint import Checkpoints
from imagenette.training.distributed import loader_threads
from imagenette.training.job import Job, Result
from imagenette.training.loop import Diverged
from imagenette.training.step import Task, TrainState


def introduce(
    job: Job, dataset: Dataset, *, facts: Mapping[str, str], history: Sequence[Epoch] = ()
) -> Tracker:
    """Open the run, or go on with the one that the output folder belongs to. facts: tags on network and
    machine. history: epochs that are done.

    A dead server and a folder in use are refused here; the rest, MLflow's import above all, goes on in a
    thread once a first step is done, and what it meets is the tracker's to say."""
    config = job.config
    tags = {
        **facts,
        "study": job.study,
        "arm": job.arm or job.setting,
        "seed": str(config.seed),
        "depth": str(config.depth),
        "role": "run" if job.trial is None else "trial",
        "data_digest": dataset.digest,
        "config_digest": config.digest(),
        "selection": "holdout" if config.holdout else "test",
        "output": str(job.output.resolve()),
        "reproduce": reproduce(job),
    }
    if job.trial is not None:
        tags |= {"trial": str(job.trial)}
    header = RunHeader(
        experiment=job.experiment,
        run_name=job.name,
        params=config.params(),
        tags=tags,
        dataset=DatasetInfo(
            name=dataset.name,
            digest=dataset.digest,
            source=dataset.source,
            train_images=len(dataset.train),
            test_images=len(dataset.test),
            classes=len(dataset.classes),
            side=dataset.side,
        ),
        parent_run_id=job.parent,
    )
    with _told(job):
        open_run = begin_tracker(
            job.output, header, tracking_uri=job.tracking_uri, offline=job.offline, resume=True
        )

    done = tuple(history)  # which grows meanwhile

    def open_and_begin() -> Tracker:
        with _told(job):
            tracker = open_run()
        tracker.artifact(job.output / "config.json")
        for epoch in done:  # the checkpoint is ahead of the tracker, never behind
            tracker.log(epoch)
        return tracker

    return OpeningTracker(open_and_begin)


@contextmanager
def _told(job: Job) -> Iterator[None]:
    """Where no run can be had, the result says so: whoever started this may try again."""
    try:
        yield
    except RunError as error:
        Result(status=Status.UNTRACKED, message=str(error)).write(job.output)
        raise


def finish(
    job: Job,
    dataset: Dataset,
    task: Task,
    state: TrainState,
    store: Checkpoints,
    last: Predictions,
    tracker: Tracker,
) -> Result:
    """Figures, tables, the selected and the last model, the result in words; then the tracker is closed."""
    # Here, not above: they bring in MLflow and matplotlib, seconds that only rank 0's end needs to spend.
    from imagenette.network.export import WEIGHTS, save_model
    from imagenette.training.run_figures import write_summary

    config, test = job.config, task.test
    metrics = summary_metrics(state.history, holdout=task.holdout is not None)
    selected = store.selected()
    pictures = _pictures(dataset.test, config.eval_size)
    files = write_summary(
        job.output / "summary",
        history=state.history,
        predictions={FINAL: last, SELECTED: selected.predictions},
        names=dataset.test.names,
        classes=dataset.classes,
        labels=dataset.labels,
        images=pictures,
        selected_epoch=selected.epoch,
    )
    for path in files:
        tracker.artifact(path)
    weights = {"selected": (selected.epoch, selected.net, selected.predictions)}
    if selected.epoch != config.epochs:
        weights["last"] = (config.epochs, copy.deepcopy(state.judged.state_dict()), last)
    for name, (epoch, net, said) in weights.items():
        state.judged.load_state_dict(net)
        path = job.output / "models" / name
        save_model(
            state.judged,
            path,
            classes=dataset.classes,
            labels=dataset.labels,
            side=dataset.side,
            size=config.eval_size,
            mean=dataset.mean,
            std=dataset.std,
            architecture=config.network,
            proof=Proof.sample(dataset.test.names, pictures, said),
            metadata={"epoch": str(epoch), "data_digest": dataset.digest, "depth": str(config.depth)},
        )
        tracker.model(name, path, step=epoch, metrics=state.history[epoch - 1].metrics())
    tracker.tag(weights_bytes=str((job.output / "models/selected" / WEIGHTS).stat().st_size))
    tracker.result(metrics, step=config.epochs)
    seconds = sum(epoch.speed_epoch_seconds for epoch in state.history)
    description = describe(
        config, metrics, test_images=test.images, seconds=seconds, reproduce=reproduce(job)
    )
    return _end(job, tracker, Status.FINISHED, metrics=metrics, description=description)


def preempt(job: Job, state: TrainState, tracker: Tracker) -> Result:
    """Stopped on request; the state is saved."""
    at = f"stopped at epoch {state.epoch}, step {state.step}"
    message = f"{at}; the same command with output={job.output} goes on"
    return _end(job, tracker, Status.PREEMPTED, message=message)


def prune(job: Job, state: TrainState, tracker: Tracker) -> Result:
    """Not worth going on with: the study's pruner said so after a whole epoch."""
    message = f"pruned after epoch {state.history[-1].index} of {job.config.epochs}"
    return _end(job, tracker, Status.PRUNED, message=message)


def fail(job: Job, tracker: Tracker, error: BaseException) -> None:
    """Mark the run, unless its end is on record already and only the other ranks could not be told; the
    error itself goes on to whoever reports it."""
    if Result.read(job.output) or tracker.lost:
        return
    status = Status.DIVERGED if isinstance(error, Diverged) else Status.FAILED
    message = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
    try:
        _end(
            job, tracker, status, message=message.splitlines()[0] if message else status, description=message
        )
    except (RunError, InputError):
        if not tracker.lost:  # no run to mark was had in the meantime either: the first error is what is said
            raise


def reproduce(job: Job) -> str:
    """The command that trains this again."""
    return reproduce_command(job.config.params())


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
        status=status, run_id=tracker.run_id, unsynced=unsynced, metrics=metrics or {}, message=message
    )
    result.write(job.output)
    return result


def _pictures(split: Split, size: int) -> npt.NDArray[np.uint8]:
    """[n, size, size, 3]: a whole split as the network sees it."""
    batches = EvalBatches(split, np.arange(len(split)), size=size, threads=loader_threads(0))
    return np.concatenate([images.permute(0, 2, 3, 1).numpy() for images, _ in batches])
