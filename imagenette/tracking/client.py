"""The way to a tracking server: is it alive, a quiet client, the experiment. No runs, no records."""

from __future__ import annotations

import logging
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import tenacity

from imagenette.errors import InputError, RunError, hide_secrets
from imagenette.tracking import environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ADVICE = "start it, or train with offline=true and run `imagenette sync DIR` later"
RACES = ("UNIQUE constraint", "duplicate key")
"""How errors are worded where another writer made the same row in the same moment: it is there now."""
_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def resolve_uri(uri: str | None) -> str:
    """The server meant: the argument, else MLFLOW_TRACKING_URI, else MLflow's sqlite:///mlflow.db.

    A relative SQLite path is made absolute, so that `sync` means the same file from any folder.
    """
    uri = uri or environment.tracking_uri() or "sqlite:///mlflow.db"
    path = uri.removeprefix("sqlite:///")
    if path != uri and not path.startswith("/"):
        return f"sqlite:///{Path(path).resolve()}"
    return uri


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
            return  # it answers; the first real call shows whether it lets us in
        reason = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return  # it answers; certificates are MLflow's settings
        reason = getattr(cause, "strerror", None) or str(cause)
    else:
        return
    raise RunError(f"tracking server {hide_secrets(uri)} does not answer ({reason.lower()}): {advice}")


def connect(uri: str) -> MlflowClient:
    """An MLflow client with short patience and without chatter."""
    environment.set_defaults()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        for name in ("alembic", "mlflow.store.db.utils"):  # a dozen lines at a database's creation
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # every retry of a dead server
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, created if need be; several processes may do so at once."""
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


def retry_on(*words: str) -> Callable[[Callable[_Given, _Answer]], Callable[_Given, _Answer]]:
    """Decorator: call again, within seconds, after an error that holds one of the words."""
    return tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: any(each in str(error) for each in words)),
        stop=tenacity.stop_after_attempt(20),
        wait=tenacity.wait_random(0.02, 0.3),
        reraise=True,
    )


def or_none(call: Callable[[], _Answer], *codes: str) -> _Answer | None:
    """What the call returns; None where the server answers with one of MLflow's error codes (by default, that
    there is no such thing)."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code in (codes or ("RESOURCE_DOES_NOT_EXIST",)):
            return None
        raise


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
