"""Outboxes that no training writes any more: `imagenette sync DIR` sends what a dead server missed (twice is
a no-op), and a run whose rank 0 was killed gets its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError, shown, without_secrets
from imagenette.records import now_ms
from imagenette.results import Status
from imagenette.tracking import environment
from imagenette.tracking.client import check_alive, first_line, resolve_uri
from imagenette.tracking.deliver import RefusedError, deliver
from imagenette.tracking.outbox import Card, Outbox, holds_run, read_refused
from imagenette.tracking.runs import reach
from imagenette.tracking.sender import Sender

if TYPE_CHECKING:
    from mlflow import MlflowClient


def sync(folder: Path, tracking_uri: str | None = None, *, login: str | None = None) -> int:
    """Send every outbox at or under `folder`; the number of records still lacking, one line per run.

    Raises InputError if there is none, or if the only one is held by a process that still trains;
    RunError if the server is dead. The server is the one named, else each run's own. login: see `sync_one`.
    """
    outputs = list(find_outputs(folder))
    if not outputs:
        raise InputError(f"{folder} holds no outbox: name a run's output folder, or a folder of them")
    lacking = 0
    for output in outputs:
        try:
            left, line = sync_one(output, tracking_uri, login=login)
        except (InputError, RunError) as error:
            if len(outputs) == 1:
                raise
            left, line = 1, str(error)
        lacking += left
        print(f"{shown(output)}: {line}")
    return lacking


def find_outputs(folder: Path) -> Iterator[Path]:
    """Output folders at `folder` or below it."""
    if holds_run(folder):
        yield folder
        return
    for card in sorted(folder.rglob("outbox/run.json")):
        yield card.parent.parent


def sync_one(output: Path, tracking_uri: str | None, *, login: str | None = None) -> tuple[int, str]:
    """Send one output folder's outbox: how many records still lack, and a line that says what was done.

    login: an address that may be the run's own, with the password that its folder does not keep; so may be
    MLFLOW_TRACKING_URI."""
    with Outbox(output) as outbox:
        card = outbox.card
        assert card is not None
        ways = [way for way in (login, environment.tracking_uri()) if way]
        own = next((way for way in ways if without_secrets(way) == card.tracking_uri), card.tracking_uri)
        uri = resolve_uri(tracking_uri or own)
        if card.tracking_uri == without_secrets(uri) and card.run_id and not outbox.lacking:
            return 0, f"nothing to send (run {card.run_id})"
        check_alive(uri)
        client, card = reach(outbox, uri)
        before = outbox.lacking
        outbox.set_refused(_still_refused(client, card, outbox))
        sender = Sender(client, outbox, card, heartbeat=False)
        sender.start()
        sender.flush()
        left = outbox.lacking
        why = f", {left} still lacking" if left else ""
        why += f" ({outbox.refused} refused, see {outbox.folder / 'refused.jsonl'})" if outbox.refused else ""
        return left, f"{before - left} records sent to run {card.run_id}{why}"


def _still_refused(client: MlflowClient, card: Card, outbox: Outbox) -> list[tuple[int, str]]:
    """Offer what was refused once more: a run restored or a limit raised may have changed the answer."""
    still = []
    for seq, _ in read_refused(outbox.output):
        try:
            deliver(client, card, outbox.output, outbox.records[seq])
        except RefusedError as refusal:
            still.append((seq, str(refusal)))
        except Exception as error:
            raise RunError(f"tracking server {card.tracking_uri}: {first_line(error)}") from error
    return still


def end_lost(output: Path, reason: str, *, offline: bool, login: str | None = None) -> int:
    """Record that a run failed, for the rank 0 that was killed; the number of records the server lacks.
    login: see `sync_one`."""
    if not holds_run(output):
        return 0
    with Outbox(output) as outbox:
        tags = {"status": Status.FAILED, "reason": reason}
        outbox.append("end", tags=tags, mlflow_status=Status.FAILED.mlflow, time=now_ms())
        lacking = outbox.lacking
    if offline:
        return lacking
    try:
        return sync_one(output, None, login=login)[0]
    except (InputError, RunError):
        return lacking
