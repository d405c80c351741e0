"""The way to a tracking server: is it alive, a quiet client, the experiment. No runs, no records."""

from __future__ import annotations

import logging
import os
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.errors import InputError, RunError, hide_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {
    # MLflow's defaults hold a call to a dead server for four minutes; these for seconds.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def resolve_uri(uri: str | None) -> str:
    """The server meant: the argument, else MLFLOW_TRACKING_URI, else MLflow's sqlite:///mlflow.db.

    A relative SQLite path is made absolute, so that `sync` means the same file from any folder.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = uri.removeprefix("sqlite:///")
    if path != uri and not path.startswith("/"):
        return f"sqlite:///{Path(path).resolve()}"
    return uri


_ADVICE = "start it, or train with offline=true and run `imagenette sync DIR` later"


def check_alive(uri: str, *, timeout: float = 4, advice: str = _ADVICE) -> None:
    """Raise RunError if nothing answers at an http(s) address. Costs no import of MLflow.

    timeout: seconds. advice: what the message ends with.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        address = re.sub(r"://[^/@]*@", "://", uri).rstrip("/")  # health needs no password, urllib takes none
        urllib.request.urlopen(f"{address}/health", timeout=timeout).close()
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return  # it answers; whether it lets us in is for the first real call to say
        reason = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return  # it answers; certificates are MLflow's settings
        reason = getattr(cause, "strerror", None) or str(cause)
    else:
        return
    raise RunError(f"tracking server {hide_secrets(uri)} does not answer ({reason.lower()}): {advice}")


def set_environment() -> None:
    """MLflow's settings, where the user has none. Before other threads read the environment: changing it is
    not safe beside them."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str) -> MlflowClient:
    """An MLflow client with short patience and without chatter."""
    set_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        for name in ("alembic", "mlflow.store.db.utils"):  # a dozen lines at a database's creation
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # every retry of a dead server
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, created if need be; several processes may ask at once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise RunError(f"experiment {name!r} cannot be created: {first_line(error)}") from error
    if found.lifecycle_stage != "active":
        raise InputError(
            f"experiment {name!r} is deleted: restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}`, or name another"
        )
    return str(found.experiment_id)


@contextmanager
def one_line(uri: str) -> Iterator[None]:
    """Any failure of the server inside becomes a RunError of one line."""
    try:
        yield
    except (InputError, RunError):
        raise
    except (AssertionError, AttributeError, LookupError, NameError, TypeError):
        raise  # a mistake of ours, which keeps its traceback
    except Exception as error:
        raise RunError(f"tracking server {hide_secrets(uri)}: {first_line(error)}") from error


def quoted(text: str) -> str:
    """The text as a literal of MLflow's filters, which know no escape. InputError if that cannot be."""
    for quote in ("'", '"'):
        if quote not in text and text.isprintable():
            return f"{quote}{text}{quote}"
    raise InputError(f"{text!r} cannot be searched for: it has both kinds of quotes, or what is not printed")


def pages(search: Any) -> Iterator[Any]:
    """Every item of a paged search; `search` takes a page token."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def first_line(error: BaseException, *, limit: int = 300) -> str:
    """An exception as one line."""
    text = str(error).strip() or type(error).__name__
    if "Max retries exceeded" in text:  # requests' three lines of nested exceptions
        cause = re.search(r"\[Errno -?\d+\] ([\w ]+)|(timed out)", text)
        return (cause.group(1) or cause.group(2)).lower() if cause else "no answer"
    line = text.splitlines()[0]
    return line if len(line) <= limit else line[:limit] + "..."
