"""Keeps parts alive: one that dies is reported in a line and started again after a growing pause; one that
dies again and again ends the server. A part stands on those that answered when it was added: what fails
because one of them fell is tried again. Signals are noted here, and all parts are stopped on the way out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
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
    beneath: list[Watched]
    """Those that it stands on."""
    up: bool = False
    ever_up: bool = False
    deaths: int = 0
    not_before: float = 0.0
    next_look: float = 0.0
    complained: bool = False
    workers: set[int] = field(default_factory=set)
    fell: float = -math.inf
    """When its death, or one of its workers', was last seen."""


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
        self._watched.append(Watched(part, beneath=self._that_answered()))

    def do(self, work: Callable[[], None]) -> None:
        """What needs the parts that have answered, and bears being done twice: again where it fails and one
        of them fell meanwhile. RunError that has no such reason, or a fifth one; Stopped."""
        parts, failures = self._that_answered(), 0
        while True:
            while not all(watched.up and watched.part.answers() for watched in parts):
                self._tick()
            began = time.monotonic()
            try:
                work()
            except RunError as error:
                failures += 1
                late = time.monotonic() + PAUSE  # a death may show a moment after what it causes
                while not self._fell(parts, since=began):
                    if time.monotonic() > late:
                        raise
                    self._tick()
                if failures == MOST_DEATHS:
                    raise
                self._report(f"{error}: tried again")
            else:
                return

    def until_up(self) -> None:
        """Until every part answers. RunError if one dies by itself before its first answer; Stopped."""
        while not all(watched.up for watched in self._watched):
            self._tick()

    def forever(self) -> None:
        """Until Stopped, or RunError when a part cannot be kept alive."""
        while True:
            self._tick()

    def _tick(self) -> None:
        """Raises Stopped once a signal came."""
        if self._received:
            raise Stopped
        now = time.monotonic()
        for watched in self._watched:
            if watched.part.has_died():
                self._restart(watched, now)
            elif watched.part.process is None:
                if now >= watched.not_before and all(below.up for below in watched.beneath):
                    watched.part.start()
            elif now >= watched.next_look:
                watched.next_look = now + (1.0 if watched.up else 0.3)
                self._look(watched, now)
        time.sleep(TICK)

    def _restart(self, watched: Watched, now: float) -> None:
        part, lived = watched.part, now - watched.part.started
        cause = part.clean_up()
        watched.fell = now
        watched.deaths = 1 if watched.up and lived > STEADY else watched.deaths + 1
        watched.up, watched.complained, watched.workers = False, False, set()
        hopeless = not watched.ever_up and not self._fell(watched.beneath, since=part.started)
        if hopeless or watched.deaths >= MOST_DEATHS:
            times = "before it ever answered" if hopeless else f"{watched.deaths} times in a row"
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
                    watched.fell = now
                watched.workers = workers

    def _that_answered(self) -> list[Watched]:
        return [watched for watched in self._watched if watched.ever_up]

    def _fell(self, among: Sequence[Watched], *, since: float) -> bool:
        """Whether one of them died since then, or does not answer now."""
        for watched in among:
            if watched.up:
                self._look(watched, time.monotonic())
        return any(one.fell > since or not one.up or not one.part.answers() for one in among)
