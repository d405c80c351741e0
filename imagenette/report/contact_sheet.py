"""The images on which two sides differ most, as one picture: what each is, and what either says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagenette.data.peek import NoPicturesError, peek
from imagenette.drawing import BLUE, INK, VERMILLION, drawing, new_figure, picture_grid, shortened, write_png
from imagenette.errors import InputError, hide_secrets
from imagenette.report.pair_images import Differing, Images, Said

COLUMNS, ROWS = 5, 6
_LABEL = 16  # letters of a class's name, beside a share


def draw_sheet(
    images: Images | None, path: Path, *, names: tuple[str, str], digest: str, sources: Sequence[str]
) -> Path:
    """Write a PNG. names: of A and B; digest: of the data that sources may hold. NoPicturesError where there
    is nothing to draw, or none of the sources has the data; InputError where the file cannot be written."""
    if images is None or not images.differing:
        raise NoPicturesError("there is no image on which they are known to differ")
    shown = images.differing[: COLUMNS * ROWS]
    pictures = peek([image.name for image in shown], digest, sources)
    single = shown[0].a.runs == shown[0].b.runs == 1
    first = "the surest first" if single else "by most of their runs first"
    title = (
        f"{len(shown)} of {len(images.differing):,} test images on which they differ, {first}\n"
        f"A: {hide_secrets(names[0])}\nB: {hide_secrets(names[1])}"
    )
    drawn = [image for image in shown if image.name in pictures]
    captions = [_caption(image, images) for image in drawn]
    columns = min(COLUMNS, max(3, len(drawn)))
    with drawing():
        figure = new_figure()
        picture_grid(figure, [pictures[i.name] for i in drawn], captions, title=title, columns=columns)
    try:
        write_png(figure, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _caption(image: Differing, images: Images) -> list[tuple[str, str]]:
    true = shortened(images.labels.get(image.label, image.label))

    def line(side: str, said: Said) -> tuple[str, str]:
        right = said.predicted == image.label
        words = said.words(images.labels, limit=_LABEL)
        return f"{side} {'✓' if right else '✗'} {words}", BLUE if right else VERMILLION

    return [(true, INK), line("A", image.a), line("B", image.b)]
