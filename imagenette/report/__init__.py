"""Tracked runs become tables, figures and conclusions, beside what was published.

Owns all that a report says and how it looks. Never imports torch, training or study: a report needs the
tracking server, and neither the images nor the database that a study ran on. The way of a study:

    reader        tracking server -> TrackedRun, one for each training
    assemble      runs, and what was planned -> Study: arms, a run for each seed, all that is odd
    compare       each arm against the baseline -> Comparison; conclusions puts these into sentences
    study_report  Study, comparisons, sentences and tables -> StudyReport
    write         StudyReport, and its figures -> HTML, Markdown, CSV, LaTeX, SVG, PDF, PNG

Two runs or arms go another way: sides finds them, pair compares them with the same tests and sentences,
pair_images and contact_sheet show where they differ. A study under way shows itself with the same tables and
figures: see `imagenette.study.as_report`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette.errors import InputError, RunError
from imagenette.files import write_whole
from imagenette.report.assemble import assemble
from imagenette.report.study import published, unreadable

if TYPE_CHECKING:
    from imagenette.report.bundle import Bundle
    from imagenette.report.reader import Reader
    from imagenette.report.runs import Champion
    from imagenette.report.study_report import StudyReport
    from imagenette.tracking.study_plan import StudyPlan

    Source = Reader | Bundle

WATCH_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on, and where the report goes."""

    studies: tuple[str, ...] = ()
    """Names; none = every study that has a parent run."""
    out: Path = Path("report")
    tracking_uri: str | None = None
    bundles: tuple[Path, ...] = ()
    """Bundles to read in place of a server."""
    bundle: Path | None = None
    """A folder to write the bundle into that the same report can be made from."""
    experiment: str | None = None
    """Its name; None = the one that `mlflow run` was told, else all of them."""
    model: str | None = None
    """The registered model whose champion's confusion matrix is shown; None = any, on the study's data."""
    watch: bool = False
    """Make the report anew whenever something changed, until every study has ended."""
    log: bool = True
    """Show each study's report under its parent run too."""
    readme: Path | None = None
    """A document with a place for the results."""
    known: Callable[[str], StudyPlan | None] = lambda name: None
    """Study's name -> what it plans, for a parent run that does not say."""


def report(request: Request, emit: Callable[[str], None]) -> None:
    """Write everything into `request.out`; each line for the user goes to `emit`.

    InputError on an unknown study or an unwritable folder; RunError if the server does not answer.
    """
    with ExitStack() as stack:
        stack.enter_context(_folder(request.out))
        reader = _source(request)
        describe = stack.enter_context(reader.launched())
        names = list(dict.fromkeys(request.studies)) or reader.studies()
        if not names:
            raise InputError(
                f"there is no study {reader.where} of {reader.uri} yet: `imagenette study NAME` makes one; "
                "or name the tag `study` of runs that have no parent run"
            )
        reports: list[StudyReport] = []
        seen: object = None
        try:
            while True:
                try:
                    now = [reader.state(name) for name in names] if request.watch else []
                    if now != seen:
                        reports = _read(reader, names, request)
                        seen = now
                        going = request.watch and any(each.study.status == "running" for each in reports)
                        _write(reader, reports, request, refresh=WATCH_SECONDS if going else None)
                        lines = [line for each in reports for line in _lines(each)]
                        for line in [*lines, str(request.out / "report.html")]:
                            emit(line)
                        describe("\n".join(lines))
                        if not going:
                            return
                except RunError as error:
                    if not (request.watch and reports):
                        raise
                    emit(f"{error}; tried again in {WATCH_SECONDS} s")
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            if reports:  # the page is not made anew any more
                _write(reader, reports, request, refresh=None)
            raise


def _source(request: Request) -> Source:
    if request.bundles:
        from imagenette.report.bundle import Bundle

        return Bundle(*request.bundles)
    from imagenette.report.reader import open_reader  # MLflow comes with it

    return open_reader(request.tracking_uri, request.experiment)


