"""A sheet in its forms: one HTML page, Markdown, CSV, LaTeX, figures. Writes files; asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagenette import __version__
from imagenette.errors import InputError
from imagenette.files import write_whole
from imagenette.report.conclusions import method
from imagenette.report.csv_tables import arms_frame, comparisons_frame, runs_frame
from imagenette.report.figures import NAMES, draw_all
from imagenette.report.study_report import Figure, Sheet
from imagenette.report.tables import plain

if TYPE_CHECKING:
    from imagenette.report.reader import Champion

PAGE = Path(__file__).parent / "page"
BEGIN, END = "<!-- imagenette report: begin -->", "<!-- imagenette report: end -->"
"""What stands between them in a document is the report's."""


def write_study(
    sheet: Sheet, champion: Champion | None, folder: Path, *, refresh: int | None = None
) -> tuple[Sheet, list[Path]]:
    """Everything of one study into a folder: report.html, report.md, tables, figures. The sheet with its
    figures, and the files. What an earlier report left and this one has not is removed."""
    study = sheet.study
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    prefix = f"{sheet.folder}-"
    figures = [
        Figure(
            name=drawn.name,
            caption=drawn.caption,
            svg=drawn.save(folder / "figures", prefix=prefix),
            tips=drawn.tips,
            panels=drawn.panels(),
        )
        for drawn in draw_all(study, champion)
    ]
    sheet = replace(sheet, figures=figures)
    texts = {
        "report.html": page([sheet], refresh=refresh),
        "report.md": markdown([sheet], figures=""),
        "arms.csv": arms_frame(study).to_csv(index=False),
        "runs.csv": runs_frame(study).to_csv(index=False),
    }
    if sheet.comparisons:
        texts["comparisons.csv"] = comparisons_frame(sheet.comparisons).to_csv(index=False)
    texts |= {f"{table.name.removeprefix(f'{study.name}-')}.tex": table.latex() for table in sheet.tables}
    for name, text in texts.items():
        write_whole(folder / name, text, fsync=False)
    drawn_files = {f"figures/{figure.name}.{kind}" for figure in figures for kind in ("svg", "pdf", "png")}
    written = {*texts, *drawn_files}
    for name in _ALL - written:
        (folder / name).unlink(missing_ok=True)
    return sheet, [folder / name for name in sorted(written)]


_ALL = {
    *(f"figures/{name}.{kind}" for name in NAMES for kind in ("svg", "pdf", "png")),
    *(f"{name}.{kind}" for name in ("arms", "comparisons") for kind in ("csv", "tex")),
}


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


def markdown(sheets: Sequence[Sheet], *, figures: str) -> str:
    """figures: what comes before `figures/NAME.png` in a link, or before `STUDY/figures/...` of several
    studies."""
    parts = []
    for sheet in sheets:
        parts += [f"# {plain(sheet.study.title)}\n", f"{_facts(sheet)}\n", _bullets(sheet.verdict)]
        for table in sheet.tables:
            parts += [f"**{plain(table.caption)}**\n", table.markdown(), f"{plain(table.note)}\n"]
        inside = figures if len(sheets) == 1 else f"{figures}{sheet.folder}/"
        parts += [_picture(figure, inside) + f"\n*{plain(figure.caption)}*\n" for figure in sheet.figures]
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
        parts += [f"### {plain(sheet.study.title)}\n", f"{_facts(sheet)}\n", _bullets(sheet.verdict)]
        parts += [f"{table.markdown()}\n{plain(table.note)}\n" for table in sheet.tables[:1]]
        if figures is not None:
            parts += [_picture(figure, f"{figures}{sheet.folder}/") for figure in sheet.figures[:1]]
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
    return "".join(f"- {plain(sentence)}\n" for sentence in sentences)


def _facts(sheet: Sheet) -> str:
    facts = "".join(f"; {what}: {value}" for what, value in sheet.provenance.items())
    return plain(f"{sheet.study.name}: {sheet.so_far}{facts}.")


def _picture(figure: Figure, folder: str) -> str:
    return f"![{plain(figure.caption).replace(']', ')')}]({folder}figures/{figure.name}.png)\n"


def _made() -> str:
    return f"Made by imagenette {__version__} on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC."
