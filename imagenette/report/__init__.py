"""Tracked runs as tables and figures, beside what was published, with what may be concluded in words.

server -> reader -> arrange -> compare -> words, tables, figures -> forms

Needs the tracking server and nothing else: neither torch, nor the data, nor the database a study ran on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from imagenette.errors import InputError, RunError
from imagenette.files import write_whole
from imagenette.report.assemble import arrange
from imagenette.report.study import published, unreadable

if TYPE_CHECKING:
    from imagenette.report.reader import Reader
    from imagenette.report.study_report import Sheet
    from imagenette.tracking.study_plan import Outline

WATCH_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on, and where to."""

    studies: tuple[str, ...] = ()
    """Names; none = every study of the experiment that has a parent run."""
    out: Path = Path("report")
    tracking_uri: str | None = None
    experiment: str | None = None
    """Its name; None = that of `mlflow run`, else imagenette."""
    model: str = "imagenette"
    """The registered model whose champion's confusion matrix is shown."""
    watch: bool = False
    """Go on, and make it anew whenever something changed, until every study has ended."""
    log: bool = True
    """Show each study's report under its parent run too."""
    readme: Path | None = None
    """A document with a place for the results."""
    known: Callable[[str], Outline | None] = lambda name: None
    """What a study plans, where its parent run does not say."""


def report(request: Request, say: Callable[[str], None]) -> None:
    """Write everything into `request.out`. InputError on an unknown study; RunError if the server is dead."""
    from imagenette.report.reader import open_reader  # MLflow comes with it

    _claim(request.out)
    reader = open_reader(request.tracking_uri, request.experiment)
    with reader.launched() as tell:
        names = list(dict.fromkeys(request.studies)) or reader.studies()
        if not names:
            raise InputError(
                f"experiment {reader.experiment!r} has no study yet: `imagenette study NAME` makes one; or "
                "name the tag `study` of runs that have no parent run"
            )
        sheets: list[Sheet] = []
        seen: object = None
        try:
            while True:
                try:
                    now = [reader.state(name) for name in names] if request.watch else []
                    if now != seen:
                        sheets = _read(reader, names, request)
                        seen = now
                        going = request.watch and any(sheet.study.status == "running" for sheet in sheets)
                        _write(reader, sheets, request, refresh=WATCH_SECONDS if going else None)
                        words = [line for sheet in sheets for line in _words(sheet)]
                        for line in [*words, str(request.out / "report.html")]:
                            say(line)
                        tell("\n".join(words))
                        if not going:
                            return
                except RunError as error:
                    if not (request.watch and sheets):
                        raise
                    say(f"{error}; tried again in {WATCH_SECONDS} s")
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            if sheets:  # the page is not made anew any more
                _write(reader, sheets, request, refresh=None)
            raise


def _read(reader: Reader, names: Sequence[str], request: Request) -> list[Sheet]:
    """A study that was not asked for by its name and cannot be read is named in the report."""
    from imagenette.report.study_report import lay_out

    sheets = []
    for name in names:
        try:
            sheets.append(_sheet(reader, name, request.known))
        except InputError as error:
            if request.studies:
                raise
            sheets.append(lay_out(unreadable(name, str(error))))
    return sheets


def _words(sheet: Sheet) -> list[str]:
    study = sheet.study
    odd = f"; odd: {len(study.problems)}, see the report" if study.problems else ""
    return [f"{study.name}: {sheet.so_far}{odd}", *(f"  {sentence}" for sentence in sheet.verdict)]


def _sheet(reader: Reader, name: str, known: Callable[[str], Outline | None]) -> Sheet:
    from imagenette.report.study_report import lay_out

    tracked = reader.study(name)
    outline, problems = tracked.outline, []
    if outline is None:
        outline = known(name)
        instead = (
            "that of the same name among the shipped studies is taken" if outline else "the runs' tags are"
        )
        problems.append(f"What the study planned is not on the server ({tracked.problem}): {instead}.")
    if len(tracked.parents) > 1:
        ids = ", ".join(parent.run_id for parent in tracked.parents)
        problems.append(f"The study has {len(tracked.parents)} parent runs, the newest first: {ids}.")
    newest = tracked.parents[0] if tracked.parents else None
    study = arrange(
        name,
        outline,
        tracked.runs,
        problems=problems,
        status=newest.status if newest else "",
        parent=newest.run_id if newest else None,
    )
    address, server = "", urlsplit(reader.uri)
    shareable = server.hostname not in ("localhost", "127.0.0.1", "::1") and "@" not in server.netloc
    if newest and server.scheme in ("http", "https") and shareable:
        address = f"{reader.uri.rstrip('/')}/#/experiments/{tracked.experiment_id}/runs/{newest.run_id}"
    return lay_out(study, published(outline) if outline else None, address=address)


def _write(reader: Reader, sheets: Sequence[Sheet], request: Request, *, refresh: int | None) -> None:
    """Everything into the folder, and each study's part under its parent run."""
    from imagenette.report.write import brief, markdown, page, put_into, write_study

    champion = reader.champion(request.model)
    whole = []
    try:
        for sheet in sheets:
            digests = {run.data_digest for run in sheet.study.runs}
            own = champion if champion and champion.data_digest in digests else None
            folder = request.out / sheet.folder
            drawn, files = write_study(sheet, own, folder, refresh=refresh)
            whole.append(drawn)
            if request.log and sheet.study.parent is not None:
                _log(reader, sheet.study.parent, folder, files)
        write_whole(request.out / "report.html", page(whole, refresh=refresh), fsync=False)
        inside = f"{whole[0].folder}/" if len(whole) == 1 else ""
        write_whole(request.out / "report.md", markdown(whole, figures=inside), fsync=False)
    except OSError as error:
        raise InputError(f"out={request.out}: {error.strerror or error}") from None
    if request.readme:
        put_into(request.readme, brief(whole, _from(request.readme, request.out)))


def _log(reader: Reader, run_id: str, folder: Path, files: Sequence[Path]) -> None:
    """These files and no others: the folder may hold more."""
    with tempfile.TemporaryDirectory(prefix="imagenette-") as temp:
        for file in files:
            copy = Path(temp) / file.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
        reader.log(run_id, Path(temp))


def _from(document: Path, out: Path) -> str | None:
    """The way from a document to the report's folder, for links; None where it leads out of its own."""
    way = os.path.relpath(out.resolve(), document.resolve().parent)
    return None if way.startswith("..") else f"{Path(way).as_posix()}/"


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"out={out} cannot be written: {error.strerror}") from None


__all__ = ["Request", "report"]
