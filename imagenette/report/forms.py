"""A sheet in its forms: one HTML page, Markdown, CSV, LaTeX, figures. Writes files; asks nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette import __version__
from imagenette.errors import InputError
from imagenette.files import write_whole
from imagenette.report.figures import draw_all
from imagenette.report.sheet import Figure, Sheet
from imagenette.report.tables import arms_frame, comparisons_frame, runs_frame
from imagenette.report.words import method

if TYPE_CHECKING:
    from imagenette.report.reader import Champion

PAGE = Path(__file__).parent / "page"
BEGIN, END = "<!-- imagenette report: begin -->", "<!-- imagenette report: end -->"
"""What stands between them in a document is the report's."""


def draw(sheet: Sheet, champion: Champion | None, folder: Path) -> Sheet:
    """The sheet with its figures, which are written into `folder`."""
    figures = []
    folder.mkdir(parents=True, exist_ok=True)
    for drawn in draw_all(sheet.study, champion):
        svg = drawn.save(folder)
        figures.append(
            Figure(name=drawn.name, caption=drawn.caption, svg=svg, tips=drawn.tips, panels=drawn.panels())
        )
    made = {figure.name for figure in figures}
    for old in folder.glob("*"):  # of an earlier report
        if old.suffix in (".svg", ".pdf", ".png") and old.stem not in made:
            old.unlink()
    return replace(sheet, figures=figures)


def write_study(sheet: Sheet, folder: Path, *, refresh: int | None = None) -> None:
    """report.html, report.md, and the tables as CSV and LaTeX."""
    write_whole(folder / "report.html", page([sheet], refresh=refresh), fsync=False)
    write_whole(folder / "report.md", markdown([sheet], figures=""), fsync=False)
    study = sheet.study
    frames = {"arms": arms_frame(study), "runs": runs_frame(study)}
    if sheet.comparisons:
        frames["comparisons"] = comparisons_frame(sheet.comparisons)
    for name, frame in frames.items():
        write_whole(folder / f"{name}.csv", frame.to_csv(index=False), fsync=False)
    for table in sheet.tables:
        name = table.name.removeprefix(f"{study.name}-")
        write_whole(folder / f"{name}.tex", table.latex(), fsync=False)


def page(sheets: Sequence[Sheet], *, refresh: int | None = None) -> str:
    """One self-contained HTML page. refresh: seconds after which a browser loads it again."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["panels"] = lambda figure: [asdict(panel) for panel in figure.panels]
    return environment.get_template("report.html.j2").render(
        sheets=sheets,
        style=(PAGE / "report.css").read_text("utf-8"),
        script=(PAGE / "report.js").read_text("utf-8"),
        method=method(),
        made=_made(),
        refresh=refresh,
    )


def markdown(sheets: Sequence[Sheet], *, figures: str | None) -> str:
    """figures: what comes before `figures/NAME.png` in a link, or before `STUDY/figures/...` of several
    studies; None = without figures."""
    parts = []
    for sheet in sheets:
        parts += [f"# {sheet.study.title}\n", f"`{sheet.study.name}`: {sheet.so_far}{_shared(sheet)}.\n"]
        parts += [_bullets(sheet.verdict)]
        for table in sheet.tables:
            parts += [f"**{table.caption}**\n", table.markdown(), f"{table.note}\n"]
        if figures is not None:
            inside = figures if len(sheets) == 1 else f"{figures}{sheet.folder}/"
            parts += [
                f"![{f.caption}]({inside}figures/{f.name}.png)\n\n*{f.caption}*\n" for f in sheet.figures
            ]
        if sheet.study.problems:
            parts += ["## What is odd\n", _bullets(sheet.study.problems)]
        if sheet.missing:
            parts += ["## What is missing\n", _bullets(sheet.missing)]
        if sheet.published:
            parts += ["## The published numbers, tested in the same way\n", _bullets(sheet.published.verdict)]
            parts += [table.markdown() for table in sheet.published.tables[1:]]
    return "\n".join([*parts, f"{method()}\n", f"*{_made()}*\n"])


def brief(sheets: Sequence[Sheet], figures: str | None) -> str:
    """The results alone, for a README: what is real, every arm, what is odd."""
    parts = []
    for sheet in sheets:
        parts += [f"### {sheet.study.title}\n", f"`{sheet.study.name}`: {sheet.so_far}{_shared(sheet)}.\n"]
        parts += [_bullets(sheet.verdict)]
        parts += [f"{table.markdown()}\n{table.note}\n" for table in sheet.tables[:1]]
        if figures is not None and sheet.figures:
            first = sheet.figures[0]
            parts.append(f"![{first.caption}]({figures}{sheet.folder}/figures/{first.name}.png)\n")
        if sheet.study.problems:
            parts += ["What is odd:\n", _bullets(sheet.study.problems)]
        if sheet.missing:
            parts += ["What is missing:\n", _bullets(sheet.missing)]
        if sheet.published:
            parts += ["The published numbers, tested in the same way:\n", _bullets(sheet.published.verdict)]
    return "\n".join(parts)


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
    return "".join(f"- {_plain(sentence)}\n" for sentence in sentences)


def _plain(text: str) -> str:
    """No line breaks, and nothing that Markdown would take for markup."""
    return re.sub(r"([*<>`|\[\]])", r"\\\1", " ".join(text.split()))


def _shared(sheet: Sheet) -> str:
    return "".join(f"; {what}: {value}" for what, value in sheet.provenance.items())


def _made() -> str:
    return f"Made by imagenette {__version__} on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC."
