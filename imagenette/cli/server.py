"""Verbs of tracking services: server (the whole of it on one machine, its addresses, its backup), ui."""

from __future__ import annotations

from pathlib import Path

import click

from imagenette.cli.options import Verb, VerbGroup, flag

_DEFAULT = Path("imagenette-server")


_DIR = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The server's folder. [default: imagenette-server]",
)
_PORT = click.IntRange(0, 65535)


@click.group(
    cls=VerbGroup,
    invoke_without_command=True,
    short_help="MLflow, Optuna's dashboard and PostgreSQL on this machine, in one folder.",
)
@_DIR
@click.option("--port", type=_PORT, default=5000, help="MLflow's; 0 = any free one. [default: 5000]")
@click.option(
    "--dashboard-port", type=_PORT, default=8080, help="Of Optuna's dashboard; 0 = any. [default: 8080]"
)
@flag("--sqlite", help="Two SQLite files instead of PostgreSQL: enough for one person.")
@click.pass_context
def server(ctx: click.Context, folder: Path | None, port: int, dashboard_port: int, sqlite: bool) -> None:
    """Run a tracking service until Ctrl-C or SIGTERM: PostgreSQL, MLflow and Optuna's dashboard, on loopback,
    with all they keep in DIR. A part that dies is started again.

    When everything answers, two lines for a shell come on standard output: MLFLOW_TRACKING_URI and
    OPTUNA_STORAGE; `imagenette server env` prints them again.

    Exit codes: 0 stopped; 1 a part could not be kept alive; 2 wrong usage, a taken port, a folder that
    does not fit.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = folder
        return
    from imagenette.server import up

    up(
        folder or _DEFAULT,
        port=port,
        dashboard_port=dashboard_port,
        form="sqlite" if sqlite else "postgresql",
        report=_report,
        show=click.echo,
    )


@server.command(cls=Verb, short_help='The two lines again, for eval "$(imagenette server env)".')
@_DIR
@click.pass_obj
def env(above: Path | None, folder: Path | None) -> None:
    """Print the export lines of MLFLOW_TRACKING_URI and OPTUNA_STORAGE."""
    from imagenette.server import environment_lines
    from imagenette.server.folder import Folder

    place = Folder.at(folder or above or _DEFAULT)
    click.echo(environment_lines(place))
    if not place.is_held():
        _report(f"no server runs in {place.path} now")


@server.command(cls=Verb, short_help="Databases and artifacts into one file, also while the server runs.")
@click.argument("file", type=click.Path(path_type=Path))
@_DIR
@click.pass_obj
def backup(above: Path | None, file: Path, folder: Path | None) -> None:
    """Write both databases and the artifacts into FILE, a tar archive with checksums. What is there when it
    begins is in it; the server may run, and be in use."""
    from imagenette.server.backup import backup as run

    run(folder or above or _DEFAULT, file, report=_report)


@server.command(cls=Verb, short_help="A backup's content into an empty or missing folder.")
@click.argument("file", type=click.Path(path_type=Path))
@_DIR
@click.pass_obj
def restore(above: Path | None, file: Path, folder: Path | None) -> None:
    """Make DIR, which must be missing or empty, from the backup FILE, once every checksum in it is right."""
    from imagenette.server.backup import restore as run

    run(file, folder or above or _DEFAULT, report=_report)


@click.command(cls=Verb, short_help="MLflow's pages on the runs, opened on the leaderboard.")
@click.option("--port", type=_PORT, help="0 = any free one. [default: the first free one from 5000 on]")
@flag("--open", help="Open the newest experiment in the browser too.")
def ui(port: int | None, open: bool) -> None:
    """Serve MLflow's pages on loopback, until Ctrl-C, and print the links that open on the runs, best first.

    The store is MLFLOW_TRACKING_URI's, else mlflow.db in this folder; where it is a server already, only the
    links are printed. Experiments are all that hold runs, or the one of MLFLOW_EXPERIMENT_NAME.
    """
    from imagenette.server.ui import ui as run
    from imagenette.tracking import environment

    links: list[str] = []

    def show(link: str) -> None:
        click.echo(link)
        links.append(link)
        if open and len(links) == 1:
            click.launch(link)

    run(
        tracking_uri=environment.tracking_uri(),
        experiment=environment.named_experiment(),
        port=port,
        report=_report,
        show=show,
    )


def _report(line: str) -> None:
    click.echo(f"imagenette: {line}", err=True)
