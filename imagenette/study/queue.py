"""The cells of a study as rows of one table, claimed and closed by single atomic statements. Knows SQL alone.

Optuna's own claims are not exclusive on SQLite and its heartbeats need `study.optimize`. So who works on what
is kept here, in a table beside Optuna's (same database, same engine). Every change of a row is one UPDATE
that names the state and the owner it expects, and it counts only if the database reports a changed row. That
holds on SQLite and PostgreSQL alike, with no lock that outlives a transaction.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from sqlalchemy import (
    JSON,
    Column,
    Dialect,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    TypeDecorator,
    and_,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from imagenette.results import Status
from imagenette.study.identity import Worker

MOST_LOSSES = 5  # a cell that took so many workers with it is failed: it may be what kills them


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What all drivers of a study agree on."""

    study_id: int
    """Optuna's."""
    name: str
    uid: str
    parent_run_id: str | None
    """The study's run in MLflow; None before the first driver has made one."""
    facts: dict[str, Any]


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
    state: Status = Status.WAITING
    """WAITING, RUNNING, FINISHED, PRUNED or FAILED."""
    owner: str | None = None
    """The worker that has it or ended it."""
    host: str | None = None
    place: str | None = None
    """Host and process namespace: where `pid` means something."""
    pid: int | None = None
    pid_started: float | None = None
    beat: int = 0
    """Signs of life of the last attempt."""
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
        return self.state not in (Status.WAITING, Status.RUNNING)

    @property
    def word(self) -> str:
        """The state as tables show it and the database stores it."""
        return state_word(self.state)


def state_word(state: Status) -> str:
    """`done` for a finished cell; the other states are called as a run's."""
    return "done" if state == Status.FINISHED else str(state)


class State(TypeDecorator[Status]):
    """A Status in Python, its word in the database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Status | None, dialect: Dialect) -> str | None:
        return None if value is None else state_word(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Status | None:
        return None if value is None else Status(value)


def _columns(record: type, *keys: str) -> Iterator[Column[Any]]:
    """A column for each field of a record, which may be null where the field may be None. keys: the fields
    that are the table's primary key."""
    types = {str: Text, int: Integer, float: Float, dict: JSON, Status: State}
    for name, hint in get_type_hints(record).items():
        kind, *null = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        options: dict[str, Any] = {"primary_key": name in keys, "nullable": bool(null)}
        yield Column(name, types[get_origin(kind) or kind], autoincrement=False, **options)


METADATA = MetaData()
STUDIES = Table("imagenette_studies", METADATA, *_columns(StudyRecord, "study_id"))
CELLS = Table(
    "imagenette_cells",
    METADATA,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    *_columns(Row, "cell"),
    Index("imagenette_cells_by_state", "study_id", "state", "position"),
)


