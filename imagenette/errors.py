"""The two ways a command ends badly on purpose; anything else is a bug and keeps its traceback."""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNSYNCED = 74  # finished, but the tracking server still lacks something (EX_IOERR)
EXIT_PREEMPTED = 75  # stopped on request, with a checkpoint to resume from (EX_TEMPFAIL)


class InputError(ValueError):
    """Wrong usage or input. The message is one line: the value, and what is allowed. Exit code 2."""


class RunError(RuntimeError):
    """A run that cannot go on (dead server, full disk, non-finite loss). One line. Exit code 1."""
