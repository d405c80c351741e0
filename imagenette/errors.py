"""The two ways a command ends badly on purpose; anything else is a bug and keeps its traceback."""

import re

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNSYNCED = 74  # finished, but the tracking server still lacks something (EX_IOERR)
EXIT_PREEMPTED = 75  # stopped on request, with a checkpoint to resume from (EX_TEMPFAIL)


def hide_secrets(text: str) -> str:
    """The text with the passwords of addresses as ***: for messages, logs and records."""
    text = re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]+", r"\1***", text)


def as_line(error: object) -> str:
    """An error's text on one line; its kind where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(name: object) -> str:
    """A name from outside, fit for a line on a terminal: a line break, an escape sequence, half a character
    or what turns the direction of writing is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


class InputError(ValueError):
    """Wrong usage or input. The message is one line: the value, and what is allowed. Exit code 2."""


class RunError(RuntimeError):
    """A run that cannot go on (dead server, full disk, non-finite loss). One line. Exit code 1."""
