"""Clients: the operations of the platform over HTTP and over gRPC, with the same errors."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec

from ops_core.client.http import HttpClient
from ops_core.errors import ConfigError
from ops_core.operations import (
    AgentClient,
    ApprovalClient,
    BulkClient,
    HaltClient,
    NoteClient,
    Operations,
    TaskClient,
    ThreadClient,
)

__all__ = [
    "AgentClient",
    "ApprovalClient",
    "BulkClient",
    "HaltClient",
    "HttpClient",
    "NoteClient",
    "Operations",
    "TaskClient",
    "ThreadClient",
    "open_client",
]


def open_client(url: str) -> AbstractAsyncContextManager[Operations]:
    """A client of the server at ``url``: ``http://HOST:PORT`` or ``grpc://HOST:PORT``.

    Raises:
        ConfigError: the URL names no server, or gRPC is not installed.
    """
    if not url.startswith("grpc://"):
        return HttpClient(url)
    if find_spec("grpc") is None:
        message = "gRPC is not installed: install the extra opspawn[grpc]"
        raise ConfigError(message, field="url")
    from ops_core.client.grpc import GrpcClient

    return GrpcClient(url)
