"""One stack for all tests here, up and healthy; gone with its volumes afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.compose import SERVERS, Stack, lacking, until


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := lacking():
        pytest.skip(reason)
    stack = Stack.copy(tmp_path_factory.mktemp("project"), f"imagenette-test-{os.getpid()}")
    began = time.monotonic()
    for service in ("database", "mlflow", "trainer", "serving"):
        stack.compose("build", service, timeout=1800)
    built = time.monotonic()
    try:
        stack.compose("up", "-d")
        stack.healthy(SERVERS)
        until(lambda: stack.ask("mlflow", "/version").status == 200, 60)  # its account is made
        print(f"images built in {built - began:.0f} s, healthy after {time.monotonic() - built:.0f} s more")
        yield stack
    finally:
        if "KEEP_STACK" not in os.environ:
            stack.compose("--profile", "study", "--profile", "serving", "down", "-v", "--remove-orphans")


@pytest.fixture(scope="session")
def picture() -> bytes:
    return (Path(__file__).parents[2] / "docs/page.png").read_bytes()
