"""Optuna's dashboard behind the guard: `python -m imagenette.stack.dashboard`. By itself it asks nobody for
anything.

OPTUNA_STORAGE: the database. PASSWORD: what to ask for, with the user name `imagenette`. ALLOWED_HOSTS:
names, with commas; else loopback's.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import uvicorn

from imagenette.access import LOOPBACK, Guard, one_password
from imagenette.study.storage import connect


def create_app(storage_url: str, password: str, hosts: tuple[str, ...]) -> Guard:
    """The dashboard of a database, whose tables are made if need be."""
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
    return Guard(app, hosts=hosts, verify=one_password(password))


def main() -> None:
    try:
        storage, password = os.environ["OPTUNA_STORAGE"], os.environ["PASSWORD"]
    except KeyError as error:
        sys.exit(f"imagenette: {error.args[0]} must be set")
    hosts = tuple(name for name in os.environ.get("ALLOWED_HOSTS", "").split(",") if name) or LOOPBACK
    app = create_app(storage, password, hosts)
    uvicorn.run(app, host="0.0.0.0", port=8080, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
