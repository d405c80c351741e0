"""Names are data: what a table or a sentence holds is shown as it is, whatever reads it."""

from __future__ import annotations

import html
import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from imagenette.report.table import Cell, Table, plain

HOSTILE = st.text(alphabet="ab1 _*~`$&|<>[]()!#+-=.\\:\\n;", max_size=30)


def shown(markdown: str) -> str:
    """What a reader sees of Markdown."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


@given(HOSTILE)
@example("$5_$10")
@example("[a](http://x) ![b](c)")
@example("&lt; &amp;")
@example("# a")
@example("1. a")
@example("__init__ and _x_ ~~no~~")
def test_a_sentence_is_shown_as_it_is(text: str) -> None:
    assert shown(f"- x {plain(text)}\n") == " ".join(f"x {text}".split())
    assert shown(f"- {plain(text)}\n") == " ".join(text.split())


@given(HOSTILE, HOSTILE)
def test_a_table_keeps_its_cells(one: str, two: str) -> None:
    one, two = f"{one}x", f"{two}y"
    rows = ((Cell(one, 0), Cell(two, 0)),)
    table = Table(name="t", caption="c", columns=("first", "second"), rows=rows)
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(table.markdown())
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)
    assert [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in cells] == [
        " ".join(one.split()),
        " ".join(two.split()),
    ]
