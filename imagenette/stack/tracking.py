"""MLflow's server as `mlflow server --app-name imagenette` starts it: its own basic auth, and nothing but
/health for anybody else. By itself it also shows its pages' files and what it is set to (server-info) to
anybody."""

from __future__ import annotations

from typing import Any

from imagenette.access import Guard


def create_app() -> Any:
    """An ASGI application; uvicorn's workers call this."""
    from mlflow.server import auth

    app = auth.create_app()  # also connects the store of users that is asked here

    def known(user: str, password: str) -> bool:
        return bool(auth.store.authenticate_user(user, password))

    return Guard(app, verify=known)  # Host and Origin are checked by MLflow's own middleware
