"""The verb compare, and what it shows of a pair in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagenette.cli.options import NewFile, Verb, flag
from imagenette.errors import InputError, hide_secrets, shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from imagenette.report.pair import Pair
    from imagenette.report.pair_images import Images
    from imagenette.report.study import Estimate
    from imagenette.stats import Interval

_MOST = 10  # images that a terminal names


@click.command(cls=Verb, short_help="Two runs or arms: what differs, by how much, on which images.")
@click.argument("a")
@click.argument("b")
@click.option(
    "--contact-sheet",
    type=NewFile(),
    metavar="FILE.png",
    help="Draw the images on which they differ most, with what each says of them.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="Folder or archive with the data set, for --contact-sheet. [default: where the runs had it]",
)
@flag("--json", help="Everything as one JSON object.")
def compare(a: str, b: str, contact_sheet: Path | None, data: str | None, json: bool) -> None:
    """Compare A with B: knobs that differ, accuracies, whether the difference is real, images on which they
    differ.

    Each is a run's id (its first six characters are enough) or name, a registered version (champion,
    NAME@ALIAS, NAME/VERSION), or an arm of a study (STUDY:ARM, with all its finished runs). It asks the
    tracking server alone.

    Exit codes: 0 compared, with or without a contact sheet; 2 one of them cannot be compared; 1 the server
    does not answer.
    """
    if contact_sheet and contact_sheet.suffix.lower() != ".png":
        raise InputError(f"contact_sheet={contact_sheet}: must end in .png")
    from imagenette.report.pair import compare_runs
    from imagenette.tracking import environment

    pair = compare_runs(a, b, tracking_uri=environment.tracking_uri())
    if json:
        click.echo(dumps(pair.to_json(), indent=2, allow_nan=False))
    else:
        _show(pair)
    if contact_sheet:
        _draw(pair, contact_sheet, data)


def _draw(pair: Pair, file: Path, data: str | None) -> None:
    from imagenette.data.peek import NoPicturesError

    try:
        pair.sheet(file, data=data)
    except NoPicturesError as error:
        click.echo(f"imagenette: no contact sheet: {shown(error)}", err=True)
    else:
        click.echo(f"imagenette: {shown(file)}", err=True)


def _show(pair: Pair) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding

    parts = list(_parts(pair))
    apart = [Padding(part, (0, 0, 1, 0)) for part in parts[:-1]]
    Console(highlight=False).print(Group(*apart, *parts[-1:]))


def _parts(pair: Pair) -> Iterator[RenderableType]:
    from rich.text import Text

    images = next((run.test_images for run in pair.a.arm.runs if run.test_images), None)
    on = f"data {pair.a.data_digest[:8] or 'unknown'}" + (f", {images:,} test images" if images else "")
    sides = _grid()
    for letter, side in (("A", pair.a), ("B", pair.b)):
        sides.add_row(letter, _text(side.arm.name), _text(side.about))
    sides.add_row("", "", Text(on, style="dim"))
    yield sides
    yield _text(pair.sentence, style="bold")
    if pair.knobs:
        knobs = _table("knob", "A", "B")
        for name, values in pair.knobs.items():
            knobs.add_row(name, *(_text("not recorded" if v is None else v) for v in values))
        yield knobs
    else:
        yield Text(pair.alike)
    yield _accuracies(pair)
    if pair.images:
        yield _counts(pair.images)
        if pair.images.differing:
            yield _differing(pair.images)
    yield Text("\n").join(_text(note, style="dim") for note in pair.notes)


def _accuracies(pair: Pair) -> Table:
    from imagenette.report.conclusions import p_value
    from imagenette.results import TEST_ACCURACIES

    table, found = _table("test, %", "A", "B", "A minus B"), pair.comparison
    for metric, words in TEST_ACCURACIES.items():
        cells = [_estimate(side.arm.estimate(metric)) for side in (pair.a, pair.b)]
        if metric == pair.metric:
            tested = "not tested" if found.p is None else p_value(found.p)
            cells.append(f"{100 * found.value:+.2f} points\n{_span(found.interval, sign='+')}{tested}")
        table.add_row(words.removeprefix("test, "), *(cell.strip() for cell in cells))
    return table


def _estimate(found: Estimate) -> str:
    if found.mean is None:
        return "missing"
    spread = f" ± {100 * found.sd:.2f}" if found.sd is not None else ""
    return f"{100 * found.mean:.2f}{spread}, n={found.n}\n{_span(found.interval)}"


def _span(found: Interval | None, *, sign: str = "") -> str:
    return f"[{100 * found.low:{sign}.2f}, {100 * found.high:{sign}.2f}]\n" if found else ""


def _counts(images: Images) -> Table:
    table = _table("both right", "only A", "only B", "neither", "test images")
    numbers = (images.both, images.only_a, images.only_b, images.neither, images.total)
    table.add_row(*(f"{number:,}" for number in numbers))
    return table


def _differing(images: Images) -> Table:
    from rich.text import Text

    shown = images.differing[:_MOST]
    table = _table(f"{len(shown)} of {len(images.differing):,} that differ", "A says", "B says")
    for image in shown:
        name = Text.assemble(
            _text(images.labels.get(image.label, image.label)),
            "\n",
            (_file(image.name), "dim"),
            overflow="fold",
        )
        answers = (
            _text(said.words(images.labels), style="" if said.predicted == image.label else "red")
            for said in (image.a, image.b)
        )
        table.add_row(name, *answers)
    return table


def _grid() -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    return grid


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(text: str, style: str = "") -> Text:
    """Names from outside: no markup, and nothing that a terminal would obey."""
    from rich.text import Text

    return Text(hide_secrets(shown(text)), style=style)


def _file(name: str) -> str:
    """`x.JPEG` of `val/n01440764/x.JPEG`: its class stands beside it."""
    return shown(name.split("/", 2)[-1])
