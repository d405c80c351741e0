"""The cells of a study as rows of one table, claimed and closed by single atomic statements. SQL only.

Optuna's own claims are not exclusive on SQLite and its heartbeats need `study.optimize`, so who works on what
is kept here, in a table beside Optuna's (same database, same engine): every change of a row is one UPDATE
that names the state and the owner it expects, and counts only if the database says it changed a row. That
holds on SQLite and PostgreSQL alike, with no lock that outlives a transaction.

A claim is given up for dead when its process is gone (same host) or its beat has not moved for `grace`
seconds as watched from here: no clocks are compared, and an outage of the database ages nobody.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    and_,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from imagenette.processes import lives

ENDED = ("done", "pruned", "failed")
MOST_LOSSES = 5  # a cell that took so many workers with it is failed: it may be what kills them

METADATA = MetaData()
STUDIES = Table(
    "imagenette_studies",
    METADATA,
    Column("study_id", Integer, primary_key=True, autoincrement=False),  # Optuna's
    Column("name", String(200), nullable=False),
    Column("uid", String(32), nullable=False),
    Column("parent_run_id", String(64)),
    Column("facts", JSON, nullable=False),
)
CELLS = Table(
    "imagenette_cells",
    METADATA,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("cell", String(500), primary_key=True),
    Column("arm", String(500), nullable=False),
    Column("position", Integer, nullable=False),
    Column("values", JSON, nullable=False),
    Column("config", JSON),
    Column("state", String(10), nullable=False, default="waiting"),
    Column("owner", String(32)),
    Column("host", String(255)),
    Column("place", String(255)),
    Column("pid", Integer),
    Column("pid_started", Float),
    Column("beat", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("losses", Integer, nullable=False, default=0),
    Column("trial", Integer),
    Column("trial_id", Integer),
    Column("started", Float),
    Column("seconds", Float),
    Column("progress", Float, nullable=False, default=0.0),
    Column("metrics", JSON, nullable=False, default=dict),
    Column("value", Float),
    Column("unsynced", Integer, nullable=False, default=0),
    Column("run_id", String(64)),
    Column("reason", Text),
    Column("marked", Integer, nullable=False, default=0),
    Column("reused", String(64)),
    Column("output", Text),
    Index("imagenette_cells_by_state", "study_id", "state", "position"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell as it stands."""

    cell: str
    """Unique in the study: `batch_size=16 seed=1`; for a search `trial 1`."""
    arm: str
    position: int
    values: dict[str, Any]
    """What varies, seed included; for a search empty until the sampler was asked."""
    config: dict[str, Any] | None = None
    """The whole Config; None for a search not yet asked."""
    state: str = "waiting"
    """waiting, running, done, pruned or failed."""
    owner: str | None = None
    """The worker that has it or ended it."""
    host: str | None = None
    place: str | None = None
    """Host and process namespace: where `pid` means something."""
    pid: int | None = None
    pid_started: float | None = None
    beat: int = 0
    attempt: int = 0
    """0 before the first claim."""
    losses: int = 0
    """Attempts that ended with their worker gone."""
    trial: int | None = None
    """Optuna's number of the last attempt."""
    trial_id: int | None = None
    started: float | None = None
    """Unix seconds, of the last attempt."""
    seconds: float | None = None
    """How long it took, over all attempts."""
    progress: float = 0.0
    """Share of the epochs done, [0, 1]."""
    metrics: dict[str, float] = field(default_factory=dict)
    """`best/...`, `selected/...`, `final/...`."""
    value: float | None = None
    """The objective."""
    unsynced: int = 0
    """Records of the run that the tracking server lacks."""
    run_id: str | None = None
    reason: str | None = None
    """Why it failed, or was last given back."""
    marked: int = 0
    """1 once MLflow has the reason too."""
    reused: str | None = None
    """The run it was taken from, where an identical finished one existed."""
    output: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Who claims: one process on one machine."""

    uid: str
    host: str
    place: str
    pid: int
    pid_started: float

    @classmethod
    def here(cls) -> Worker:
        return cls(
            uid=uuid.uuid4().hex,
            host=socket.gethostname(),
            place=place(),
            pid=os.getpid(),
            pid_started=psutil.Process().create_time(),
        )


def place() -> str:
    """Where a process id means something: cloned machines share names, containers of one machine do not share
    its processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What all drivers of a study agree on."""

    study_id: int
    name: str
    uid: str
    parent_run_id: str | None
    facts: dict[str, Any]


class Queue:
    """The rows of one study. Every method is one short transaction; sqlalchemy.exc.DBAPIError when the
    database does not answer, and then it may be called again."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine, self._id = engine, study_id

    # -- the study itself --------------------------------------------------------------------------

    def introduce(self, name: str, facts: Mapping[str, Any]) -> StudyRecord:
        """The study's record, made by whoever comes first."""
        with self._engine.begin() as db:
            new = {"study_id": self._id, "name": name, "uid": uuid.uuid4().hex, "facts": dict(facts)}
            db.execute(_insert(self._engine, STUDIES).values(new).on_conflict_do_nothing())
        return self.record()

    def record(self) -> StudyRecord:
        with self._engine.connect() as db:
            row = db.execute(select(STUDIES).where(STUDIES.c.study_id == self._id)).mappings().one()
        return StudyRecord(**row)

    def update_record(self, **changed: Any) -> None:
        with self._engine.begin() as db:
            db.execute(update(STUDIES).where(STUDIES.c.study_id == self._id).values(**changed))

    def fill(self, rows: Iterable[Row]) -> None:
        """Add the cells that are not there yet; those that are stay as they are."""
        fields = ("cell", "arm", "position", "values", "config")
        new = [{"study_id": self._id} | {name: getattr(row, name) for name in fields} for row in rows]
        if new:
            with self._engine.begin() as db:
                db.execute(_insert(self._engine, CELLS).on_conflict_do_nothing(), new)

    # -- looking -----------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """All cells, in order."""
        return self._read()

    def running(self) -> list[Row]:
        return self._read(CELLS.c.state == "running")

    def unfinished(self) -> int:
        """Cells waiting or running."""
        left = CELLS.c.state.in_(("waiting", "running"))
        with self._engine.connect() as db:
            return int(
                db.execute(select(func.count()).select_from(CELLS).where(self._mine, left)).scalar_one()
            )

    # -- a worker's ways ---------------------------------------------------------------------------

    def claim(self, worker: Worker, *, cell: str | None = None) -> Row | None:
        """The first waiting cell (or the one named, if it waits), now this worker's; the one it already has
        if an answer was lost."""
        with self._engine.begin() as db:
            mine = and_(self._mine, CELLS.c.owner == worker.uid, CELLS.c.state == "running")
            held = db.execute(select(CELLS).where(mine)).mappings().first()
            if held:
                return _row(held)
            named = [CELLS.c.cell == cell] if cell is not None else []
            first = (
                select(CELLS.c.cell)
                .where(self._mine, CELLS.c.state == "waiting", *named)
                .order_by(CELLS.c.position)
                .limit(1)
                .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time anyway
                .scalar_subquery()
            )
            claimed = db.execute(
                update(CELLS)
                .where(self._mine, CELLS.c.cell == first, CELLS.c.state == "waiting")
                .values(
                    state="running",
                    owner=worker.uid,
                    host=worker.host,
                    place=worker.place,
                    pid=worker.pid,
                    pid_started=worker.pid_started,
                    beat=0,
                    attempt=CELLS.c.attempt + 1,
                    trial=None,
                    trial_id=None,
                    started=time.time(),
                    progress=0.0,
                )
                .returning(CELLS)
            )
            row = claimed.mappings().first()
        return _row(row) if row else None

    def note(self, row: Row, **known: Any) -> bool:
        """Write down what is known of a claimed cell (its trial, values, run, progress) and beat; False if
        the claim is lost."""
        changed = {**known, "beat": CELLS.c.beat + 1}
        with self._engine.begin() as db:
            return db.execute(update(CELLS).where(self._held(row)).values(**changed)).rowcount == 1

    def finish(self, row: Row, state: str, **outcome: Any) -> bool:
        """End a claimed cell (done, pruned, failed) or give it back (waiting); False if the claim was lost.
        Calling it again after a lost answer says what the first call said."""
        with self._engine.begin() as db:
            ended = db.execute(update(CELLS).where(self._held(row)).values(state=state, **outcome))
            if ended.rowcount == 1:
                return True
            now = db.execute(select(CELLS).where(self._mine, CELLS.c.cell == row.cell)).mappings().one()
        return bool(now["owner"] == row.owner and now["attempt"] == row.attempt and now["state"] == state)

    # -- keeping house -----------------------------------------------------------------------------

    def take_back(self, row: Row, reason: str) -> bool:
        """Free a cell whose worker is given up for dead, as it was seen; False if it moved since. One that
        lost MOST_LOSSES workers is failed."""
        state = "failed" if row.losses + 1 >= MOST_LOSSES else "waiting"
        seen = and_(self._held(row), CELLS.c.beat == row.beat)
        with self._engine.begin() as db:
            freed = {"state": state, "owner": None, "losses": row.losses + 1, "reason": reason, "marked": 0}
            return db.execute(update(CELLS).where(seen).values(**freed)).rowcount == 1

    def retry_failed(self) -> int:
        """Let failed cells be claimed again; how many."""
        with self._engine.begin() as db:
            failed = update(CELLS).where(self._mine, CELLS.c.state == "failed")
            return int(db.execute(failed.values(state="waiting", losses=0, marked=0, seconds=None)).rowcount)

    def amend(self, row: Row, **known: Any) -> None:
        """Add what became known of an ended cell (MLflow has its reason, or all its records), unless it was
        claimed again since."""
        this = and_(self._mine, CELLS.c.cell == row.cell, CELLS.c.attempt == row.attempt)
        with self._engine.begin() as db:
            db.execute(update(CELLS).where(this).values(**known))

    def _read(self, *conditions: Any) -> list[Row]:
        with self._engine.connect() as db:
            found = db.execute(select(CELLS).where(self._mine, *conditions).order_by(CELLS.c.position))
            return [_row(mapping) for mapping in found.mappings()]

    @property
    def _mine(self) -> Any:
        return CELLS.c.study_id == self._id

    def _held(self, row: Row) -> Any:
        """The row, as long as it is in the hands in which it was seen."""
        same = and_(CELLS.c.cell == row.cell, CELLS.c.attempt == row.attempt, CELLS.c.owner == row.owner)
        return and_(self._mine, same, CELLS.c.state == "running")


