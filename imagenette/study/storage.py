"""The database behind a study: its address checked, its tables made, and patience while it is away."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
import tenacity
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from imagenette.errors import InputError, RunError, hide_secrets
from imagenette.study.queue import CELLS, METADATA, Queue
from imagenette.tracking.environment import lasting

DEFAULT = "sqlite:///optuna.db"
WAIT = 600.0  # seconds for the database to come back, before a worker gives up
LAST_WAIT = 10.0  # the same, once somebody asks to stop
AWAY = (DBAPIError, PoolTimeoutError, optuna.exceptions.StorageInternalError)
"""What is raised while the database does not answer..."""
WRONG = (DataError, IntegrityError, ProgrammingError)
"""...but for these: it answers, and says no."""

T = TypeVar("T")


def resolve_storage(url: str | None) -> str:
    """The database meant: the argument, else OPTUNA_STORAGE, else sqlite:///optuna.db. A relative SQLite path
    is made absolute. InputError for anything but SQLite and PostgreSQL."""
    url = url or os.environ.get("OPTUNA_STORAGE") or DEFAULT
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        backend = ""
    if backend not in ("sqlite", "postgresql") or (backend == "sqlite" and not parsed.database):
        raise InputError(
            f"storage={url}: storage must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if backend == "sqlite":
        return f"sqlite:///{lasting(Path(str(parsed.database))).resolve()}"
    return url


def open_storage(url: str, *, create: bool = True) -> optuna.storages.RDBStorage:
    """Connect, and make what tables are missing. RunError in one line if nothing answers."""
    file = make_url(url).database if url.startswith("sqlite") else None
    if file and not create and not Path(file).exists():
        raise InputError(f"storage={url}: there is no such file, so no study yet")
    try:
        # Two processes that make the same tables at once: one of them loses, and finds them there.
        several = tenacity.stop_after_attempt(4)
        retrying = tenacity.Retrying(stop=several, wait=tenacity.wait_random(0.1, 1), reraise=True)
        if create or retrying(lambda: _holds_cells(url)):
            return retrying(lambda: connect(url, create=create))
    except (*AWAY, RuntimeError) as error:
        raise RunError(f"storage {url} does not answer: {_cause(error)}") from error
    raise InputError(f"storage={url}: holds no study of imagenette's yet")


def connect(url: str, *, create: bool = False) -> optuna.storages.RDBStorage:
    """One attempt, quietly; whatever goes wrong comes as it is."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = optuna.storages.RDBStorage(
            url, engine_kwargs=_engine_options(url), skip_table_creation=not create
        )
        if create:
            METADATA.create_all(storage.engine)
            if storage.engine.dialect.name == "sqlite":
                with storage.engine.connect() as db:  # a frozen reader would keep all others from writing
                    db.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _holds_cells(url: str) -> bool:
    engine = create_engine(url, **_engine_options(url))
    try:
        return inspect(engine).has_table(CELLS.name)
    finally:
        engine.dispose()


def open_study(storage: optuna.storages.RDBStorage, name: str) -> int:
    """Optuna's id of the study, made if need be; several processes may ask at once."""
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    return int(storage.get_study_id_from_name(study.study_name))


def find_queue(storage: optuna.storages.RDBStorage, name: str) -> Queue:
    """The queue of a study that exists. InputError if it does not."""
    try:
        return Queue(storage.engine, storage.get_study_id_from_name(name))
    except KeyError:
        names = sorted(study.study_name for study in storage.get_all_studies())
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? There" if close else "there"
        known = ", ".join(names) or "none"
        raise InputError(f"study {name}: not in {storage.url}; {hint} are: {known}") from None


@dataclass(frozen=True)
class Patience:
    """Does things again while the database does not answer."""

    unless: Callable[[], bool] = lambda: False
    """Whether somebody asks to stop: then it is not waited for long."""

    def __call__(self, action: Callable[[], T]) -> T:
        """What action gives. RunError after WAIT seconds, or LAST_WAIT.

        What is done must bear being done twice: an answer may be lost after a commit."""

        def waits(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                error = state.outcome.exception() if state.outcome else None
                print(f"imagenette: storage does not answer ({_cause(error)}): waiting", file=sys.stderr)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, AWAY) and not isinstance(e, WRONG)),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=3),
            stop=lambda state: (state.seconds_since_start or 0) > (LAST_WAIT if self.unless() else WAIT),
            before_sleep=waits,
            reraise=True,
        )
        with in_one_line():
            return retrying(action)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Inside, a database that goes away is a RunError."""
    try:
        yield
    except AWAY as error:
        raise RunError(f"storage did not answer: {_cause(error)}; the same command goes on") from error


def _engine_options(url: str) -> dict[str, Any]:
    if make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 60}}  # seconds to wait for another writer
    return {
        "pool_pre_ping": True,  # a restarted database costs a reconnect, not an error
        "connect_args": {
            "connect_timeout": 5,
            "tcp_user_timeout": 15_000,  # ms: a host that vanished is noticed
            # A worker frozen inside a transaction must not keep its locks for ever.
            "options": "-c idle_in_transaction_session_timeout=20000 -c lock_timeout=20000",
        },
    }


def _cause(error: BaseException | None) -> str:
    """The innermost reason, as one short line."""
    while error is not None and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__
    lines = [line for line in str(error).splitlines() if line.strip("() ")] or [type(error).__name__]
    return hide_secrets(lines[0].strip()[:200])
