"""`imagenette doctor`: find what a crash left behind on the server, and mend it.

Looks at runs said to be RUNNING whose process is gone, runs whose MLflow status contradicts our own
status tag, models left PENDING by an ended run, and output folders the server lacks records of.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagenette.errors import InputError, RunError
from imagenette.processes import lives
from imagenette.tracking.client import connect, first_line, pages, resolve_uri
from imagenette.tracking.deliver import set_tags
from imagenette.tracking.mlflow_tracker import MLFLOW_STATUS
from imagenette.tracking.outbox import count_lacking
from imagenette.tracking.sync import find_outputs, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STALE_MINUTES = 10.0
"""A run of another host without a heartbeat for so long is lost."""
SILENT_MINUTES = 60.0
"""So is a run that never had one (`mlflow run` still building its environment has none)."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Literal["lost run", "status mismatch", "pending model", "undelivered records"]
    subject: str
    """Run id, model id or folder."""
    what: str
    remedy: str
    """What mending does, or did."""
    mended: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}: {self.what}; {'' if self.mended else 'would '}{self.remedy}"


def find(
    client: MlflowClient,
    experiment: str | None,
    *,
    folder: Path | None = None,
    stale_minutes: float = STALE_MINUTES,
) -> list[Finding]:
    """Everything wrong in an experiment (None: in all) and under a folder of output folders."""
    found = list(_undelivered(folder)) if folder else []
    ids = _experiment_ids(client, experiment)
    for run in _runs(client, ids):
        finding = _diagnose(client, run, stale_minutes)
        if finding:
            found.append(finding)
    lost = {finding.subject for finding in found}
    return found + list(_pending_models(client, ids, lost))


def mend(
    client: MlflowClient, findings: list[Finding], *, stale_minutes: float = STALE_MINUTES
) -> list[Finding]:
    """Do what each finding says; folders first, since what they hold may be all a run lacks."""
    return [
        _mend(client, f, stale_minutes)
        for f in sorted(findings, key=lambda f: f.kind != "undelivered records")
    ]


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
    if not dry_run:
        findings = mend(client, findings, stale_minutes=stale_minutes)
    for finding in findings:
        print(finding)
    if not findings:
        print("nothing to mend")
    return findings


def _diagnose(client: MlflowClient, run: Run, stale_minutes: float) -> Finding | None:
    tags, status, run_id = run.data.tags, run.info.status, run.info.run_id
    word = tags.get("status")
    if word == "resumed":  # the launcher of a run that went on elsewhere lives as long as that run
        if status == "RUNNING" and client.get_run(tags["resumed_run"]).info.status != "RUNNING":
            what = f"launcher of {tags['resumed_run']}, which has ended"
            return Finding(kind="status mismatch", subject=run_id, what=what, remedy="set FINISHED")
        return None
    if word not in (None, "running", "lost"):
        meant = MLFLOW_STATUS.get(word, "FAILED")
        if status == meant:
            return None
        what = f"tag status={word}, but MLflow says {status}"
        return Finding(kind="status mismatch", subject=run_id, what=what, remedy=f"set {meant}")
    gone = _gone(run, stale_minutes)
    if gone is None:
        return None
    if status == "RUNNING":
        return Finding(kind="lost run", subject=run_id, what=gone, remedy="set FAILED, tag status=lost")
    if word == "running":
        what = f"tag status=running, but MLflow says {status} and {gone}"
        return Finding(kind="status mismatch", subject=run_id, what=what, remedy="tag status=lost")
    return None


def _gone(run: Run, stale_minutes: float) -> str | None:
    """Why the run's process must be taken for gone; None if it may live."""
    tags = run.data.tags
    if tags.get("host") == socket.gethostname() and "pid" in tags:
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
    text = run.data.tags.get("heartbeat")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() if text else None


def _mend(client: MlflowClient, finding: Finding, stale_minutes: float) -> Finding:
    try:
        if finding.kind == "undelivered records":
            left = sync(Path(finding.subject))
            return replace(finding, remedy="sent them" if not left else f"sync, {left} left", mended=not left)
        if finding.kind == "pending model":
            client.finalize_logged_model(finding.subject, "FAILED")
        else:
            run = client.get_run(finding.subject)
            finding_now = _diagnose(client, run, stale_minutes)
            if finding_now is None:
                return replace(finding, remedy="nothing: it is well by now", mended=True)
            finding = finding_now
            _mend_run(client, run, finding)
    except (InputError, RunError) as error:
        return replace(finding, remedy=f"{finding.remedy} (failed: {error})")
    except Exception as error:  # one run that cannot be mended must not hide the others
        return replace(finding, remedy=f"{finding.remedy} (failed: {first_line(error)})")
    return replace(finding, mended=True)


def _mend_run(client: MlflowClient, run: Run, finding: Finding) -> None:
    run_id = run.info.run_id
    # The last sign of life is nearer the truth than the time somebody called the doctor.
    beat = _heartbeat(run)
    ended = run.info.end_time or (int(beat * 1000) if beat else None)
    if "status=lost" in finding.remedy:
        note = run.data.tags.get("mlflow.note.content", "")
        set_tags(
            client,
            run_id,
            {"status": "lost", "mlflow.note.content": f"{note}\n\nLost: {finding.what}.".strip()},
        )
    if finding.remedy.startswith("set "):
        client.set_terminated(run_id, status=finding.remedy.split()[1].strip(","), end_time=ended)


def _undelivered(folder: Path) -> Iterator[Finding]:
    for output in find_outputs(folder):
        if lacking := count_lacking(output):
            what = f"the server lacks {lacking} records"
            yield Finding(kind="undelivered records", subject=str(output), what=what, remedy="send them")


def _pending_models(client: MlflowClient, ids: list[str], lost: set[str]) -> Iterator[Finding]:
    for model in pages(lambda token: client.search_logged_models(ids, page_token=token)) if ids else []:
        if model.status != "PENDING":
            continue
        run = client.get_run(model.source_run_id) if model.source_run_id else None
        if run is None or run.info.run_id in lost or run.info.status != "RUNNING":
            what = f"{model.name!r} was never finished, and its run has ended"
            yield Finding(kind="pending model", subject=model.model_id, what=what, remedy="set FAILED")


def _experiment_ids(client: MlflowClient, name: str | None) -> list[str]:
    if name is None:
        return [e.experiment_id for e in pages(lambda token: client.search_experiments(page_token=token))]
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise InputError(f"experiment {name!r} is not on this tracking server")
    return [experiment.experiment_id]


def _runs(client: MlflowClient, ids: list[str]) -> Iterator[Run]:
    if ids:
        yield from pages(lambda token: client.search_runs(ids, page_token=token))
