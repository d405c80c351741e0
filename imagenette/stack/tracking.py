"""MLflow's server behind its own basic auth, and nothing but /health for anybody else: by itself it also
shows its pages' files and what it is set to (server-info) to anybody.

    python -m imagenette.stack.tracking OPTIONS        # of `mlflow server`
"""

from __future__ import annotations

import os
import sys
from typing import Any

from imagenette.guard import Guard


def create_app() -> Any:
    """An ASGI application; each of uvicorn's workers calls this, as `mlflow server --app-name imagenette`."""
    from mlflow.server import auth

    app = auth.create_app()  # also connects the store of users that is asked here

    def known(user: str, password: str) -> bool:
        return bool(auth.store.authenticate_user(user, password))

    return Guard(app, verify=known)  # Host and Origin are checked by MLflow's own middleware


def main() -> None:
    from mlflow.server import auth

    auth.bootstrap_admin_user()  # once, before there are workers that would all make the same tables
    os.execvp("mlflow", ["mlflow", "server", "--app-name", "imagenette", *sys.argv[1:]])


if __name__ == "__main__":
    main()
