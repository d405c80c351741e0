"""Which model answers, and how a new champion takes its place while requests go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from imagenette.errors import InputError, RunError
from imagenette.registry import Lineage, lineage, load_known
from imagenette.registry.model import Model

Say = Callable[[str], None]
RETRY_SECONDS = 600
"""After which a refused version is tried again."""


@dataclass(frozen=True, eq=False)
class Current:
    """A model in use, and where it comes from (None: a folder)."""

    model: Model
    lineage: Lineage | None

    @property
    def name(self) -> str:
        return f"{self.lineage.name}/{self.lineage.version}" if self.lineage else "a folder"


class Served:
    """The model that answers. Whoever asks keeps the one that was current when they asked."""

    def __init__(self, address: str, tracking_uri: str | None, say: Say) -> None:
        self._address, self._tracking_uri, self._say = address, tracking_uri, say
        self.current: Current | None = None
        self.swaps = 0
        self.refused = 0
        self._refused: Lineage | None = None
        self._refused_at = 0.0
        self._complained = False

    def load(self) -> None:
        """Fetch, load and prove the model. Raises InputError or RunError; the one that answers stays."""
        self.current = Current(*load_known(self._address, tracking_uri=self._tracking_uri))

    def look(self) -> None:
        """Take a new version of the alias if there is one and it proves itself."""
        try:
            found = lineage(self._address, tracking_uri=self._tracking_uri)
        except (InputError, RunError) as error:  # no such alias (any more), or the server is away
            self.complain(str(error))
            return
        self._complained = False
        if not self._is_known(found):
            self._take(found)

    def _take(self, found: Lineage) -> None:
        before = self.current
        try:  # that very version: the alias may be elsewhere by now
            self.current = Current(
                *load_known(f"{found.name}/{found.version}", tracking_uri=self._tracking_uri)
            )
        except RunError as error:
            self.complain(str(error))
        except Exception as error:  # whatever is wrong with it, the one that answers stays
            self._refused, self._refused_at = found, time.monotonic()
            self.refused += 1
            kept = f"{before.name} stays" if before else "still no model"
            what = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._say(f"version {found.version} is refused, {kept}: {what}")
        else:
            self.swaps += before is not None
            self._say(f"{self.current.name} answers now")

    def _is_known(self, found: Lineage) -> bool:
        """Whether it answers already, or was refused a moment ago: what was wrong may pass."""
        current = self.current.lineage if self.current else None
        refused = self._refused if time.monotonic() - self._refused_at < RETRY_SECONDS else None
        return any(
            known is not None and (known.version, known.created) == (found.version, found.created)
            for known in (current, refused)
        )

    def complain(self, problem: str) -> None:
        """Say it, once until a look succeeds: an outage has many wordings."""
        if not self._complained:
            self._complained = True
            self._say(f"{problem}; {f'{self.current.name} stays' if self.current else 'still no model'}")


class Follower(threading.Thread):
    """Looks at the alias every so many seconds; with 0, every second until there is a model at all. A daemon:
    it never holds the process up."""

    def __init__(self, served: Served, seconds: float) -> None:
        super().__init__(name="imagenette-follower", daemon=True)
        self._served, self._seconds = served, seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._seconds or 1.0):
            try:
                self._served.look()
            except Exception as error:  # this thread must outlive whatever a look can meet
                self._served.complain(f"looking for a new version: {type(error).__name__}: {error}")
            if not self._seconds and self._served.current:
                return

    def stop(self) -> None:
        self._stopping.set()
