"""A stack of docker/compose.yaml on a real engine, in a copy of the project with secrets of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
BASES = ("python:3.11.14-slim-bookworm", "postgres:17.6")
SERVERS = ("database", "mlflow", "dashboard")
SERVICES = (*SERVERS, "accounts", "worker", "serving")
"""Whatever stays, or leaves a container that ended."""


def compose_command() -> list[str] | None:
    """Compose 2.x, else 1.29."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and _answers([*command, "version"]):
            return command
    return None


def lacking() -> str | None:
    """Why no stack can run here; None if one can."""
    if not shutil.which("docker") or not _answers(["docker", "info"]):
        return "no Docker engine answers"
    if compose_command() is None:
        return "neither docker compose nor docker-compose is installed"
    for image in BASES:
        if not _answers(["docker", "image", "inspect", image]) and not _answers(["docker", "pull", image]):
            return f"the base image {image} is neither here nor to be had"
    return None


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=300).returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stack:
    """One project of compose: its folder, its published ports, what is asked of it."""

    folder: Path
    name: str
    env: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def copy(cls, folder: Path, name: str) -> Stack:
        """The project's files as git knows them, and new secrets."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT,
            capture_output=True,
            check=True,
        )
        for file in filter(None, listed.stdout.decode().split("\0")):
            if (PROJECT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / file, folder / file)
        subprocess.run([folder / "docker/make-secrets"], check=True, capture_output=True)
        ports = {service: free_port() for service in ("mlflow", "dashboard", "serving")}
        said = {f"{service.upper()}_PORT": str(port) for service, port in ports.items()}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
        said |= {
            "COMPOSE_PROJECT_NAME": name,
            "IMAGES": "imagenette-test",  # kept afterwards: layers that need not be built again
            "BUILD_NETWORK": "host",
            "COMMIT": commit.stdout.strip(),
            "MLFLOW_CORS_ALLOWED_ORIGINS": f"http://localhost:{ports['mlflow']}",
            "MLFLOW_PAGES": f"http://localhost:{ports['mlflow']}",
            "STUDY": "weight-decay",
            "STUDY_OPTIONS": "--smoke --grace 15",
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPTUNA_"))}
        return cls(
            folder, name, {**clean, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", **said}, ports
        )

    def compose(
        self, *arguments: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        command = compose_command()
        assert command
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.folder / "docker",
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def run(self, *arguments: str, check: bool = True, service: str = "trainer") -> str:
        """What a new container of a service says."""
        done = self.compose("run", "--rm", "-T", service, *arguments, check=check)
        return done.stdout + done.stderr

    def sql(self, database: str, query: str) -> list[str]:
        done = self.compose(
            "exec",
            "-T",
            "database",
            "psql",
            "-h",
            "/run/postgresql",
            "-U",
            "postgres",
            "-d",
            database,
            "-tAc",
            query,
        )
        return [line for line in done.stdout.splitlines() if line]

    def containers(self, service: str) -> list[str]:
        """Ids, of ended ones too."""
        return docker(
            "ps",
            "-aq",
            "--no-trunc",
            "--filter",
            f"label=com.docker.compose.project={self.name}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        ).split()

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = inspect(self.containers(service)[0])
        return found

    def secret(self, name: str) -> str:
        return (self.folder / "docker/secrets" / name).read_text().strip()

    def secrets(self) -> dict[str, str]:
        return {path.name: path.read_text().strip() for path in (self.folder / "docker/secrets").iterdir()}

    def ask(
        self,
        service: str,
        path: str,
        *,
        method: str = "GET",
        user: str | None = "imagenette",
        password: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | str | None = None,
        timeout: float = 30,
    ) -> Answer:
        """One request to a published port, its path as it is. user None = no password."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[service], timeout=timeout)
        said = dict(headers or {})
        if user is not None:
            pair = f"{user}:{password or self.secret('password')}"
            said["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        try:
            connection.request(method, path, body=body, headers=said)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()

    def call(
        self, path: str, body: Any = None, *, method: str | None = None, user: str = "imagenette"
    ) -> Any:
        """MLflow's REST API, as one of the two accounts."""
        password = self.secret("mlflow_admin_password") if user == "admin" else None
        answer = self.ask(
            "mlflow",
            f"/api/2.0/mlflow/{path}",
            method=method or ("GET" if body is None else "POST"),
            user=user,
            password=password,
            headers={"Content-Type": "application/json"},
            body=None if body is None else json.dumps(body),
        )
        assert answer.status == 200, (path, answer.status, answer.body[:500])
        return answer.json()

    def healthy(self, services: tuple[str, ...], seconds: float = 180) -> None:
        """Wait until an engine says so of each."""

        def all_healthy() -> bool:
            return all(
                self.containers(s) and self.inspect(s)["State"].get("Health", {}).get("Status") == "healthy"
                for s in services
            )

        until(all_healthy, seconds, lambda: self.compose("ps").stdout)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def inspect(container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", container))
    return found[0]


def until(condition: Callable[[], bool], seconds: float, told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(1)
