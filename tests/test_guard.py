"""The guard in front of our HTTP services."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from imagenette.errors import InputError
from imagenette.guard import LOOPBACK, Guard, one_password, read_password

PASSWORD = "correct horse battery"


def client(
    *, hosts: tuple[str, ...] = (), password: str | None = PASSWORD, asked: list[str] | None = None
) -> TestClient:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    def verify(user: str, said: str) -> bool:
        if asked is not None:
            asked.append(said)
        return one_password(password or "")(user, said)

    app = Starlette(
        routes=[Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/health", "/healthy")]
    )
    return TestClient(
        Guard(app, hosts=hosts, verify=verify if password else None), base_url="http://localhost:8000"
    )


def test_who_knows_the_password_comes_in_and_nobody_else() -> None:
    service = client()
    assert service.get("/", auth=("imagenette", PASSWORD)).text == "in"
    assert service.get("/").status_code == 401
    assert service.get("/").headers["www-authenticate"].startswith("Basic")
    for auth in (("imagenette", "wrong"), ("admin", PASSWORD), ("", ""), ("imagenette", PASSWORD + " ")):
        assert service.get("/", auth=auth).status_code == 401


def test_health_alone_is_open() -> None:
    service = client()
    assert service.get("/health").status_code == 200
    for path in ("/healthy", "//health", "/Health", "/health/", "/x/../health%2f"):
        assert service.get(path).status_code == 401


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60))
def test_no_header_but_the_right_one_is_taken(header: str) -> None:
    assert client().get("/", headers={"Authorization": header.encode("latin-1")}).status_code == 401


def test_a_right_password_is_checked_once_a_minute_and_a_wrong_one_each_time() -> None:
    asked: list[str] = []
    service = client(asked=asked)
    for _ in range(3):
        service.get("/", auth=("imagenette", PASSWORD))
    assert asked == [PASSWORD]
    for _ in range(3):
        service.get("/", auth=("imagenette", "wrong"))
    assert asked == [PASSWORD, *["wrong"] * 3]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:80", "[::1]", "LOCALHOST"]
)
def test_its_own_names_are_taken(host: str) -> None:
    assert client(hosts=LOOPBACK, password=None).get("/", headers={"Host": host}).text == "in"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "", "[::2]", "localhost@x"]
)
def test_other_names_are_refused_before_the_password_is_asked(host: str) -> None:
    for path in ("/", "/health"):
        assert client(hosts=LOOPBACK).get(path, headers={"Host": host}).status_code == 400


def test_patterns_know_wildcards_and_ports() -> None:
    service = client(hosts=("*.team.example", "other:8000"), password=None)
    allowed = {
        "a.team.example": 200,
        "a.team.example:9": 200,
        "team.example": 400,
        "other:8000": 200,
        "other:9": 400,
    }
    assert {host: service.get("/", headers={"Host": host}).status_code for host in allowed} == allowed


def test_an_ipv6_address_is_a_name_with_brackets_and_without() -> None:
    for name in ("fe80::1", "[fe80::1]", "FE80::1"):
        for host, status in (("[fe80::1]:8000", 200), ("[fe80::1]", 200), ("[fe80::2]:8000", 400)):
            service = client(hosts=(name,), password=None)
            assert service.get("/", headers={"Host": host}).status_code == status


def test_pages_of_other_sites_are_refused_and_its_own_are_not() -> None:
    service = client()
    for origin, status in (
        ("http://localhost:8000", 200),
        ("http://localhost:9", 403),
        ("null", 403),
        ("http://x", 403),
    ):
        for method in ("GET", "POST"):
            answer = service.request(method, "/", headers={"Origin": origin}, auth=("imagenette", PASSWORD))
            assert answer.status_code == status


def test_a_password_file_is_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\nmore\n")
    assert read_password(file) == PASSWORD


@pytest.mark.parametrize("content", [None, b"", b"short\n", b"\n" + PASSWORD.encode(), b"\xff\xfe\xff"])
def test_a_password_file_that_holds_none_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=str(file)) as error:
        read_password(file)
    assert "\n" not in str(error.value)
