"""Where a tracked run lives, asked of the server; and the end of a run whose own rank 0 could not say it."""

from __future__ import annotations

import time
from pathlib import Path

from imagenette.errors import InputError, RunError
from imagenette.tracking.client import check_alive, connect, first_line, resolve_uri
from imagenette.tracking.outbox import Outbox, holds_run
from imagenette.tracking.sync import sync_one


def output_of(run_id: str, tracking_uri: str | None) -> Path:
    """The output folder of a run, to resume it from. InputError if there is no such run or folder here."""
    uri = resolve_uri(tracking_uri)
    check_alive(uri)
    client = connect(uri)
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(f"resume={run_id}: no such run on {uri} ({first_line(error)})") from None
    output = run.data.tags.get("output")
    if output is None or not Path(output).is_dir():
        where = f"{output} on host {run.data.tags.get('host', 'unknown')}" if output else "no folder"
        raise InputError(f"resume={run_id}: its checkpoints lie in {where}, which is not here")
    return Path(output)


def end_lost(output: Path, reason: str, *, offline: bool) -> int:
    """Record that a run failed, for the rank 0 that was killed; the number of records the server lacks."""
    if not holds_run(output):
        return 0
    with Outbox(output) as outbox:
        milliseconds = time.time_ns() // 1_000_000
        tags = {"status": "failed", "reason": reason}
        outbox.append("end", tags=tags, mlflow_status="FAILED", time=milliseconds)
        lacking = outbox.lacking
    if offline:
        return lacking
    try:
        return sync_one(output, None)[0]
    except (InputError, RunError):
        return lacking
