"""Folders for servers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that root's PostgreSQL, another user, may pass through: unlike pytest's own, which each pytest
    that starts on the machine closes again."""
    folder = Path(tempfile.mkdtemp(prefix="imagenette-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
