"""`imagenette doctor`: find what a crash left behind on the server, and mend it.

Looks at runs that MLflow shows as RUNNING although their process is gone, runs whose MLflow status
contradicts our own status tag, models left PENDING by an ended run, and output folders the server lacks
records of.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagenette.errors import InputError, RunError
from imagenette.processes import lives, place
from imagenette.results import Status
from imagenette.tracking.client import connect, first_line, pages, resolve_uri
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.experiments import OURS, elsewhere, look_in, search
from imagenette.tracking.outbox import count_lacking
from imagenette.tracking.provenance import unprefixed
from imagenette.tracking.runs import UID, get_run
from imagenette.tracking.sync import find_outputs, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STALE_MINUTES = 10.0
"""A run of another host without a heartbeat for so long is lost."""
SILENT_MINUTES = 60.0
"""So is a run that never had one (`mlflow run` still building its environment has none)."""
_DECLARED = {"main": {"recipe", "depth", "nproc"}, "study": {"name", "workers", "smoke"}}
"""Entry point of MLproject -> parameters that it declares, which `mlflow run` records at once."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Literal["lost run", "status mismatch", "pending model", "undelivered records"]
    subject: str
    """Run id, model id or folder."""
    place: str = ""
    """` in experiment 'NAME'` where that is not the usual one."""
    what: str
    remedy: str
    """What mending does, or did."""
    mended: bool = False

    def __str__(self) -> str:
        done = "" if self.mended else "would "
        return f"{self.kind} {self.subject}{self.place}: {self.what}; {done}{self.remedy}"


def doctor(
    *,
    tracking_uri: str | None,
    experiment: str | None,
    folder: Path | None,
    stale_minutes: float = STALE_MINUTES,
    dry_run: bool = False,
) -> list[Finding]:
    """What the command does: find, mend unless `dry_run`, print a line for each."""
    client = connect(resolve_uri(tracking_uri))
    findings = find(client, experiment, folder=folder, stale_minutes=stale_minutes)
    if not dry_run:  # one after the other, as they are found
        findings = (mend(client, finding, stale_minutes=stale_minutes) for finding in findings)
    done = list(findings)
    print("\n".join(map(str, done)) or "nothing to mend")
    return done


def find(
    client: MlflowClient,
    experiment: str | None,
    *,
    folder: Path | None = None,
    stale_minutes: float = STALE_MINUTES,
) -> Iterator[Finding]:
    """Everything wrong with the runs of an experiment (None: with ours, wherever they lie) and under a folder
    of output folders. Looks at one thing after the other, folders first: what they hold may be all that a run
    lacks, once the finding is mended."""
    for output in find_outputs(folder) if folder else []:
        if lacking := count_lacking(output):
            what = f"the server lacks {lacking} records"
            yield Finding(kind="undelivered records", subject=str(output), what=what, remedy="send them")
    places = look_in(client, experiment)
    if not places:
        return
    lost = set()
    for run in _runs(client, places, every=experiment is not None):
        if finding := _diagnose(client, run, stale_minutes):
            lost.add(run.info.run_id)
            yield replace(finding, place=elsewhere(places[run.info.experiment_id]))
    for model in pages(lambda token: client.search_logged_models(list(places), page_token=token)):
        if model.status == "PENDING":
            source = get_run(client, model.source_run_id) if model.source_run_id else None
            if experiment is None and (source is None or UID not in source.data.tags):
                continue  # somebody else's
            if source is None or source.info.run_id in lost or source.info.status != "RUNNING":
                what = f"{model.name!r} was never finished, and its run has ended"
                place = elsewhere(places[model.experiment_id])
                yield Finding(
                    kind="pending model", subject=model.model_id, place=place, what=what, remedy="set FAILED"
                )


def _runs(client: MlflowClient, places: Mapping[str, str], *, every: bool) -> Iterator[Run]:
    """The experiments' runs; unless all of them are wanted, this project's: what it recorded, and what
    `mlflow run` made for it and it never came to."""
    if every:
        yield from search(client, places, "")
        return
    yield from search(client, places, OURS)
    for run in search(client, places, "tags.`mlflow.project.entryPoint` LIKE '%'"):
        declared = _DECLARED.get(run.data.tags["mlflow.project.entryPoint"], {""})
        if UID not in run.data.tags and declared <= run.data.params.keys():
            yield run