class Queue:
    """The rows of one study. Every method is one short transaction; sqlalchemy.exc.DBAPIError when the
    database does not answer, and then it may be called again."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine, self._id = engine, study_id

    # -- the study itself --------------------------------------------------------------------------

    def open_record(self, name: str, facts: Mapping[str, Any]) -> StudyRecord:
        """The study's record, made by whoever comes first."""
        with self._engine.begin() as db:
            new = {"study_id": self._id, "name": name, "uid": uuid.uuid4().hex, "facts": dict(facts)}
            db.execute(_insert(self._engine, STUDIES).values(new).on_conflict_do_nothing())
        return self._record()

    def set_parent(self, replaced: str | None, run_id: str) -> str:
        """Make run_id the parent run if that still is `replaced`. The id that stands, whoever set it."""
        this = and_(STUDIES.c.study_id == self._id, STUDIES.c.parent_run_id == replaced)
        with self._engine.begin() as db:
            db.execute(update(STUDIES).where(this).values(parent_run_id=run_id))
        return self._record().parent_run_id or run_id

    def fill(self, rows: Iterable[Row]) -> None:
        """Add the cells that are not there yet; those that are stay as they are."""
        if new := [{"study_id": self._id, **vars(row)} for row in rows]:
            with self._engine.begin() as db:
                db.execute(_insert(self._engine, CELLS).on_conflict_do_nothing(), new)

    def objective(self) -> str | None:
        """The metric that is maximized; None where no driver has said it yet."""
        with self._engine.connect() as db:
            facts = db.execute(select(STUDIES.c.facts).where(STUDIES.c.study_id == self._id)).scalar()
        return (facts or {}).get("objective")

    def _record(self) -> StudyRecord:
        with self._engine.connect() as db:
            row = db.execute(select(STUDIES).where(STUDIES.c.study_id == self._id)).mappings().one()
        return StudyRecord(**row)

    # -- looking -----------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """All cells, in order."""
        return self._read()

    def running(self) -> list[Row]:
        return self._read(CELLS.c.state == Status.RUNNING)

    def unfinished(self) -> int:
        """Cells waiting or running."""
        left = CELLS.c.state.in_((Status.WAITING, Status.RUNNING))
        with self._engine.connect() as db:
            return int(
                db.execute(select(func.count()).select_from(CELLS).where(self._mine, left)).scalar_one()
            )

    # -- what workers do ---------------------------------------------------------------------------

    def claim(self, worker: Worker, *, cell: str | None = None) -> Row | None:
        """The first waiting cell (or the one named, if it waits), now this worker's; the one it already has
        if an answer was lost."""
        with self._engine.begin() as db:
            mine = and_(self._mine, CELLS.c.owner == worker.owner, CELLS.c.state == Status.RUNNING)
            held = db.execute(select(CELLS).where(mine)).mappings().first()
            if held:
                return _row(held)
            waiting = [self._mine, CELLS.c.state == Status.WAITING]
            named = [CELLS.c.cell == cell] if cell is not None else []
            first = (
                select(CELLS.c.cell)
                .where(*waiting, *named)
                .order_by(CELLS.c.position)
                .limit(1)
                .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time anyway
                .scalar_subquery()
            )
            claimed = db.execute(
                update(CELLS)
                .where(*waiting, CELLS.c.cell == first)
                .values(
                    **vars(worker),
                    state=Status.RUNNING,
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
        return self._update(self._held(row), **known, beat=CELLS.c.beat + 1) == 1

    def finish(self, row: Row, state: Status, **known: Any) -> bool:
        """End a claimed cell or give it back (WAITING); False if the claim was lost. Called again after a
        lost answer, it gives the first call's answer."""
        if self._update(self._held(row), state=state, **known) == 1:
            return True
        (now,) = self._read(CELLS.c.cell == row.cell)
        return (now.owner, now.attempt, now.state) == (row.owner, row.attempt, state)

    # -- keeping house -----------------------------------------------------------------------------

    def take_back(self, row: Row, reason: str) -> bool:
        """Free a cell whose worker is given up for dead, as it was seen; False if it moved since. One that
        lost MOST_LOSSES workers is failed."""
        losses = row.losses + 1
        state = Status.FAILED if losses >= MOST_LOSSES else Status.WAITING
        seen = and_(self._held(row), CELLS.c.beat == row.beat)
        return self._update(seen, state=state, owner=None, losses=losses, reason=reason, marked=0) == 1

    def retry_failed(self) -> int:
        """Let failed cells be claimed again; how many."""
        failed = CELLS.c.state == Status.FAILED
        return self._update(failed, state=Status.WAITING, losses=0, marked=0, seconds=None)

    def amend(self, row: Row, **known: Any) -> None:
        """Add what became known of an ended cell (MLflow has its reason, or all its records), unless it was
        claimed again since."""
        self._update(and_(CELLS.c.cell == row.cell, CELLS.c.attempt == row.attempt), **known)

    def _read(self, *conditions: Any) -> list[Row]:
        with self._engine.connect() as db:
            found = db.execute(select(CELLS).where(self._mine, *conditions).order_by(CELLS.c.position))
            return [_row(mapping) for mapping in found.mappings()]

    def _update(self, condition: Any, **values: Any) -> int:
        """Change the rows that meet the condition; how many did."""
        with self._engine.begin() as db:
            return int(db.execute(update(CELLS).where(self._mine, condition).values(**values)).rowcount)

    @property
    def _mine(self) -> Any:
        return CELLS.c.study_id == self._id

    def _held(self, row: Row) -> Any:
        """The row, as long as the claim under which it was seen holds."""
        same = and_(CELLS.c.cell == row.cell, CELLS.c.attempt == row.attempt, CELLS.c.owner == row.owner)
        return and_(same, CELLS.c.state == Status.RUNNING)


def _row(mapping: RowMapping) -> Row:
    return Row(**{name: value for name, value in mapping.items() if name != "study_id"})


def _insert(engine: Engine, table: Table) -> Any:
    dialect: Any = postgresql if engine.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
