"""TCP ports of this machine: taken, or refused in words before anything is made."""

from __future__ import annotations

import socket

from imagenette.errors import InputError


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A socket that listens there (port 0: any free one). InputError where that cannot be, naming the option
    that chooses another."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # The protocol is named: on a socket of protocol 0 asyncio does not switch Nagle's algorithm off, and
        # each answer on a kept connection would wait 40 ms for the client's delayed acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen on {host}:{port}: {reason}; choose another with {option}") from None
    return listening
