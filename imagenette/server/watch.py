"""Parts kept alive: who dies is said in one line and started again after a growing pause; who dies again and
again ends the whole. Signals are noted here, and all parts are stopped on the way out."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Self

from imagenette.errors import RunError
from imagenette.server.parts import Part

PAUSE = 1.0  # seconds before a dead part is started again; doubled at each further death
MOST_DEATHS = 5  # in a row
STEADY = 60.0  # seconds of life after which earlier deaths are forgotten
SLOW = 30.0  # seconds without an answer after which it is said that we wait
TICK = 0.1


class Stopped(Exception):
    """Somebody asked us to stop."""


@dataclass
class Care:
    """What is known of a part in our care."""

    part: Part
    up: bool = False
    ever_up: bool = False
    deaths: int = 0
    not_before: float = 0.0
    next_look: float = 0.0
    complained: bool = False
    workers: set[int] = field(default_factory=set)


class Watch:
    """Its parts live inside a with block, which swallows Stopped; they stop in the reverse order."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._cares: list[Care] = []
        self._asked = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        def note(number: int, frame: FrameType | None) -> None:
            self._asked += 1

        self._before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._asked:
            self._say("stopping")
        for care in reversed(self._cares):
            care.part.stop(hurry=lambda: self._asked > 1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        return isinstance(error, Stopped)

    def add(self, part: Part) -> None:
        """Start it."""
        part.start()
        self._cares.append(Care(part))

    def until_up(self) -> None:
        """Until every part answers. RunError if one dies before its first answer; Stopped."""
        while not all(care.up for care in self._cares):
            self._tick()

    def forever(self) -> None:
        """Until Stopped, or RunError when a part cannot be kept alive."""
        while True:
            self._tick()

    def check(self) -> None:
        """Stopped, if somebody asked."""
        if self._asked:
            raise Stopped

    def _tick(self) -> None:
        self.check()
        now = time.monotonic()
        for care in self._cares:
            if care.part.has_died():
                self._mourn(care, now)
            elif care.part.process is None:
                if now >= care.not_before:
                    care.part.start()
            elif now >= care.next_look:
                care.next_look = now + (1.0 if care.up else 0.3)
                self._look(care, now)
        time.sleep(TICK)

    def _mourn(self, care: Care, now: float) -> None:
        part, lived = care.part, now - care.part.started
        cause = part.bury()
        care.deaths = 1 if care.up and lived > STEADY else care.deaths + 1
        care.up, care.complained, care.workers = False, False, set()
        if not care.ever_up or care.deaths >= MOST_DEATHS:
            times = f"{care.deaths} times in a row" if care.ever_up else "before it ever answered"
            raise RunError(f"{part.name} died {times} ({cause}); the end of {part.log}: {part.last_words()}")
        pause = PAUSE * 2 ** (care.deaths - 1)
        care.not_before = now + pause
        self._say(f"{part.name} died ({cause}): started again in {pause:.0f} s")

    def _look(self, care: Care, now: float) -> None:
        part = care.part
        if not care.up:
            care.up = part.answers()
            if care.up and care.ever_up:
                self._say(f"{part.name} answers again")
            care.ever_up = care.ever_up or care.up
            if not care.up and not care.complained and now - part.started > SLOW:
                care.complained = True
                self._say(f"{part.name} does not answer yet; it writes to {part.log}")
        elif part.worker_word:
            workers = part.workers()
            if not part.has_died():
                for lost in sorted(care.workers - workers):
                    self._say(f"process {lost} of {part.name} died: it starts another")
                care.workers = workers
