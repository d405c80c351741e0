"""Keeps parts alive: one that dies is reported in a line and started again after a growing pause; one that
dies again and again ends the server. Signals are noted here, and all parts are stopped on the way out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from imagenette.errors import RunError
from imagenette.processes import stop_signals
from imagenette.server.parts import Part

PAUSE = 1.0  # seconds before a dead part is started again; doubled at each further death
MOST_DEATHS = 5  # in a row
STEADY = 60.0  # seconds of life after which earlier deaths are forgotten
SLOW = 30.0  # seconds without an answer after which it is said that we wait
TICK = 0.1


class Stopped(Exception):
    """A signal to stop came."""


@dataclass
class Watched:
    """A part, and what is known of it."""

    part: Part
    up: bool = False
    ever_up: bool = False
    deaths: int = 0
    not_before: float = 0.0
    next_look: float = 0.0
    complained: bool = False
    workers: set[int] = field(default_factory=set)


class Supervisor:
    """Its parts live inside a with block, which swallows Stopped; they stop in the reverse order."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._watched: list[Watched] = []
        self._signals = stop_signals()

    def __enter__(self) -> Self:
        self._received = self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._received:
            self._report("stopping")
        for watched in reversed(self._watched):
            watched.part.stop(hurry=lambda: len(self._received) > 1)
        self._signals.__exit__(None, None, None)
        return isinstance(error, Stopped)

    def add(self, part: Part) -> None:
        """Start it."""
        part.start()
        self._watched.append(Watched(part))

    def until_up(self) -> None:
        """Until every part answers. RunError if one dies before its first answer; Stopped."""
        while not all(watched.up for watched in self._watched):
            self._tick()

    def forever(self) -> None:
        """Until Stopped, or RunError when a part cannot be kept alive."""
        while True:
            self._tick()

    def check(self) -> None:
        """Raises Stopped once a signal came."""
        if self._received:
            raise Stopped

    def _tick(self) -> None:
        self.check()
        now = time.monotonic()
        for watched in self._watched:
            if watched.part.has_died():
                self._restart(watched, now)
            elif watched.part.process is None:
                if now >= watched.not_before:
                    watched.part.start()
            elif now >= watched.next_look:
                watched.next_look = now + (1.0 if watched.up else 0.3)
                self._look(watched, now)
        time.sleep(TICK)

    def _restart(self, watched: Watched, now: float) -> None:
        part, lived = watched.part, now - watched.part.started
        cause = part.clean_up()
        watched.deaths = 1 if watched.up and lived > STEADY else watched.deaths + 1
        watched.up, watched.complained, watched.workers = False, False, set()
        if not watched.ever_up or watched.deaths >= MOST_DEATHS:
            times = f"{watched.deaths} times in a row" if watched.ever_up else "before it ever answered"
            raise RunError(f"{part.name} died {times} ({cause}); the end of {part.log}: {part.last_words()}")
        pause = PAUSE * 2 ** (watched.deaths - 1)
        watched.not_before = now + pause
        self._report(f"{part.name} died ({cause}): started again in {pause:.0f} s")

    def _look(self, watched: Watched, now: float) -> None:
        part = watched.part
        if not watched.up:
            watched.up = part.answers()
            if watched.up and watched.ever_up:
                self._report(f"{part.name} answers again")
            watched.ever_up = watched.ever_up or watched.up
            if not watched.up and not watched.complained and now - part.started > SLOW:
                watched.complained = True
                self._report(f"{part.name} does not answer yet; it writes to {part.log}")
        elif part.worker_word:
            workers = part.workers()
            if not part.has_died():
                for lost in sorted(watched.workers - workers):
                    self._report(f"process {lost} of {part.name} died: it starts another")
                watched.workers = workers
