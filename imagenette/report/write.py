"""A report as files: one HTML page, Markdown, CSV, LaTeX, figures. Asks no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette import __version__
from imagenette.errors import InputError
from imagenette.files import write_whole
from imagenette.report.conclusions import method
from imagenette.report.csv_tables import arms_csv, comparisons_csv, runs_csv
from imagenette.report.figures import NAMES, draw_all
from imagenette.report.study_report import StudyReport
from imagenette.report.table import plain
from imagenette.report.tables import TABLES

if TYPE_CHECKING:
    from imagenette.report.reader import Champion

PAGE = Path(__file__).parent / "page"
BEGIN, END = "<!-- imagenette report: begin -->", "<!-- imagenette report: end -->"
"""What stands between them in a document is the report's."""


def write_study(
    report: StudyReport, champion: Champion | None, folder: Path, *, refresh: int | None = None
) -> tuple[StudyReport, list[Path]]:
    """Everything of one study into a folder: report.html, report.md, tables, figures. The report with its
    figures, and the files. What an earlier report left and this one has not is removed."""
    study = report.study
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    prefix = f"{report.folder}-"
    figures = [drawn.save(folder / "figures", prefix=prefix) for drawn in draw_all(study, champion)]
    report = replace(report, figures=figures)
    texts = {
        "report.html": page([report], refresh=refresh),
        "report.md": markdown([report], lambda report: ""),
        "arms.csv": arms_csv(study, report.findings),
        "runs.csv": runs_csv(study),
    }
    if report.comparisons:
        texts["comparisons.csv"] = comparisons_csv(report.comparisons)
    texts |= {f"{table.name.removeprefix(f'{study.name}-')}.tex": table.latex() for table in report.tables}
    for name, text in texts.items():
        write_whole(folder / name, text, fsync=False)
    drawn_files = {f"figures/{figure.name}.{kind}" for figure in figures for kind in ("svg", "pdf", "png")}
    written = {*texts, *drawn_files}
    for name in _ALL - written:
        (folder / name).unlink(missing_ok=True)
    return report, [folder / name for name in sorted(written)]


_ALL = {
    *(f"figures/{name}.{kind}" for name in NAMES for kind in ("svg", "pdf", "png")),
    *(f"{name}.tex" for name in TABLES),
    *("arms.csv", "comparisons.csv"),
}


def page(reports: Sequence[StudyReport], *, refresh: int | None = None) -> str:
    """One self-contained HTML page. refresh: seconds after which a browser loads it again."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        reports=reports,
        style=(PAGE / "report.css").read_text("utf-8"),
        script=(PAGE / "report.js").read_text("utf-8"),
        method=method(),
        made=_made(),
        refresh=refresh,
    )


def markdown(
    reports: Sequence[StudyReport], place: Callable[[StudyReport], str | None], *, brief: bool = False
) -> str:
    """place: what comes before `figures/NAME.png` in a study's links; None leaves its figures out. brief: the
    results alone, for a README: what is real, every arm, one figure, what is odd."""
    parts = []
    for report in reports:
        first = slice(1) if brief else slice(None)
        parts += [f"{'###' if brief else '#'} {plain(report.study.title)}\n", f"{_facts(report)}\n"]
        parts += [_bullets(report.conclusions)]
        for table in report.tables[first]:
            parts += [] if brief else [f"**{plain(table.caption)}**\n"]
            parts += [table.markdown(), f"{plain(table.note)}\n"]
        folder, public = place(report), report.published
        for figure in report.figures[first] if folder is not None else ():
            parts.append(f"![{plain(figure.caption).replace(']', ')')}]({folder}figures/{figure.name}.png)\n")
            parts += [] if brief else [f"*{plain(figure.caption)}*\n"]
        for title, sentences in (
            ("What is odd", report.study.problems),
            ("What is missing", report.missing),
            ("The published numbers: single runs, compared unpaired", public.conclusions if public else ()),
        ):
            if sentences:
                parts += [f"{title}:\n" if brief else f"## {title}\n", _bullets(sentences)]
        parts += [table.markdown() for table in public.tables[1:]] if public and not brief else []
    return "\n".join(parts if brief else [*parts, f"{method()}\n", f"*{_made()}*\n"])


def put_into(document: Path, text: str) -> None:
    """Replace what stands between BEGIN and END. InputError if they are not there, once, in that order."""
    try:
        old = document.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{document}: {getattr(error, 'strerror', None) or error}") from None
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise InputError(f"{document}: must have one line {BEGIN} and after it one line {END}")
    before, after = old.index(BEGIN) + len(BEGIN), old.index(END)
    write_whole(document, f"{old[:before]}\n{text.strip()}\n{old[after:]}")


def _bullets(sentences: Sequence[str]) -> str:
    return "".join(f"- {plain(sentence)}\n" for sentence in sentences)


def _facts(report: StudyReport) -> str:
    facts = "".join(f"; {what}: {value}" for what, value in report.provenance.items())
    return plain(f"{report.study.name}: {report.so_far}{facts}.")


def _made() -> str:
    return f"Made by imagenette {__version__} on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC."
