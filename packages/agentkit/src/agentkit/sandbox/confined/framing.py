"""Messages between the worker, the fork server and the supervisors: JSON with its length before it, and descriptors."""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Any

_MAX_DESCRIPTORS = 253  # as many as the kernel passes
_LENGTH_BYTES = 4


def packed(message: dict[str, Any]) -> tuple[bytes, bytes]:
    """The length, with which descriptors travel, and the text."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(_LENGTH_BYTES, "big"), body


def send(sock: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send a message and, with it, copies of descriptors. Blocks.

    Raises:
        OSError: nobody listens.
    """
    length, body = packed(message)
    if descriptors:
        socket.send_fds(sock, [length], descriptors)
        sock.sendall(body)
    else:
        sock.sendall(length + body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and what came with it; ``None`` when the other end is gone. Blocks.

    Raises:
        OSError: this process has no room for the descriptors.
    """
    try:
        first, descriptors, flags, _from = socket.recv_fds(sock, _LENGTH_BYTES, _MAX_DESCRIPTORS)
    except ConnectionResetError:
        return None
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    head = bytes(first)
    while head and len(head) < _LENGTH_BYTES:
        more = sock.recv(_LENGTH_BYTES - len(head))
        if not more:
            break
        head += more
    body = _exactly(sock, int.from_bytes(head, "big")) if len(head) == _LENGTH_BYTES else None
    if body is None:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return json.loads(body), descriptors


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size:
        try:
            piece = sock.recv(min(size, 1 << 20))
        except ConnectionResetError:
            return None
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def unpacked(body: bytes) -> dict[str, Any]:
    """A message, from its text."""
    message: dict[str, Any] = json.loads(body)
    return message
