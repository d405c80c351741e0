from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_sets import Files, small_set


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the real home or the real server."""
    monkeypatch.setenv("IMAGENETTE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IMAGENETTE_MIRROR", "http://127.0.0.1:9/nobody-listens")
    return tmp_path / "home"


@pytest.fixture
def files() -> Files:
    return small_set()
