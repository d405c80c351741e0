"""Where a run comes from: commit, host, process, command. Plain tags; never raises."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache

from imagenette.files import PACKAGE
from imagenette.processes import place, started

UNSEEN = "mlflow.imagenette."
"""Prefix of tags that are for programs: MLflow's pages show no tag that begins with `mlflow.`."""
HEARTBEAT = f"{UNSEEN}heartbeat"


def unprefixed(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags by the names without UNSEEN, under which earlier versions wrote them."""
    seen = {key: text for key, text in tags.items() if not key.startswith(UNSEEN)}
    return seen | {key.removeprefix(UNSEEN): text for key, text in tags.items() if key.startswith(UNSEEN)}


def source_tags() -> dict[str, str]:
    """Who, what and which commit, under MLflow's own tag names and under ours."""
    tags = {"mlflow.user": user(), "mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
    if commit := git_commit():
        tags |= {
            "mlflow.source.git.commit": commit,
            "commit": commit,
            "commit_dirty": str(git_dirty()).lower(),
        }
        if branch := _git("rev-parse", "--abbrev-ref", "HEAD"):
            tags["mlflow.source.git.branch"] = branch
    return tags


def process_tags() -> dict[str, str]:
    """What `doctor` needs to see whether the process of a run still lives."""
    return {
        "host": socket.gethostname(),
        f"{UNSEEN}place": place(),
        f"{UNSEEN}pid": str(os.getpid()),
        f"{UNSEEN}pid_started": f"{started(os.getpid()):.2f}",
        HEARTBEAT: now(),
    }


def now() -> str:
    """2026-11-30T12:00:00Z"""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def git_commit() -> str | None:
    """Commit of this package's code: of its clone, or what an image was built from (IMAGENETTE_COMMIT); None
    if it was installed."""
    if built := os.environ.get("IMAGENETTE_COMMIT"):
        return built
    # A virtual environment inside some other repository is not that repository's code.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git("rev-parse", "HEAD")


@cache
def git_dirty() -> bool:
    """Whether tracked files differ from that commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def reproduce_command(knobs: Mapping[str, str]) -> str:
    """The command that trains a run again. knobs: canonical text of those it was trained with."""
    command = shlex.join(["imagenette", "train", *(f"--{name}={value}" for name, value in knobs.items())])
    commit = git_commit()
    return f"git checkout {commit} && {command}" if commit else command


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container with a bare uid
        return str(os.getuid())


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
