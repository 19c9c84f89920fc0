"""Dispatchers wake workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from ops_core.dispatchers.local import LocalDispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher

__all__ = ["LocalDispatcher", "examine_dispatcher", "open_dispatcher"]


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
            raise _missing(error) from None
        async with open_rabbitmq(url) as dispatcher:
            yield dispatcher
    else:
        raise _unknown(scheme)


def examine_dispatcher(url: str) -> tuple[bool, str]:
    """Whether the dispatcher at ``url`` can be used, and what is to be said of it. Blocks.

    Raises:
        ConfigError: as for :func:`open_dispatcher`.
    """
    scheme = _scheme(url)
    if scheme == "local":
        return True, "within one process; workers of others look for work by themselves"
    if scheme not in ("amqp", "amqps"):
        raise _unknown(scheme)
    try:
        from ops_core.dispatchers.diagnostics import examine_rabbitmq
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return examine_rabbitmq(url)


def _unknown(scheme: str) -> ConfigError:
    message = f"dispatcher_url: {scheme or 'no scheme'} is not supported; use local:// or amqp://…"
    return ConfigError(message, field="dispatcher_url")


def _missing(error: ModuleNotFoundError) -> Exception:
    if error.name not in ("dramatiq", "pika"):
        return error
    message = "dispatcher_url: RabbitMQ needs the extra opspawn[rabbitmq]"
    return ConfigError(message, field="dispatcher_url")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
