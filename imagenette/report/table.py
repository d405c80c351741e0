"""A table for reading, whatever it shows: text cells, in Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass

MISSING = "missing"


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | str | None = None
    """What a column is sorted by; None = the text."""
    detail: str = ""
    """The rest of the text: on a page below it, elsewhere after it."""
    hint: str = ""
    """More, for whoever points at it."""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text with what each is sorted by."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        head, *rows = ([plain(str(cell)) for cell in row] for row in (self.columns, *self.rows))
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        """For `\\usepackage{booktabs}`."""
        import pandas as pd

        rows = [[_latex(str(cell)) for cell in row] for row in self.rows]
        return str(
            pd.DataFrame(rows, columns=list(map(_latex, self.columns))).to_latex(
                index=False,
                escape=False,
                caption=_latex(self.caption),
                label=f"tab:{re.sub(r'[^A-Za-z0-9-]', '-', self.name)}",
                column_format="l" + "r" * (len(self.columns) - 1),
                position="htbp",
            )
        )


def plain(text: str) -> str:
    """As Markdown: no line breaks, and nothing that it would take for markup, a table's edge or a link."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


_MARKUP = re.compile(
    r"([\\*<>`|$&~]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_])"  # anywhere; an underscore inside a word is one
    r"|^[#=]|^[-+](?=\s|$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)|^-(?=-))"  # at its beginning
)


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "[": "{[}",  # after \\ [ means something
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def number_cell(value: float | None, unit: float, form: str) -> Cell:
    """In this unit and form; MISSING where there is none."""
    return absent() if value is None else Cell(form.format(value * unit), value)


def absent(word: str = MISSING) -> Cell:
    """Sorted last."""
    return Cell(word, "")
