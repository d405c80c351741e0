"""The durable log of one run: what happened, in order, on disk before anything is sent.

    outbox/run.json       who the run is: uid, experiment, name, tags, server, run id once known
    outbox/records.jsonl  one record a line, fsynced; never rewritten
    outbox/acked          how many of them the server has; losing it only means sending again
    outbox/refused.jsonl  records the server would not take, each with its reason
    outbox/lock           held by the process that writes

Knows neither MLflow nor what the records mean.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

from imagenette.errors import InputError, RunError
from imagenette.files import sync_folder, write_whole
from imagenette.records import now_ms

FOLDER = "outbox"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Who a run is, wherever its records end up, and what it opens with."""

    experiment: str
    run_name: str
    tags: dict[str, str]
    parent_run_id: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    """Canonical text of every knob. Under `mlflow run` the raw text logged there stays. Not in run.json: the
    first record holds it."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """The data it is trained on, MLflow's one data set input: `name`, `digest` (64 hex digits), `source` (a
    path or an address), `train_images`, `test_images`, `classes`, `side` (pixels). Not in run.json either."""
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Ours, made before any server is reached; the tag `imagenette.uid` finds the run again."""
    start_time: int = field(default_factory=now_ms)
    """Milliseconds since 1970."""
    tracking_uri: str | None = None
    """Without a password: the file stays where anyone may read it."""
    run_id: str | None = None
    experiment_id: str | None = None
    adopted: bool = False
    """The run was made by `mlflow run`, not by us."""


@dataclass(frozen=True)
class Record:
    """One line of the log."""

    seq: int
    """0-based line number."""
    kind: str
    body: dict[str, Any]


class Outbox:
    """The log of one output folder, held by one process at a time. Appends are safe between threads."""

    def __init__(self, output: Path) -> None:
        """Take the folder's outbox, making it if needed; raises InputError if a live process holds it."""
        self.output = output.resolve()
        self.folder = self.output / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(self.folder / "lock", output)
        self.changed = threading.Condition()
        self._records = list(_whole_lines(self.folder / "records.jsonl"))
        # Without a buffer: what a full disk did not take would be written once more, into the next record.
        self._file = (self.folder / "records.jsonl").open("ab", buffering=0)
        sync_folder(self.folder)
        self._acked = min(_read_count(self.folder / "acked"), len(self._records))
        self.refused = len(read_refused(output))
        self.card = read_card(output) if holds_run(output) else None

    @property
    def records(self) -> list[Record]:
        with self.changed:
            return list(self._records)

    @property
    def pending(self) -> int:
        """Records not yet on the server, refused ones not counted."""
        with self.changed:
            return len(self._records) - self._acked

    @property
    def lacking(self) -> int:
        """Records the server has not got: pending and refused."""
        return self.pending + self.refused

    def write_card(self, card: Card) -> Card:
        """Write down who the run is."""
        known = {name: value for name, value in asdict(card).items() if name not in ("params", "dataset")}
        write_whole(self.folder / "run.json", json.dumps(known, indent=1))
        self.card = card
        return card

    def update_card(self, **known: Any) -> Card:
        """Write down what a server answered about the run, its id above all."""
        assert self.card is not None
        return self.write_card(replace(self.card, **known))

    def append(self, kind: str, **body: Any) -> None:
        """Add a record; when this returns it is on disk. Raises RunError when the disk is full."""
        with self.changed:
            size = os.fstat(self._file.fileno()).st_size
            left = json.dumps({"kind": kind, **body}).encode() + b"\n"
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                os.ftruncate(self._file.fileno(), size)
                raise RunError(f"cannot record to {self.folder}: {error.strerror}") from error
            self._records.append(Record(len(self._records), kind, body))
            self.changed.notify_all()

    def head(self) -> Record | None:
        """The oldest record the server has not got."""
        with self.changed:
            return self._records[self._acked] if self._acked < len(self._records) else None

    def ack(self, record: Record) -> None:
        """The server has this record and all before it."""
        with self.changed:
            self._acked = record.seq + 1
            write_whole(self.folder / "acked", str(self._acked), fsync=False)
            self.changed.notify_all()

    def refuse(self, record: Record, reason: str) -> None:
        """The server will never take this record: put it aside, so that those behind it pass."""
        self.set_refused([*read_refused(self.output), (record.seq, reason)])
        self.ack(record)

    def set_refused(self, refused: list[tuple[int, str]]) -> None:
        """Write the pile of refused records, (line number, reason) each."""
        text = "".join(json.dumps({"seq": seq, "reason": reason}) + "\n" for seq, reason in refused)
        write_whole(self.folder / "refused.jsonl", text)
        self.refused = len(refused)

    def replay(self) -> None:
        """Forget what was delivered: the server is another one, or has lost the run."""
        with self.changed:
            self._acked = 0
        (self.folder / "acked").unlink(missing_ok=True)
        self.set_refused([])

    def close(self) -> None:
        self._file.close()
        self._lock_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def holds_run(output: Path) -> bool:
    return (output / FOLDER / "run.json").is_file()


