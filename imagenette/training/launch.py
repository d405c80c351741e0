"""From a job to processes: how many there are, who stops them, what their end means. Knows no tensors.

A job with one process trains here. With more, torch elastic starts this same command once per rank, and each
copy finds its rank in the environment; so does every copy that an outer torchrun starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imagenette.errors import InputError
from imagenette.processes import STOPS, cores, follow_parent, heeded, stop_signals
from imagenette.results import Status
from imagenette.tracking import environment
from imagenette.tracking.outbox import ended
from imagenette.training import ranks
from imagenette.training.job import Job, Result, check_data, check_output, claim_output
from imagenette.training.pruning import pruner
from imagenette.training.readiness import check_device, check_processes, prepare, process_count

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from imagenette.data import Dataset
    from imagenette.training.hosts import HostLost

PARENT = "IMAGENETTE_PARENT"
"""Process id of the study's worker that started this training, which must end with it."""
TOLD = "IMAGENETTE_TOLD"
"""Set for ranks whose launcher has said what there is to say of the data set."""
GRACE = 120  # seconds that ranks get to save after SIGTERM before they are killed


def train(job: Job) -> Result:
    """Run a job to its end, in as many processes as it wants. InputError before anything is made;
    KeyboardInterrupt where somebody asks to stop before there is a state to save."""
    place = ranks.place()
    processes = place.size if place else process_count(job.config)
    if place:
        follow_parent(signal.SIGKILL)  # a launcher killed outright must leave no rank training
    elif parent := os.environ.get(PARENT):
        follow_parent(signal.SIGTERM, parent=int(parent))  # where a worker is killed outright: save, end
    else:
        ranks.refuse_other_launchers()
        if environment.has_outer_run():
            follow_parent(signal.SIGTERM)  # `mlflow run` leaves its child running when it is stopped
    check_output(job)
    held = Result.read(job.output)
    if held and held.status.complete:
        return held
    first = place is None or place.first
    quiet = not first or TOLD in os.environ
    try:
        check_processes(job.config, processes)
        check_device(job.config, place.local_size if place else processes)
        dataset = prepare(job.config, processes, progress=place is None, quiet=quiet)
        check_data(job, dataset.digest)
        if first:
            claim_output(job)
        if processes > 1 and not place:
            return run_elastic(job, processes)
        return train_here(job, dataset)
    except KeyboardInterrupt:
        if first:
            claim_output(job)
            _stopped_early(job)
        raise


def train_here(job: Job, dataset: Dataset) -> Result:
    """In this process: all of the training, or one rank's part."""
    from imagenette.training import train
    from imagenette.training.hosts import HostLost, leave

    try:
        with stop_signals() as stopping:
            return train.run(job, dataset, stop=lambda: bool(stopping), prune=pruner())
    except HostLost as host:
        leave(host, lambda lost: mark_lost(job, lost))
        raise


def run_elastic(job: Job, processes: int) -> Result:
    """Start this same command once per rank with torch elastic, and wait."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,  # a failed run is resumed from its checkpoint by whoever decides to
        monitor_interval=0.2,
        # Passed on to the ranks; a signal that is ignored here, as SIGHUP under nohup, is ignored by them.
        signals_to_handle=",".join(number.name for number in (*heeded(), signal.SIGQUIT)),
    )
    command = ["-m", "imagenette", "train", *job.arguments()]
    failure, early = "", False
    with _left_as_found():
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE))
        os.environ[TOLD] = "1"
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException as stopped:
            failure = f"stopped by {stopped.sigval.name}"
            early = ended(job.output)  # or it was never opened: there was no step yet
        except ChildFailedError as failed:
            failure = _reason(*failed.get_first_failure())
    result = Result.read(job.output)
    if result is None and early:
        return _stopped_early(job)
    if result is None or (result.status is Status.FAILED and failure):
        return lost(job, failure)  # rank 0 is dead, or only saw that another rank went silent
    return result


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """Whoever calls this from Python gets signals and environment back: torch elastic leaves its own."""
    handlers = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGQUIT)}
    environ = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _stopped_early(job: Job) -> Result:
    message = "stopped on request before the first step; the same command goes on"
    result = Result(status=Status.PREEMPTED, message=message)
    result.write(job.output)
    return result


def _reason(rank: int, failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}"
    return f"rank {rank} ended with exit code {failure.exitcode}"


def lost(job: Job, failure: str) -> Result:
    """A rank was killed: record the run's end in place of the ranks."""
    from imagenette.tracking.sync import end_lost

    message = f"{failure}; the same command with output={job.output} goes on from the last checkpoint"
    unsynced = end_lost(job.output, message, offline=job.offline, login=job.tracking_uri)
    result = Result(status=Status.FAILED, unsynced=unsynced, message=message)
    result.write(job.output)
    return result


def mark_lost(job: Job, host: HostLost) -> None:
    """Record the run's end in place of a rank 0 that is gone. A rank 0 that lives has recorded it, or holds
    the outbox and is about to."""
    from imagenette.tracking.outbox import Outbox, holds_run

    if holds_run(job.output):
        with contextlib.suppress(InputError):
            with Outbox(job.output) as outbox:
                over = any(record.kind == "end" for record in outbox.records[-1:])
            if not over:
                lost(job, str(host).partition(": ")[0])
