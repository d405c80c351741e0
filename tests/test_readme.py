"""README's commands are read out of README: each names verbs and options that exist, and (`slow`) does
what it says in a fresh copy of the project, in order and to the letter, long ones in their smallest form."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import yaml

from imagenette.cli import verbs
from imagenette.config import KNOBS
from tests.data.small_sets import encode, picture

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = r"(?:make|imagenette|mlflow|eval|cd|\.) \S.*"


def commands() -> list[str]:
    """All of README's commands in their order: those of its blocks, and those of the table of three ways."""
    found = []
    for line in README.splitlines():
        if re.fullmatch(rf"    {COMMANDS}", line):
            found.append(re.split(r"\s+# ", line.strip())[0].strip())
        elif line.startswith("| ") and "command" not in line:
            found += re.findall(r"`((?:mlflow run|imagenette) [^`]*)`", line)
    return found


def test_every_command_block_of_readme_is_read() -> None:
    python = ("    import ", "    mlflow.")  # its snippet has a test of its own
    lines = [line for line in README.splitlines() if not line.startswith(python)]
    blocks = [line for line in lines if line.startswith("    ") and "->" not in line]
    read = [line for line in blocks if re.fullmatch(rf"    {COMMANDS}", line)]
    tree = README.partition("## Where everything is")[2]
    assert [line for line in blocks if line not in read and line not in tree] == []
    assert len(commands()) > 20


def parses(words: list[str]) -> None:
    """click takes the verb and its options; nothing is run."""
    command: click.Command = verbs.commands[words[0]]
    context = command.make_context(words[0], words[1:])
    if isinstance(command, click.Group) and len(words) > 1:
        command.commands[words[1]].make_context(words[1], words[2:], parent=context)


@pytest.mark.parametrize("command", commands())
def test_a_command_of_readme_names_what_there_is(command: str) -> None:
    command = re.sub(r'eval "\$\((.*)\)"', r"\1", command)
    words = shlex.split(command, comments=True)
    if words[0] == "imagenette" and "--help" not in words:
        parses(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif words[:2] == ["mlflow", "run"]:
        entries = yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))["entry_points"]
        entry = words[words.index("-e") + 1] if "-e" in words else "main"
        given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-P"]
        assert set(given) <= {*entries[entry]["parameters"], *KNOBS}
    elif words[0] == "cd":
        assert (ROOT / "docker/make-secrets").exists()
        assert (ROOT / "docker/compose.yaml").exists()


# -- each of them, run -------------------------------------------------------------------------------------

SMALL = ["data=digits", "size=32", "start_size=0", "epochs=1", "limit=320"]
NOT_RUN = {
    "mlflow run . -P depth=50": "conda makes an environment from the network",
    "mlflow run . --env-manager uv -P depth=50": "uv makes an environment from the network",
    "cd docker && ./make-secrets && docker compose up -d --build": "needs a Docker engine",
}
"""Command -> why it is only parsed."""
SMALLER = {
    "imagenette study weight-decay --workers 2": "imagenette study weight-decay --workers 2 --smoke",
    "imagenette status weight-decay --watch": "imagenette status weight-decay-smoke --watch",
    "imagenette report weight-decay": "imagenette report weight-decay-smoke",
    "imagenette compare weight-decay:weight_decay=1e-2 weight-decay:weight_decay=5e-4": (
        "imagenette compare weight-decay-smoke:weight_decay=1e-2 weight-decay-smoke:weight_decay=5e-4"
    ),
    "imagenette lineage": "imagenette lineage imagenette-digits@champion",
    "imagenette predict a.jpg folder/": "imagenette predict a.jpg folder/ --model imagenette-digits@champion",
}
"""Command -> the same on the digits, which have a registered model of their own."""
STAY = {
    "imagenette ui": ("--port 0", "workflowType="),
    "imagenette serve": ("--port 0 --model imagenette-digits@champion", "http://127.0.0.1"),
    "imagenette server": ("--sqlite --port 0 --dashboard-port 0", "OPTUNA_STORAGE"),
}
"""Command that stays until Ctrl-C -> what it gets here, and what it says once it answers."""


def small(command: str) -> str:
    words = shlex.split(command)
    if words[:2] == ["imagenette", "train"] and "--help" not in words:
        return " ".join([command, *(f"--{each.replace('_', '-')}" for each in SMALL)])
    if words[:2] == ["mlflow", "run"]:
        return " ".join([command, *(f"-P {each}" for each in SMALL)])
    return SMALLER.get(command, command)


@pytest.mark.slow
def test_readme_to_the_letter_and_in_order_in_a_fresh_copy(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        if not name.startswith(("benchmarks/2026", "docs/")):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    # What `make install` would make: this environment, by links, so that nothing is fetched.
    (clone / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (clone / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (clone / ".venv/installed").touch()
    (clone / "folder").mkdir()
    for place in (clone / "a.jpg", clone / "folder/b.jpg"):
        place.write_bytes(encode(picture(0, (32, 32)), "JPEG"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_", "VIRTUAL_ENV"))}
    env = kept | {"PYTHONPATH": str(clone), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    profile, servers = ["set -e"], list[subprocess.Popen[bytes]]()

    def shell(command: str) -> list[str]:
        return ["bash", "-c", "\n".join([*profile, command])]

    try:
        for command in commands():
            if command in NOT_RUN or command == "make test":
                continue
            if command.startswith((". ", "eval ")):
                profile.append(command)
                continue
            log = tmp_path / "log"
            with log.open("wb") as said:
                output = {"stdout": said, "stderr": subprocess.STDOUT, "cwd": clone, "env": env}
                if command in STAY:
                    more, word = STAY[command]
                    process = subprocess.Popen(
                        shell(f"exec {command} {more}"), start_new_session=True, **output
                    )
                    servers.append(process)
                    deadline = time.monotonic() + 300
                    while (
                        word not in log.read_text() and process.poll() is None and deadline > time.monotonic()
                    ):
                        time.sleep(0.5)
                    assert word in log.read_text(), (command, log.read_text())
                    if command != "imagenette server":  # the commands after it use that one
                        process.send_signal(signal.SIGTERM)
                        assert process.wait(60) == 0, command
                    continue
                done = subprocess.run(shell(small(command)), timeout=900, **output)
            assert done.returncode == 0, (command, log.read_text())
    finally:
        for process in servers:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