@dataclass
class Watch:
    """Which claims are to be given up: their process is gone, or their beat stood still for `grace` seconds
    of watching."""

    grace: float
    here: str = field(default_factory=place)
    _seen: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    _last: float = 0.0

    def stale(self, running: Sequence[Row], *, now: float | None = None) -> list[tuple[Row, str]]:
        """Rows to take back, each with its reason. now: seconds of a monotonic clock."""
        now = time.monotonic() if now is None else now
        if now - self._last > self.grace / 3:  # we were frozen or waiting ourselves: nobody was watched
            self._seen.clear()
        self._last = now
        kept: dict[tuple[str, int], tuple[int, float]] = {}
        found = []
        for row in running:
            key = row.cell, row.attempt
            beat, since = self._seen.get(key, (row.beat, now))
            kept[key] = (beat, since) if beat == row.beat else (row.beat, now)
            if row.place == self.here and not lives(row.pid or 0, row.pid_started or 0.0):
                found.append((row, f"worker process {row.pid} on {row.host} is gone"))
            elif now - kept[key][1] > self.grace:
                found.append((row, f"no sign of life from {row.host} for {self.grace:g} s"))
        self._seen = kept
        return found


def _row(mapping: RowMapping) -> Row:
    return Row(**{name: value for name, value in mapping.items() if name != "study_id"})


def _insert(engine: Engine, table: Table) -> Any:
    dialect: Any = postgresql if engine.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
