"""What a message may look like, whatever somebody else's library put into it."""

from hypothesis import example, given
from hypothesis import strategies as st

from imagenette.errors import RunError, as_line


@given(st.text(), st.integers(1, 300))
@example("\x1b[31mboom\r\n\udcff", 300)
@example("at http://me:hunter2@host/", 30)
def test_an_error_is_one_line_fit_for_a_terminal_within_its_limit(text: str, limit: int) -> None:
    line = as_line(text, limit=limit)
    assert line.isprintable()
    assert 0 < len(line) <= limit
    assert "hunter2" not in line
    assert line in (whole := as_line(text)) or line == whole[: limit - 1] + "…"


def test_an_error_without_a_text_is_called_by_its_kind() -> None:
    assert as_line(RunError(" \n")) == "RunError"
