"""Optuna's dashboard behind the guard, which by itself asks nobody for anything: `python -m
imagenette.stack.dashboard`.

OPTUNA_STORAGE: the database. ALLOWED_HOSTS: names to be asked by, with commas; else loopback's. PASSWORD:
what to ask for, with the user name `imagenette`; to go without it takes --no-password.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import click
import uvicorn

from imagenette.guard import LOOPBACK, Guard, one_password
from imagenette.study.storage import connect


def create_app(storage_url: str, *, password: str | None, hosts: tuple[str, ...] = LOOPBACK) -> Guard:
    """The dashboard of a database, whose tables are made if need be. password: None = no password."""
    from a2wsgi import WSGIMiddleware
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna_dashboard

    storage = connect(storage_url, create=True)

    def health(request: Request) -> PlainTextResponse:
        """The process answers, and the database does."""
        with storage.engine.connect() as db:
            db.exec_driver_sql("SELECT 1")
        return PlainTextResponse("OK")

    dashboard: Any = WSGIMiddleware(optuna_dashboard.wsgi(storage), workers=4)
    app = Starlette(routes=[Route("/health", health), Mount("/", dashboard)])
    return Guard(app, hosts=hosts, verify=one_password(password) if password else None)


@click.command()
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, default=8080)
@click.option("--no-password", is_flag=True)
def main(host: str, port: int, no_password: bool) -> None:
    storage, password = os.environ.get("OPTUNA_STORAGE"), os.environ.get("PASSWORD")
    if not storage or not (password or no_password):
        sys.exit(f"imagenette: {'PASSWORD' if storage else 'OPTUNA_STORAGE'} must be set")
    hosts = tuple(name for name in os.environ.get("ALLOWED_HOSTS", "").split(",") if name) or LOOPBACK
    app = create_app(storage, password=None if no_password else password, hosts=hosts)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
