"""The whole tracking service of one machine: PostgreSQL, MLflow and Optuna's dashboard in one folder.

`up` goes through it from top to bottom. Never imports torch or training; MLflow and Optuna run in the
processes that it starts.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from imagenette.errors import InputError, RunError, to_install
from imagenette.ports import listen
from imagenette.server import postgres, programs
from imagenette.server.folder import Folder, Form
from imagenette.server.leftovers import end_leftovers
from imagenette.server.supervisor import Supervisor
from imagenette.tracking import views
from imagenette.tracking.environment import EXPERIMENT

Print = Callable[[str], None]


def up(where: Path, *, port: int, dashboard_port: int, form: Form, report: Print, show: Print) -> None:
    """Run until SIGTERM or Ctrl-C. show: gets the two lines for a shell, once everything answers.

    InputError before anything is made; RunError if a part cannot be kept alive.
    """
    os.umask(0o077)  # what is made here is for this user alone
    folder = Folder.at(where)
    fresh = check(folder, form)
    existed = folder.path.exists()
    if fresh:
        _check_ports(port, dashboard_port)
        with _taken_back(folder, keep=existed):
            folder.make(form, mode=postgres.folder_mode() if form == "postgresql" else 0o700)
    with folder.held(), Supervisor(report) as supervisor:
        if left := end_leftovers(folder):
            report(f"{left} processes that a killed server left were ended")
        port, dashboard_port = _await_ports(port, dashboard_port)
        report(f"starting in {folder.path}; Ctrl-C stops it")
        with _taken_back(folder, keep=existed) if fresh else nullcontext():
            if form == "postgresql":
                postgres.make_files(folder)
            else:
                programs.make_sqlite(folder)
        if form == "postgresql":
            supervisor.add(postgres.part(folder))
            supervisor.until_up()
            supervisor.do(partial(postgres.make_databases, folder))
        supervisor.add(programs.mlflow(folder, port))
        supervisor.do(partial(programs.make_tables, folder))  # while MLflow imports
        if programs.has_dashboard():
            supervisor.add(programs.dashboard(folder, dashboard_port))
        supervisor.until_up()

        folder.remember_port(port)
        report(f"MLflow at http://127.0.0.1:{port}")
        if runs := views.link_here(f"http://127.0.0.1:{port}", EXPERIMENT):
            report(f"all runs: {runs}")
        if programs.has_dashboard():
            report(f"Optuna's dashboard at http://127.0.0.1:{dashboard_port}")
        else:
            report(f"Optuna's dashboard is not installed: {to_install('server')}")
        show(environment_lines(folder))
        supervisor.forever()


def check(folder: Folder, form: Form) -> bool:
    """Whether the folder is still to be made. InputError if a server of this form cannot be in it."""
    found = folder.form()
    if found not in (None, form):
        how = "with" if found == "sqlite" else "without"
        raise InputError(f"--dir {folder.path} was made {how} --sqlite, and stays so; choose another")
    folder.check_writable()
    if form == "postgresql":
        postgres.check(folder)
    return found is None


def environment_lines(folder: Folder) -> str:
    """What makes a shell's commands use this server. InputError where none was started yet."""
    values = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{folder.last_port()}",
        "OPTUNA_STORAGE": programs.database_address(folder, "optuna"),
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def _check_ports(port: int, dashboard_port: int) -> tuple[int, int]:
    """Both, with a free one in place of 0. InputError for one that is taken."""
    with listen("127.0.0.1", port) as one:
        if port and port == dashboard_port:
            raise InputError(f"--port and --dashboard-port are both {port}")
        with listen("127.0.0.1", dashboard_port, option="--dashboard-port") as two:
            return one.getsockname()[1], two.getsockname()[1]


def _await_ports(port: int, dashboard_port: int) -> tuple[int, int]:
    """The same with a little patience: what a killed server left holds its ports until its last thread is
    gone, which is a moment after it can be seen as a process."""
    taken = retry_if_exception_type(InputError)
    retrying = Retrying(retry=taken, stop=stop_after_delay(3), wait=wait_fixed(0.1), reraise=True)
    return retrying(_check_ports, port, dashboard_port)


@contextmanager
def _taken_back(folder: Folder, *, keep: bool) -> Iterator[None]:
    """A beginning that fails inside (full disk, no right to write) is one line and leaves nothing, but
    for the folder itself where we `keep` it."""
    try:
        yield
    except (RunError, OSError, sqlite3.Error) as error:
        folder.clear(keep=keep)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"--dir {folder.path} cannot be made: {reason}") from None
