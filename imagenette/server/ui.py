"""MLflow's pages on the store in use, for as long as somebody looks at them; they open on the leaderboard.

Refuses a store in which nothing is yet: MLflow would make it, and take other folders for its artifacts than
a training does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from imagenette.errors import InputError, hide_secrets
from imagenette.files import scratch
from imagenette.ports import listen
from imagenette.server.parts import Part, answers_http
from imagenette.server.supervisor import Supervisor
from imagenette.tracking.client import check_alive, connect, one_line, resolve_uri
from imagenette.tracking.experiments import elsewhere, holding_runs
from imagenette.tracking.views import link, studies

PORTS = range(5000, 5020)
_SHOWN = 10
"""Studies of an experiment whose links are shown; the description of each one's parent run has its own."""
Print = Callable[[str], None]


def ui(
    *, tracking_uri: str | None, experiment: str | None, port: int | None, report: Print, show: Print
) -> None:
    """Serve them on loopback until SIGTERM or Ctrl-C; where the store is a server, only show the way there.

    experiment: see `look_in`. port: 0 = any free one, None = the first free one of PORTS. show: gets the
    address of each experiment that holds runs, the newest first, and of its studies, once they answer.
    """
    uri = resolve_uri(tracking_uri)
    check_alive(uri, advice="start it, or set MLFLOW_TRACKING_URI")
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        raise InputError(f"{file}: there is no such file, so no run yet: `imagenette train` makes one")
    with one_line(uri):
        client = connect(uri)
        places = holding_runs(client, experiment)
        arms = {number: studies(client, number) for number in places}

    def show_links(address: str) -> None:
        for number, name in places.items():
            report(f"the runs{elsewhere(name)}:")
            show(link(address, number) or address)
            for study, key in islice(arms[number].items(), _SHOWN):
                report(f"the study {study}, by arm:")
                show(link(address, number, key) or address)
            if (more := len(arms[number]) - _SHOWN) > 0:
                report(f"and {more} more studies; each one's parent run has its link")
        if not places:
            report("no run of imagenette's is there yet")
            show(address)

    if uri.startswith(("http://", "https://")):
        show_links(uri)
        return
    port = _free(port)
    address = f"http://127.0.0.1:{port}"
    with scratch() as folder, Supervisor(report) as supervisor:
        report(f"starting MLflow's pages on {hide_secrets(uri)}; Ctrl-C stops them")
        supervisor.add(_pages(uri, port, folder / "mlflow.log"))
        supervisor.until_up()
        show_links(address)
        supervisor.forever()


def _pages(uri: str, port: int, log: Path) -> Part:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--no-access-log"]
    # Artifacts lie where the trainings put them. A server that handed them on would have new experiments'
    # artifacts go through itself, also when it is no longer there.
    command += ["--no-serve-artifacts", "--default-artifact-root", str(Path("mlruns").resolve())]
    ours = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    return Part(
        name="MLflow",
        command=command,
        log=log,
        answers=lambda: answers_http(port, "/health"),
        # The store's address not in the command line, which anybody on the machine may read.
        env=ours | {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=Path.cwd(),
    )


def _free(port: int | None) -> int:
    """InputError where the port, or each that may be taken, is in use."""
    for candidate in PORTS if port is None else [port]:
        try:
            with listen("127.0.0.1", candidate) as socket:
                return int(socket.getsockname()[1])
        except InputError:
            if candidate == port:
                raise
    raise InputError(f"ports {PORTS[0]} to {PORTS[-1]} are all in use; choose another with --port")
