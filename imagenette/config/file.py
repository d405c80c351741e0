"""A config kept in a file: knobs in TOML, `depth = 50`, or the `config.json` of a run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from imagenette.errors import InputError, as_line, shown


def read_knobs(path: Path) -> dict[str, Any]:
    """The knobs that a file gives, unchecked. InputError where it is missing or no table of them."""
    try:
        text = path.read_text("utf-8")
        knobs = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"config={shown(path)}: cannot be read: {as_line(why)}") from None
    if not isinstance(knobs, dict):
        raise InputError(f"config={shown(path)}: must be a table of knobs, as `depth = 50`")
    for name, value in knobs.items():
        if not isinstance(value, str | int | float):
            raise InputError(f"config={shown(path)}: {shown(name)}={shown(value)}: must be one value")
    return {name.replace("-", "_"): value for name, value in knobs.items()}
