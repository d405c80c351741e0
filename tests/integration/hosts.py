"""Hosts of our own on one machine: each has its network, its name and its /etc/hosts; a cable joins them.

They are namespaces that a sleeping process holds, so they are gone with it, whatever happens to the tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = ("alpha", "beta")
NAMESPACES = ("--net", "--uts", "--mount")


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    holder: subprocess.Popen[str]

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self.holder.pid}", *NAMESPACES, *command]

    def run(self, *command: str) -> None:
        subprocess.run(self.command(*command), check=True, capture_output=True)


@dataclass(frozen=True)
class Node:
    """torchrun on one host, and all it said."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def words(self) -> list[str]:
        """Our own lines, without torchrun's."""
        return [line for line in self.said.splitlines() if line.startswith("imagenette: ")]


def why_not() -> str:
    """Why this machine cannot play several hosts; empty if it can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "ip", "link", "add", "cable", "type", "veth"], capture_output=True
    )
    return "" if tried.returncode == 0 else "may not make network namespaces (needs root)"


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """alpha (10.77.0.1) and beta (.2). As Debian sets hosts up, each one's name is 127.0.1.1 to itself."""
    addresses = {name: f"10.77.0.{i}" for i, name in enumerate(NAMES, start=1)}
    with contextlib.ExitStack() as stack:
        hosts = []
        for own, address in addresses.items():
            names = {"localhost": "127.0.0.1", **addresses, own: "127.0.1.1"}
            table = folder / f"hosts.{own}"
            table.write_text("".join(f"{place} {name}\n" for name, place in names.items()))
            setup = f"hostname {own} && mount --bind {table} /etc/hosts && ip link set lo up && echo ready"
            holder = subprocess.Popen(
                ["unshare", *NAMESPACES, "sh", "-c", f"{setup} && exec sleep infinity"],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            hosts.append(Host(own, address, holder))
        alpha, beta = hosts
        far = str(beta.holder.pid)
        alpha.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far)
        for host in hosts:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "cable")
            host.run("ip", "link", "set", "cable", "up")
        yield alpha, beta


@contextlib.contextmanager
def torchrun(
    hosts: tuple[Host, Host], arguments: list[str], env: dict[str, str], folder: Path
) -> Iterator[list[Node]]:
    """The command of docs/hosts.md on each host; whatever still runs at the end is killed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "alpha:29400",
        "-m",
        "imagenette",
        "train",
        *arguments,
    ]
    nodes: list[Node] = []
    try:
        for host in hosts:
            log = folder / f"{host.name}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    host.command(*command),
                    env=env,
                    stdout=file,
                    stderr=file,
                    cwd=folder,
                    start_new_session=True,
                )
            nodes.append(Node(process, log))
        yield nodes
    finally:
        for node in nodes:
            if node.process.poll() is None:
                os.killpg(node.process.pid, signal.SIGKILL)
                node.process.wait()
