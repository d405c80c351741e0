"""`imagenette predict`: picture files to classes. Reads files, asks a registered model, prints."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from imagenette.artifacts import write_rows
from imagenette.data.prepare import Pixels
from imagenette.data.walk import walk
from imagenette.errors import InputError, shown
from imagenette.processes import cores
from imagenette.registry import Lineage, load_known
from imagenette.registry.model import Model

BATCH = 64
KEYS = ("class", "label", "share")


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture."""

    path: Path
    classes: tuple[tuple[str, str, float], ...]
    """(class, readable name, share in [0, 1]), the likeliest first."""

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.path), "top": [dict(zip(KEYS, row, strict=True)) for row in self.classes]}

    def row(self) -> dict[str, str]:
        """Its file, then class, name and share of each: `class_1`, `label_1`, `share_1`, `class_2`, ..."""
        cells = {"file": str(self.path)}
        for place, (name, label, share) in enumerate(self.classes, 1):
            values = name, label, f"{share:.6f}"
            cells |= {f"{key}_{place}": value for key, value in zip(KEYS, values, strict=True)}
        return cells


def predict(
    paths: Sequence[Path],
    *,
    model: str,
    top: int = 3,
    as_json: bool = False,
    csv: Path | None = None,
    tracking_uri: str | None = None,
) -> int:
    """Print what the model at that address says of every picture; returns how many could not be read, each
    named on standard error. csv: a file for a row a picture. InputError where a path does not exist or a
    folder holds no picture."""
    unread: list[str] = []
    over: list[Path] = []
    files = find_pictures(paths, unread=unread.append, over=over.append)
    loaded, known = load_known(model, tracking_uri=tracking_uri)
    said = name_of(loaded, known, model)
    dead = len(unread)
    show = _json_lines(known) if as_json else _table(min(top, len(loaded.classes)))
    rows: list[dict[str, str]] = []
    with tqdm(
        total=len(files), unit="img", desc="classifying", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            for answer in classify(loaded, part, top=top, unread=unread.append):
                with tqdm.external_write_mode(file=sys.stderr):
                    show(answer)
                rows.append(answer.row())
            bar.update(len(part))
    if csv:
        write_rows(csv, rows)
    for line in unread:
        click.echo(f"imagenette: {line}", err=True)
    told = f", {len(unread)} could not be read" if unread else ""
    told += f", {len(over)} passed over as no pictures, such as {shown(over[0])}" if over else ""
    click.echo(f"{said}: {len(files) + dead - len(unread)} pictures{told}", err=True)
    return len(unread)


def _pass_on(unread: Any, name: str, why: str) -> None:
    unread(f"{name}: {why}")


def find_pictures(paths: Sequence[Path], *, unread: Any, over: Any) -> list[Path]:
    """Files as they are named; of a folder, every picture below it, sorted, by the rule for data sets. What a
    folder holds besides goes to over(path), and unread(why) is told of what cannot be read."""
    files: list[Path] = []
    for path in paths:
        kind = _kind(path)
        if kind == "folder":
            inside: list[Path] = []
            name = shown(path)
            for found in walk(path, partial(_pass_on, unread, name)):
                if found.kind != "folder":
                    (inside.append if found.kind == "picture" else over)(path / found.name)
            if not inside:
                raise InputError(f"{shown(path)}: no picture in this folder or below")
            files += sorted(inside)
        elif kind == "file":
            files.append(path)
        else:
            raise InputError(f"{shown(path)}: {kind}")
    return files


def _kind(path: Path) -> str:
    """file, folder, or why it is neither."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        return "no such file or folder" if missing else str(getattr(error, "strerror", None) or error).lower()
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "not a file or folder"


def classify(model: Model, files: Sequence[Path], *, top: int, unread: Any) -> Iterator[Answer]:
    """Answers in the order of the files; for one that cannot be read, unread(why) is called instead."""
    with ThreadPoolExecutor(cores()) as pool:
        prepared = [(file, pool.submit(_prepare, model, file)) for file in files]
    readable: list[tuple[Path, Pixels]] = []
    for file, future in prepared:
        pixels = _result(future, unread)
        if pixels is not None:
            readable.append((file, pixels))
    if readable:
        shares = model.shares(np.stack([pixels for _, pixels in readable]))
        for (file, _), row in zip(readable, shares, strict=True):
            yield Answer(file, top_classes(model, row, top))


def top_classes(
    model: Model, shares: npt.NDArray[np.float32], top: int
) -> tuple[tuple[str, str, float], ...]:
    """(class, readable name, share) of the likeliest classes; shares: [classes]."""
    order = np.argsort(-shares, kind="stable")[:top]
    return tuple((model.classes[i], model.labels[i], float(shares[i])) for i in order)


def _prepare(model: Model, file: Path) -> Pixels:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{shown(file)}: {(error.strerror or str(error)).lower()}") from None
    return model.preprocess(data, shown(file))


def _result(future: Future[Pixels], unread: Any) -> Pixels | None:
    try:
        return future.result()
    except InputError as error:
        unread(str(error))
        return None


def name_of(model: Model, known: Lineage | None, address: str) -> str:
    """The model in words: name, version, run, resolution."""
    if known is None:
        return f"{address} ({model.size} px)"
    run = f"run {known.run_id}" if known.run_id else "no run known"
    return f"{known.name} version {known.version} ({run}, {model.size} px)"


def _json_lines(known: Lineage | None) -> Any:
    which = {"model": f"{known.name}/{known.version}"} if known else {}
    return lambda answer: click.echo(json.dumps(answer.to_json() | which))


def _table(top: int) -> Any:
    """Prints aligned lines as answers come: a folder of thousands is not held back for its longest name."""

    def show(answer: Answer) -> None:
        cells = [f"{label} {share:6.1%}" for _, label, share in answer.classes[:top]]
        click.echo("  ".join([f"{shown(answer.path):<32}", *(f"{cell:<26}" for cell in cells)]).rstrip())

    return show
