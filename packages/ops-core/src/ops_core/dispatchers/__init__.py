"""How workers are woken."""

from __future__ import annotations

from urllib.parse import urlsplit

from ops_core.dispatchers.counted import CountedDispatcher
from ops_core.dispatchers.local import LocalDispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher

__all__ = ["CountedDispatcher", "LocalDispatcher", "open_dispatcher"]


def open_dispatcher(url: str) -> Dispatcher:
    """The dispatcher at ``url``: ``local://`` for workers in this process.

    Raises:
        ConfigError: the URL is not one that can be used.
    """
    scheme = urlsplit(url).scheme
    if scheme != "local":
        message = f"dispatcher_url: {scheme or 'no scheme'} is not supported yet; use local://"
        raise ConfigError(message, field="dispatcher_url")
    return LocalDispatcher()