def mend(client: MlflowClient, finding: Finding, *, stale_minutes: float = STALE_MINUTES) -> Finding:
    """Do what the finding proposes. One that cannot be mended must not hide the others, so nothing is
    raised."""
    try:
        if finding.kind == "undelivered records":
            left = sync(Path(finding.subject), login=client.tracking_uri)
            return replace(finding, remedy="sent them" if not left else f"sync, {left} left", mended=not left)
        if finding.kind == "pending model":
            client.finalize_logged_model(finding.subject, "FAILED")
        else:
            run = client.get_run(finding.subject)
            now = _diagnose(client, run, stale_minutes)
            if now is None:
                return replace(finding, remedy="nothing: it is well by now", mended=True)
            finding = now
            _mend_run(client, run, finding)
    except Exception as error:
        reason = str(error) if isinstance(error, InputError | RunError) else first_line(error)
        return replace(finding, remedy=f"{finding.remedy} (failed: {reason})")
    return replace(finding, mended=True)


def _mend_run(client: MlflowClient, run: Run, finding: Finding) -> None:
    # The last sign of life is nearer the truth than the time somebody called the doctor.
    beat = _heartbeat(run)
    ended = run.info.end_time or (int(beat * 1000) if beat else None)
    if "status=lost" in finding.remedy:
        note = f"{run.data.tags.get('mlflow.note.content', '')}\n\nLost: {finding.what}.".strip()
        set_tags(client, finding.subject, {"status": Status.LOST, "mlflow.note.content": note})
    if finding.remedy.startswith("set "):
        status = finding.remedy.split()[1].strip(",")
        client.set_terminated(finding.subject, status=status, end_time=ended)


def _diagnose(client: MlflowClient, run: Run, stale_minutes: float) -> Finding | None:
    tags, mlflow_status, run_id = run.data.tags, run.info.status, run.info.run_id
    status = tags.get("status")

    def mismatch(what: str, remedy: str) -> Finding:
        return Finding(kind="status mismatch", subject=run_id, what=what, remedy=remedy)

    if status == Status.RESUMED:  # the launcher of a run that went on elsewhere lives as long as that run
        if mlflow_status == "RUNNING" and client.get_run(tags["resumed_run"]).info.status != "RUNNING":
            return mismatch(f"launcher of {tags['resumed_run']}, which has ended", "set FINISHED")
        return None
    if status not in (None, Status.RUNNING, Status.LOST):
        meant = Status(status).mlflow if status in set(Status) else "FAILED"  # others' words end badly
        what = f"tag status={status}, but MLflow says {mlflow_status}"
        return None if mlflow_status == meant else mismatch(what, f"set {meant}")
    gone = _gone(run, stale_minutes)
    if gone and mlflow_status == "RUNNING":
        return Finding(kind="lost run", subject=run_id, what=gone, remedy="set FAILED, tag status=lost")
    if gone and status == Status.RUNNING:
        return mismatch(f"tag status=running, but MLflow says {mlflow_status} and {gone}", "tag status=lost")
    return None


def _gone(run: Run, stale_minutes: float) -> str | None:
    """Why the run's process must be taken for gone; None if it may live."""
    tags = unprefixed(run.data.tags)
    here = tags["place"] == place() if "place" in tags else tags.get("host") == socket.gethostname()
    if here and "pid" in tags:
        alive = lives(int(tags["pid"]), float(tags.get("pid_started", "nan")))
        return None if alive else f"process {tags['pid']} on this host is gone"
    beat = _heartbeat(run)
    if beat is not None:
        age = (time.time() - beat) / 60
        return f"no heartbeat for {age:.0f} minutes" if age > stale_minutes else None
    age = (time.time() - run.info.start_time / 1000) / 60
    return f"no sign of life since its start {age:.0f} minutes ago" if age > SILENT_MINUTES else None


def _heartbeat(run: Run) -> float | None:
    """Seconds since 1970."""
    text = unprefixed(run.data.tags).get("heartbeat")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() if text else None
