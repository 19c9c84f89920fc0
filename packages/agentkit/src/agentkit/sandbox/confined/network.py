"""Connections of a child: none of its own, and to granted hosts only, which the worker's broker makes for it."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

_MOST_ANSWER_BYTES = 4096


class BrokeredSocket(socket.socket):
    """A connection that the broker made. Options of TCP are the broker's business."""

    peer: tuple[str, int] = ("", 0)

    def setsockopt(self, *arguments: Any) -> None:
        """Nothing: what is set on this end is not TCP."""

    def getpeername(self) -> tuple[str, int]:
        """The host and the port that were asked for."""
        return self.peer


class Broker:
    """Asks the worker for connections.

    Args:
        descriptor: of the connection to it.
    """

    def __init__(self, descriptor: int) -> None:
        self._channel = socket.socket(fileno=descriptor)
        self._channel.setblocking(True)
        self._lock = threading.Lock()

    def connect(
        self, address: tuple[str, int], timeout: Any = None, *_more: Any, **_others: Any
    ) -> socket.socket:
        """As :func:`socket.create_connection`, to a granted host.

        Raises:
            PermissionError: it is not granted, or has an address that must not be reached.
            OSError: it cannot be reached.
        """
        host, port = address[0], int(address[1])
        with self._lock:
            self._channel.sendall(json.dumps({"connect": [host, port]}).encode() + b"\n")
            answer, descriptors, _flags, _from = socket.recv_fds(self._channel, _MOST_ANSWER_BYTES, 1)
        said: dict[str, Any] = json.loads(answer or b"{}")
        if not descriptors:
            kind = PermissionError if said.get("refused") else ConnectionError
            raise kind(said.get("error", "the broker is gone"))
        connection = BrokeredSocket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptors[0])
        connection.peer = (host, port)
        if isinstance(timeout, int | float):
            connection.settimeout(timeout)
        return connection


def offer(descriptor: int | None) -> None:
    """Let ``socket.create_connection`` go through the broker, or say what is missing where nothing is granted."""
    if descriptor is not None:
        socket.create_connection = Broker(os.dup(descriptor)).connect  # type: ignore[assignment]
        return

    def refused(address: tuple[str, int], *_more: Any, **_others: Any) -> socket.socket:
        message = f"no network in the sandbox: {address[0]} is not among the granted hosts"
        raise PermissionError(message)

    socket.create_connection = refused  # type: ignore[assignment]