def _read(reader: Source, names: Sequence[str], request: Request) -> list[StudyReport]:
    """A study that nobody named and that cannot be read stands in the report with the reason."""
    from imagenette.report.study_report import StudyReport

    reports = []
    for name in names:
        try:
            reports.append(_read_study(reader, name, request.known))
        except InputError as error:
            if request.studies:
                raise
            reports.append(StudyReport.of(unreadable(name, str(error))))
    return reports


def _lines(report: StudyReport) -> list[str]:
    """What the terminal shows of a study."""
    study = report.study
    odd = f"; odd: {len(study.problems)}, see the report" if study.problems else ""
    return [
        f"{study.name}{report.place}: {report.so_far}{odd}",
        *(f"  {sentence}" for sentence in report.conclusions),
    ]


def _read_study(reader: Source, name: str, known: Callable[[str], StudyPlan | None]) -> StudyReport:
    from imagenette.report.study_report import StudyReport
    from imagenette.tracking.experiments import elsewhere

    tracked = reader.study(name)
    plan, problems = tracked.plan, []
    if plan is None:
        plan = known(name)
        instead = "that of the same name among the shipped studies is taken" if plan else "the runs' tags are"
        problems.append(f"What the study planned is not on the server ({tracked.problem}): {instead}.")
    if tracked.others:
        names = ", ".join(tracked.others)
        problems.append(
            f"Older runs of a study of this name lie in {names} and are left out: "
            "MLFLOW_EXPERIMENT_NAME names the experiment to read."
        )
    if len(tracked.parents) > 1:
        ids = ", ".join(tracked.parents)
        problems.append(f"The study has {len(tracked.parents)} parent runs, the newest first: {ids}.")
    parent = next(iter(tracked.parents), None)
    status = tracked.status
    study = assemble(name, plan, tracked.runs, problems=problems, status=status, parent=parent)
    address = (parent and reader.page(tracked.experiment_id, parent)) or ""
    place = elsewhere(tracked.experiment)
    return StudyReport.of(study, published(plan) if plan else None, address=address, place=place)


def _write(reader: Source, reports: Sequence[StudyReport], request: Request, *, refresh: int | None) -> None:
    """Everything into the folder, and each study's part under its parent run."""
    from imagenette.report.write import markdown, page, put_into, write_study

    champions = reader.champions(
        request.model, {run.data_digest for each in reports for run in each.study.runs}
    )
    drawn = []
    try:
        for report in reports:
            digests = {run.data_digest for run in report.study.runs}
            own = next((each for each in champions if each.data_digest in digests), None)
            folder = request.out / report.folder
            with_figures, files = write_study(report, own, folder, refresh=refresh)
            drawn.append(with_figures)
            if request.log and report.study.parent is not None:
                reader.log(report.study.parent, folder, files)
        write_whole(request.out / "report.html", page(drawn, refresh=refresh), fsync=False)
        text = markdown(drawn, lambda report: f"{report.folder}/")
        write_whole(request.out / "report.md", text, fsync=False)
    except OSError as error:
        raise InputError(f"out={request.out}: {error.strerror or error}") from None
    if request.bundle is not None and refresh is None:
        _keep(reader, reports, champions, request.bundle)
    if request.readme:
        links = _links(request.readme, request.out)
        put_into(request.readme, markdown(drawn, links, brief=True))


def _keep(
    reader: Source, reports: Sequence[StudyReport], champions: Sequence[Champion], folder: Path
) -> None:
    """All that the reports were made from, but for studies that could not be read."""
    from imagenette.report import bundle

    studies = {}
    for report in reports:
        with suppress(InputError):
            studies[report.study.name] = reader.study(report.study.name)
    try:
        bundle.write(folder, studies, champions, reader.answers)
    except OSError as error:
        raise InputError(f"bundle={folder} cannot be written: {error.strerror or error}") from None


def _links(document: Path, out: Path) -> Callable[[StudyReport], str | None]:
    """How a document's links to a study's files begin; None where they would lead out of its folder."""
    path = Path(os.path.relpath(out.resolve(), document.resolve().parent)).as_posix()
    return lambda report: None if path.startswith("..") else f"{path}/{report.folder}/"


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make it before the server is asked. A report that fails leaves no empty folder behind."""
    missing = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out} cannot be written: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"out={out} cannot be written: no permission")
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


__all__ = ["Request", "report"]
