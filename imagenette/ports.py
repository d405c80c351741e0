"""TCP ports of this machine: taken, or refused in one line before anything is made; and given up without
loss."""

from __future__ import annotations

import ctypes
import socket
import struct

from imagenette.errors import InputError


def netloc(host: str, port: int) -> str:
    """host:port as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A socket that listens there (port 0: any free one). InputError where that cannot be, naming the option
    that chooses another."""
    try:
        host = host.strip("[]")  # as it stands in a URL
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # The protocol is named: on a socket of protocol 0 asyncio does not switch Nagle's algorithm off, and
        # each answer on a kept connection would wait 40 ms for the client's delayed acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"cannot listen on {netloc(host, port)}: {reason}; choose another with {option}"
        ) from None
    return listening


def refuse_new(listening: socket.socket) -> None:
    """Let no new connection in; those that are in the queue stay there to be accepted.

    A filter on the socket drops each packet that opens a connection. So the client tries again, and is
    refused once the socket is closed. Closing at once would reset the connections in the queue."""
    drop_opening = (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x45, 0, 1, 0x02),  # SYN set? else skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in drop_opening))
    program = struct.pack("HP", len(drop_opening), ctypes.addressof(code))
    listening.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
