"""What the benchmarks share: options, the facts about a measurement (date, machine, versions, seeds), turns,
medians, a Markdown table, JSON. It measures nothing itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from imagenette.files import write_whole
from imagenette.processes import cores
from imagenette.tracking.provenance import git_commit, git_dirty
from imagenette.training.system import machine

T = TypeVar("T")
Row = Mapping[str, object]


def parser(
    doc: str | None, *, rounds: int | None = None, steps: int | None = None, network: bool = False
) -> argparse.ArgumentParser:
    """A command line with --json, and what the script asks for, by its default: --rounds; --steps, with the
    data and seed of a measured training; network: one depth, size and batch size."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    if rounds:
        add("--rounds", type=int, default=rounds, help=f"turns of each [{rounds}]")
    if steps:
        add("--data", default="imagenette", help="as in `imagenette train` [imagenette]")
        add("--steps", type=int, default=steps, help=f"optimizer steps per turn [{steps}]")
        add("--seed", type=int, default=1, help="of weights, order, crops and flips [1]")
    if network:
        add("--depth", type=int, default=18)
        add("--size", type=int, default=128, help="px")
        add("--batch-size", type=int, default=32)
    return made


def add_optimizer(made: argparse.ArgumentParser) -> None:
    made.add_argument("--optimizer", default="sgd", help="Muon's arithmetic is part of each step [sgd]")


def about(*packages: str, seeds: Iterable[int], device: str = "cpu") -> dict[str, Any]:
    """The facts about a measurement. Call it first: it reads the machine's load before anything has run.
    packages: those whose versions matter besides torch and torchvision."""
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    commit = git_commit()
    return {
        "date": date.today().isoformat(),
        "machine": machine(torch.device("cuda", 0) if cuda else torch.device("cpu"), 1),
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in packages},
        "seeds": sorted(set(seeds)),
        "commit": commit and commit[:12] + (" and changes" if git_dirty() else ""),
    }


def header(facts: Mapping[str, Any]) -> str:
    """`2026-11-25, AMD EPYC, 2 cores (load 0.1 before), torch 2.15.0, ..., seed 1, commit 51a48d3`."""
    here = facts["machine"]
    versions = {"Python": here["python"], **{name: here[name] for name in ("torch", "torchvision")}}
    seeds = ", ".join(map(str, facts["seeds"]))
    parts = [
        facts["date"],
        here["device"],
        f"{facts['cores']} cores (load {facts['load_before']} before)",
        *(f"{name} {number}" for name, number in (versions | facts["versions"]).items()),
        f"seed {seeds}" if seeds else "no seed",
        f"commit {facts['commit']}",
    ]
    return ", ".join(parts)


def table(rows: Sequence[Row]) -> str:
    """Markdown; columns are the first row's keys. Floats get four digits."""
    columns = list(rows[0])

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(f'{c:.4g}' if isinstance(c, float) else str(c) for c in cells)} |"

    number = [isinstance(rows[0][name], int | float) for name in columns]
    rule = line("---:" if right else "---" for right in number)
    return "\n".join([line(columns), rule, *(line(row[name] for name in columns) for row in rows)])


def publish(
    facts: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    file: Path | None,
    notes: Sequence[str] = (),
    **figures: object,
) -> None:
    """Print header, table and notes; write them, and the figures behind them, as JSON."""
    print("\n\n".join([header(facts), table(rows), *notes]))
    save(file, facts, table=rows, notes=list(notes), **figures)


def save(file: Path | None, facts: Mapping[str, Any], **figures: object) -> None:
    """JSON of what is known so far, if a file was named."""
    if file:
        write_whole(file, json.dumps({**facts, **figures}, indent=2) + "\n")


def in_turns(runners: Mapping[str, Callable[[], T]], *, rounds: int) -> dict[str, list[T]]:
    """What each runner returned, one value per round. The runners take turns, so that noise of the machine
    hits all of them; each round starts one runner further, so that none is always the first."""
    names = list(runners)
    values: dict[str, list[T]] = {name: [] for name in runners}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            value = runners[name]()
            values[name].append(value)
            say(f"round {turn + 1} of {rounds}: {name}{f': {value:.4g}' if isinstance(value, float) else ''}")
    return values


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of ours / theirs: within a round the machine's noise is alike."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}"


def shown(knobs: Mapping[str, str]) -> dict[str, str]:
    """Knobs fit to be published: of the data set its name, not its place on this machine."""
    return dict(knobs) | {"data": Path(knobs["data"]).name}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def free_port() -> int:
    """Below those that Linux gives to clients: whoever calls before anybody listens may be given, as its own,
    the very port that it calls, and is then connected with itself."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.randint(20_000, 30_000)
            probe.bind(("127.0.0.1", port))
            return port
