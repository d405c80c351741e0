"""The two ways a command ends badly on purpose; anything else is a bug and keeps its traceback."""

import re

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNSYNCED = 74  # finished, but the tracking server still lacks something (EX_IOERR)
EXIT_PREEMPTED = 75  # stopped on request, with a checkpoint to resume from (EX_TEMPFAIL)


_USER = re.compile(r"(://[^:/@\s]*):\S*@")  # up to the last @: people forget to escape one in a password
_OPTION = re.compile(r"((?:password|passwd|token|secret)=)[^&\s]+", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """The text with the passwords of addresses as ***: for messages, logs and records."""
    return _OPTION.sub(r"\1***", _USER.sub(r"\1:***@", text))


def without_secrets(address: str) -> str:
    """The address as it is kept in files: whoever uses it again gives the password again."""
    return re.sub(r"(?<=[?&])[^=&]*=\*\*\*&?", "", hide_secrets(address).replace(":***@", "@")).rstrip("?&")


def as_line(error: object, *, limit: int | None = None) -> str:
    """An error's text on one line, without secrets and terminal codes; its kind where it has no text.

    limit: characters; what is longer ends with an ellipsis.
    """
    plain = "".join(c if c.isprintable() else " " for c in str(error))
    line = hide_secrets(" ".join(plain.split())) or type(error).__name__
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def shown(name: object) -> str:
    """A name from outside, fit for a line on a terminal: a line break, an escape sequence, half a character
    or what turns the direction of writing is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def to_install(extra: str) -> str:
    """What installs an extra. From a clone, or by the address of one: no index has this package."""
    return f"pip install '.[{extra}]' in a clone of the project"


class _Message(Exception):
    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


class InputError(_Message, ValueError):
    """Wrong usage or input. The message is one line: the value, and what is allowed. Exit code 2."""


class RunError(_Message, RuntimeError):
    """A run that cannot go on (dead server, full disk, non-finite loss). One line. Exit code 1."""
