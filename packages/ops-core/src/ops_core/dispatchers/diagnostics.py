"""Diagnostics of RabbitMQ. They change nothing."""

from __future__ import annotations

from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from ops_core.dispatchers.broker_status import reason
from ops_core.dispatchers.rabbitmq import parsed


def examine_rabbitmq(url: str) -> tuple[bool, str]:
    """Whether the RabbitMQ at ``url`` can be used, and what is to be said of it. Blocks for a few connect time-outs.

    Raises:
        ConfigError: the URL is wrong.
    """
    parameters, queue = parsed(url)
    place = f"RabbitMQ at {parameters.host}:{parameters.port}"
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, OSError) as error:
        return (
            False,
            f"{place} cannot be used ({reason(error)}); workers look for work by themselves meanwhile",
        )
    try:
        return True, f"{place}, {_version(connection)}; queue {queue}: {_queued(connection, queue)}"
    except (AMQPError, OSError) as error:
        return False, f"{place} was lost while it was looked at ({reason(error)})"
    finally:
        if connection.is_open:
            connection.close()


def _version(connection: Any) -> str:
    """As the server says in its greeting, which pika shows to its own parts only."""
    said: dict[str, Any] = getattr(getattr(connection, "_impl", None), "server_properties", None) or {}
    version: Any = said.get("version", "unknown")
    return f"version {version.decode('utf-8', 'replace') if isinstance(version, bytes) else version}"


def _queued(connection: Any, queue: str) -> str:
    try:
        found = connection.channel().queue_declare(queue, passive=True).method
    except ChannelClosedByBroker as closed:
        if closed.reply_code != 404:
            raise
        return "made by the first process that wakes or listens"
    return f"{found.message_count} hints, {found.consumer_count} consumers"
