"""How workers are woken."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from ops_core.dispatchers.counted import CountedDispatcher
from ops_core.dispatchers.local import LocalDispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher

__all__ = ["CountedDispatcher", "LocalDispatcher", "open_dispatcher"]


@asynccontextmanager
async def open_dispatcher(url: str) -> AsyncGenerator[Dispatcher]:
    """The dispatcher at ``url``.

    Args:
        url: ``local://`` for workers in this process, ``amqp://USER:PASSWORD@HOST/VHOST`` for those of others, too.
            RabbitMQ need not answer: without it, workers find their work by looking for it.

    Raises:
        ConfigError: the URL is not one that can be used, or the client of RabbitMQ is not installed.
    """
    scheme = _scheme(url)
    if scheme == "local":
        yield LocalDispatcher()
    elif scheme in ("amqp", "amqps"):
        try:
            from ops_core.dispatchers.rabbitmq import open_rabbitmq
        except ModuleNotFoundError as error:
            if error.name not in ("dramatiq", "pika"):
                raise
            message = "dispatcher_url: RabbitMQ needs the extra ops-core[rabbitmq]"
            raise ConfigError(message, field="dispatcher_url") from None
        async with open_rabbitmq(url) as dispatcher:
            yield dispatcher
    else:
        message = f"dispatcher_url: {scheme or 'no scheme'} is not supported; use local:// or amqp://…"
        raise ConfigError(message, field="dispatcher_url")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
