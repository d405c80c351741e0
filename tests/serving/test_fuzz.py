"""Requests made up from the service's own OpenAPI, and damaged pictures: no 5xx, no growth, no wait."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import httpx
import hypothesis
import numpy as np
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from tests.data.small_sets import encode, picture
from tests.serving.conftest import Service

KINDS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")


def damaged(rng: np.random.Generator) -> bytes:
    """A picture with bytes changed, cut, doubled or put in; now and then a whole one, or noise."""
    width, height = rng.integers(1, 80, 2).tolist()
    mode = str(rng.choice(["RGB", "L", "CMYK"]))
    kind = str(rng.choice(KINDS if mode == "RGB" else ("JPEG", "TIFF")))
    data = bytearray(encode(picture(int(rng.integers(1000)), (width, height), mode), kind))
    match int(rng.integers(6)):
        case 0:
            for at in rng.integers(0, len(data), rng.integers(1, 20)):
                data[at] = int(rng.integers(256))
        case 1:
            del data[int(rng.integers(len(data))) :]
        case 2:
            at = int(rng.integers(min(40, len(data) - 1)))  # where the header is
            data[at : at + 4] = rng.bytes(4)
        case 3:
            data[len(data) // 2 : len(data) // 2] = data[: int(rng.integers(len(data)))]
        case 4:
            data[10:] = rng.bytes(int(rng.integers(3000)))
    return bytes(data)


def ask_with_damaged_pictures(service: Service, count: int, statuses: Counter[int], *, seed: int) -> float:
    """The longest answer, seconds."""
    rng = np.random.default_rng(seed)
    longest = 0.0
    with httpx.Client(timeout=30) as client:
        for _ in range(count):
            files = [("files", (f"{i}.jpg", damaged(rng))) for i in range(rng.integers(1, 4))]
            began = time.perf_counter()
            statuses[client.post(f"{service.url}/predict", files=files).status_code] += 1
            longest = max(longest, time.perf_counter() - began)
    return longest


def ask_by_schema(service: Service, count: int, statuses: Counter[int], *, seed: int) -> None:
    """About so many requests that /openapi.json describes, and as many that it forbids."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = {result.ok().path: result.ok() for result in schema.get_all_operations()}
    for path, operation in operations.items():
        for mode in GenerationMode:
            share = count // 2 - 20 if path == "/predict" else 8
            if mode is GenerationMode.NEGATIVE and path != "/predict":
                continue  # they take nothing that could be wrong

            @hypothesis.seed(seed)
            @settings(
                max_examples=share,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case) -> None:
                statuses[case.call().status_code] += 1

            ask()


def fuzz(service: Service, requests: int, *, seed: int) -> tuple[Counter[int], float, float]:
    """(answers by status, megabytes that the service grew by, the longest answer to damaged pictures)."""
    process = psutil.Process(service.process.pid)
    statuses: Counter[int] = Counter()
    ask_with_damaged_pictures(service, 60, statuses, seed=seed)  # threads, buffers and caches are there now
    before = process.memory_info().rss
    longest = 0.0
    while (made := statuses.total()) < requests:
        part = max(50, min(500, (requests - made) // 2))
        longest = max(longest, ask_with_damaged_pictures(service, part, statuses, seed=seed + made))
        ask_by_schema(service, part, statuses, seed=seed + made)
    return statuses, (process.memory_info().rss - before) / 1e6, longest


def check(service: Service, requests: int, *, seed: int) -> None:
    statuses, growth, longest = fuzz(service, requests, seed=seed)
    print(f"{statuses.total()} requests: {dict(statuses)}, +{growth:.1f} MB, longest {longest:.3f} s")
    assert statuses.total() >= requests
    assert not [status for status in statuses if status >= 500], statuses
    assert statuses[200] > requests / 20, "some were good"
    assert statuses[422] > requests / 10, "and some bad"
    assert growth < 100
    assert longest < 1
    assert "Traceback" not in service.said


def test_some_made_up_requests(start, small_model: Path) -> None:
    check(start(str(small_model)), 60, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_5000_made_up_requests(start, small_model: Path) -> None:
    check(start(str(small_model)), 5000, seed=2)
