"""One file over HTTP, resumed where it broke off and checked. Knows nothing of images."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import tenacity
from tqdm import tqdm

from imagenette.errors import InputError, RunError, as_line
from imagenette.processes import in_thread

ANSWER_SECONDS = 4.0
"""For the name look-up, every address behind the name and the first byte of the answer together."""
STALL_SECONDS = 20.0
SILENT_TRIES = 2
"""Where nothing answers: being offline is reported within ten seconds."""
BROKEN_TRIES = 6
"""With a server that answers and breaks off; each try goes on where the last one stopped."""


class _SilentError(Exception):
    """Nobody answered."""


class _BrokenError(Exception):
    """A server answered, and the answer was cut or was its own failure."""


def fetch(url: str, md5: str, folder: Path, *, progress: bool, log: Callable[[str], None]) -> Path:
    """Download `url` into `folder` unless it is there already; the path of the checked file.

    Raises InputError for an address that is not HTTP and for other bytes than published (which are then
    removed), RunError if the server cannot be reached or refuses, or if the disk is full.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"IMAGENETTE_MIRROR gives {url}: only http:// and https:// addresses are fetched")
    target = folder / url.rpartition("/")[2]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log(f"waiting for another process which downloads {target.name}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():
                if _md5(target) == md5:
                    return target
                log(f"{target} is damaged (its MD5 is not {md5}): downloading it again")
                target.unlink()
            part = target.with_name(f"{target.name}.part")
            _download(url, part, progress)
            if (found := _md5(part)) != md5:
                part.unlink()
                raise InputError(
                    f"{url} gave other bytes than published: MD5 {found}, not {md5}; removed, try again"
                )
            part.replace(target)
            return target
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from None


def _download(url: str, part: Path, progress: bool) -> None:
    offline = f"give the archive itself, if you have it: data=/path/to/{url.rpartition('/')[2]}"
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((_SilentError, _BrokenError)),
        stop=_give_up,
        wait=tenacity.wait_exponential(multiplier=0.2, max=3),
        reraise=True,
    )
    try:
        retrying(_go_on, url, part, progress)
    except _SilentError as error:
        raise RunError(f"cannot reach {url} ({error}); {offline}") from None
    except _BrokenError as error:
        raise RunError(
            f"{url} broke off {BROKEN_TRIES} times ({error}); run again to go on, or {offline}"
        ) from None


def _give_up(state: tenacity.RetryCallState) -> bool:
    assert state.outcome is not None
    silent = isinstance(state.outcome.exception(), _SilentError)
    return state.attempt_number >= (SILENT_TRIES if silent else BROKEN_TRIES)


def _go_on(url: str, part: Path, progress: bool) -> None:
    """One try: append what is missing to `part`."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "imagenette", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer = _answer(Request(url, headers=headers))
    except HTTPError as error:
        if error.code == 416:  # nothing lies behind what we have: whole already, or another file's part
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            part.unlink()
            raise _BrokenError("the partial file did not fit") from None
        if error.code == 429 or error.code >= 500:
            raise _BrokenError(f"HTTP {error.code} {error.reason}") from None
        raise RunError(f"{url}: HTTP {error.code} {error.reason}") from None
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file, whatever part was requested
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with (
            part.open("ab" if have else "wb") as out,
            tqdm(
                desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=not progress
            ) as bar,
        ):
            while block := _read(answer):
                out.write(block)
                have += len(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise _BrokenError(f"{have} of {total} bytes came")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(2**18)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(as_line(error)) from None


def _answer(request: Request) -> http.client.HTTPResponse:
    """Open a request in a thread: a name look-up has no timeout, and a name may have eight dead
    addresses, each with a timeout of its own."""
    opening = in_thread(lambda: urlopen(request, timeout=STALL_SECONDS), name="imagenette-download")
    try:
        answer: http.client.HTTPResponse = opening.result(ANSWER_SECONDS)
        return answer
    except HTTPError:
        raise
    except Exception as error:
        if not opening.done():
            raise _SilentError(f"no answer in {ANSWER_SECONDS:g} s") from None
        got = error
    reason = got.reason if isinstance(got, URLError) else got
    if isinstance(reason, ssl.SSLCertVerificationError | ValueError | http.client.InvalidURL):
        raise RunError(f"{request.full_url}: {as_line(reason)}")
    if isinstance(reason, http.client.HTTPException | ConnectionResetError):
        raise _BrokenError(as_line(reason))
    raise _SilentError(as_line(reason))


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