def read_card(output: Path) -> Card:
    path = output / FOLDER / "run.json"
    try:
        return Card(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a run's card: {error}") from error


def read_refused(output: Path) -> list[tuple[int, str]]:
    """(line number, reason) of every refused record."""
    entries = map(_parsed, _lines(output / FOLDER / "refused.jsonl"))
    return [(entry["seq"], entry["reason"]) for entry in entries if "seq" in entry]


def count_lacking(output: Path) -> int:
    """Records of a folder that no server has, without taking its lock."""
    pending = len(_lines(output / FOLDER / "records.jsonl")) - _read_count(output / FOLDER / "acked")
    return max(0, pending) + len(read_refused(output))


def count_epochs(output: Path) -> int:
    """Epochs recorded so far, without taking the lock; a line being written is not counted."""
    return sum(_parsed(line).get("kind") == "epoch" for line in _lines(output / FOLDER / "records.jsonl"))


def trained_on(output: Path) -> dict[str, Any]:
    """The data of the run in a folder, as its first record has them (`Card.dataset`); {} where none has."""
    records = map(_parsed, _lines(output / FOLDER / "records.jsonl"))
    return next((each.get("dataset", {}) for each in records if each.get("kind") == "open"), {})


def ended(output: Path) -> bool:
    """Whether nothing has been recorded since the run's last end, without taking the lock; so too where
    nothing ever was."""
    lines = _lines(output / FOLDER / "records.jsonl")
    return not lines or _parsed(lines[-1]).get("kind") == "end"


def is_held(output: Path) -> bool:
    """Whether a process, on whatever machine, writes into the folder's outbox now."""
    path = output / FOLDER / "lock"
    try:
        if path.exists():
            _lock(path, output).close()
    except InputError:
        return True
    return False


def _lines(path: Path) -> list[bytes]:
    """The lines of a file that end with a newline; none where there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _whole_lines(path: Path) -> Iterator[Record]:
    """Every whole record. A last line cut short by a power cut is dropped, and cut off the file."""
    lines = _lines(path)
    while lines and "kind" not in _parsed(lines[-1]):  # some file systems leave zeros or half a block
        lines.pop()
    if path.exists():
        os.truncate(path, sum(len(line) + 1 for line in lines))
    for seq, line in enumerate(lines):
        body = _parsed(line)
        yield Record(seq, body.pop("kind", "unreadable"), body)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_count(path: Path) -> int:
    try:
        return max(0, int(path.read_text("utf-8")))
    except (OSError, ValueError):
        return 0


def _lock(path: Path, output: Path) -> IO[str]:
    """A POSIX record lock, not flock: forked loader workers do not inherit it, so it dies with us. InputError
    where another process holds it."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise InputError(f"output={output} is in use by process {holder}: wait, or stop it") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
