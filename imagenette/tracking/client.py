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
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import tenacity

from imagenette.errors import InputError, RunError, as_line
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
    """Raise RunError if nothing answers at an http(s) address, or if what answers does not let us in. Costs
    no import of MLflow.

    timeout: seconds. advice: what the message ends with.
    """
    if not uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]  # urllib takes no password in an address
    address = urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")
    user, password = (part and unquote(part) for part in (parts.username, parts.password))
    login = environment.credentials(user, password)
    call = "api/2.0/mlflow/experiments/search?max_results=1" if login is not None else "health"
    try:
        code, kind = _get(f"{address}/{call}", login or {}, timeout)
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return  # it answers; certificates are MLflow's settings
        reason = getattr(cause, "strerror", None) or str(cause)
        raise RunError(f"tracking server {uri} does not answer ({reason.lower()}): {advice}") from None
    if proxy := code in (403, 407, 502, 503, 504) and _proxy(parts):
        answer = f"the proxy {proxy} answers in its place (HTTP {code}): add {parts.hostname} to NO_PROXY"
    elif code >= 500:
        answer = f"it does not answer (HTTP {code}): {advice}"
    elif code == 401:
        names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"
        answer = f"it {'refuses the' if login else 'wants a'} login (HTTP 401): set {names}"
    elif code == 403:
        answer = "it forbids the call (HTTP 403): this user, or a proxy on the way (NO_PROXY), may not"
    elif code == 200 and login is not None and kind != "application/json":
        answer = f"what answers there is not MLflow's API ({kind}): is the address right?"
    else:
        return  # a first real call shows the rest
    raise RunError(f"tracking server {uri}: {answer}")


def _get(address: str, headers: dict[str, str], timeout: float) -> tuple[int, str]:
    """HTTP status and content type."""
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.build_opener().open(request, timeout=timeout) as answer:
            return answer.status, answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type()


def _proxy(address: SplitResult) -> str | None:
    """The proxy that calls of this address go to."""
    bypassed = urllib.request.proxy_bypass(address.hostname or "")
    return None if bypassed else urllib.request.getproxies().get(address.scheme)


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


@contextmanager
def opened(
    tracking_uri: str | None, *, timeout: float = 4, advice: str = "start it, or set MLFLOW_TRACKING_URI"
) -> Iterator[MlflowClient]:
    """A client of the server that `resolve_uri` means; any failure of it inside is one line. See
    `check_alive`."""
    uri = resolve_uri(tracking_uri)
    check_alive(uri, timeout=timeout, advice=advice)
    with one_line(uri):
        yield connect(uri)


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
        raise RunError(f"tracking server {uri}: {first_line(error)}") from error


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


def first_line(error: BaseException) -> str:
    """What a call's exception says first; the rest is a proxy's page, a stack, or a statement in SQL."""
    text = str(error)
    if "Max retries exceeded" in text:  # requests' three lines of nested exceptions
        cause = re.search(r"\[Errno -?\d+\] ([\w ]+)|(timed out)", text)
        return (cause.group(1) or cause.group(2)).lower() if cause else "no answer"
    if "<html" in text.lower():
        text = re.sub(r"<[^<>]*>", " ", text)
    return as_line(text.strip().partition("\n")[0] or type(error).__name__, limit=300)
