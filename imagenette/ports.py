"""TCP ports of this machine: taken, or refused in one line before anything is made; and given up without
loss."""

from __future__ import annotations

import ctypes
import socket
import struct

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


def refuse_new(listening: socket.socket) -> None:
    """Let no new connection in; those that are in the queue stay there to be accepted.

    Linux drops what asks to connect (a socket filter that passes nothing), so a client tries again, and is
    refused once the socket is closed. Closing at once would reset the connections in the queue."""
    pass_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET of 0 bytes
    program = struct.pack("HP", 1, ctypes.addressof(pass_nothing))
    listening.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
