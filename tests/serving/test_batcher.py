"""Laws of micro-batching, on real threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenette.serving.batcher import Batcher, Busy


class Doubling:
    """Stands for a network: the answer to a picture is its value, twice. Counts, and can be held up."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.inside = threading.Event()

    def shares(self, pictures: np.ndarray) -> np.ndarray:
        self.inside.set()
        self.go.wait(10)
        self.passes.append(len(pictures))
        return 2.0 * pictures.reshape(len(pictures), -1)[:, :1].astype(np.float32)


def pixels(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, dtype=np.uint8)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 8))
def test_every_picture_gets_its_own_answer_whatever_the_batches(
    values: list[int], batch: int, callers: int
) -> None:
    model: Any = Doubling()
    batcher = Batcher(batch=batch, waiting=1000)
    with ThreadPoolExecutor(callers) as pool:
        said = list(pool.map(lambda v: float(batcher.submit(model, pixels(v)).result(10)[0]), values))
    batcher.close()
    assert said == [2.0 * v for v in values]
    assert sum(model.passes) == len(values)
    assert max(model.passes) <= batch


def test_what_comes_while_the_network_works_goes_in_the_next_pass_together() -> None:
    model: Any = Doubling()
    model.go.clear()
    seen: list[int] = []
    batcher = Batcher(batch=4, waiting=100, observe=seen.append)
    first = batcher.submit(model, pixels(1))
    assert model.inside.wait(5), "an idle network takes a single picture at once"
    rest = [batcher.submit(model, pixels(v)) for v in range(2, 8)]
    assert batcher.waiting == 6
    model.go.set()
    assert [float(f.result(5)[0]) for f in [first, *rest]] == [2.0 * v for v in range(1, 8)]
    assert model.passes == seen == [1, 4, 2]
    batcher.close()


def test_pictures_prepared_for_two_models_never_meet() -> None:
    one: Any = Doubling()
    other: Any = Doubling()
    one.go.clear()
    batcher = Batcher(batch=8, waiting=100)
    order = [one, one, other, other, one, other]
    futures = [batcher.submit(model, pixels(i)) for i, model in enumerate(order)]
    one.go.set()
    assert [float(f.result(5)[0]) for f in futures] == [2.0 * i for i in range(6)]
    assert (sum(one.passes), sum(other.passes)) == (3, 3)
    batcher.close()


def test_too_many_are_turned_away_and_those_who_gave_up_cost_nothing() -> None:
    model: Any = Doubling()
    model.go.clear()
    batcher = Batcher(batch=8, waiting=3)
    futures = [batcher.submit(model, pixels(0))]
    assert model.inside.wait(5)
    futures += [batcher.submit(model, pixels(i)) for i in (1, 2, 3)]
    with pytest.raises(Busy):
        batcher.submit(model, pixels(4))
    assert futures[2].cancel()
    model.go.set()
    assert float(futures[3].result(5)[0]) == 6.0
    assert model.passes == [1, 2]
    batcher.close()


def test_a_network_that_fails_tells_every_caller_and_the_next_pass_works() -> None:
    def fail(pictures: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    broken: Any = SimpleNamespace(shares=fail)
    sound: Any = Doubling()
    batcher = Batcher(batch=8, waiting=100)
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.submit(broken, pixels(1)).result(5)
    assert float(batcher.submit(sound, pixels(3)).result(5)[0]) == 6.0
    batcher.close()
    assert not batcher._thread.is_alive()
