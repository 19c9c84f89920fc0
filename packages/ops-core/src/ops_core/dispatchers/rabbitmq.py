"""Dispatcher between processes, through RabbitMQ."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import dramatiq
import pika
from dramatiq import Actor

from ops_core.dispatchers.broker_status import Link
from ops_core.dispatchers.local import LocalDispatcher
from ops_core.dispatchers.rabbitmq_broker import ACTOR, Gate, HintBroker, pause
from ops_core.errors import ConfigError

QUEUE = "opspawn.wake"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")

FILES = ("cacertfile", "certfile", "keyfile")
"""What the query of an ``amqps`` URL may name besides the queue."""

GAP_SECONDS = 0.005
"""At least so long after a hint comes the next one; wake-ups in between are one."""

SERVE_SECONDS = 10.0
"""How often a silent connection is looked after; RabbitMQ wants to hear of it."""

HEARTBEAT_SECONDS = 30
CONNECT_SECONDS = 5.0
BLOCKED_SECONDS = 5.0
"""RabbitMQ short of memory or disk listens to no publisher; so long is waited for it before it counts as broken."""

CLOSE_SECONDS = 4.0
"""Closing takes no longer, whatever the broker does."""

STOP_MILLISECONDS = 1500
WORKER_MILLISECONDS = 250
"""How often Dramatiq's worker thread looks whether it is to end."""


class RabbitDispatcher:
    """Wakes the runners of this process at once, and those of others through a queue of RabbitMQ.

    Args:
        broker: carries the hints.
        gate: as the broker has it.
    """

    def __init__(self, broker: HintBroker, gate: Gate) -> None:
        self._broker = broker
        self._gate = gate
        self._local = LocalDispatcher()
        self._loop = asyncio.get_running_loop()
        self._name = secrets.token_hex(8)
        declare = dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=broker.queue)
        self._actor: Actor[..., None] = declare(self._hear)
        self._publisher: _Publisher | None = None
        self._worker: dramatiq.Worker | None = None

    async def wake(self) -> None:
        """Set the event of this process, and let the publisher's thread send a hint."""
        self._local.hint()
        if self._publisher is None:
            self._publisher = _Publisher(self._broker, self._actor, self._name)
            self._publisher.start()
        self._publisher.ask()

    async def woken(self, timeout_seconds: float) -> bool:
        """Wait for a wake-up of this process or of another one."""
        if self._worker is None:  # a process that never waits takes no hint from those that do
            self._worker = dramatiq.Worker(self._broker, worker_threads=1, worker_timeout=WORKER_MILLISECONDS)
            self._worker.start()
        self._gate.enter()
        if self._broker.consumer is not None:
            self._broker.consumer.resume()
        try:
            return await self._local.woken(timeout_seconds)
        finally:
            self._gate.leave()

    def _hear(self, by: str) -> None:
        """Dramatiq's thread has a hint. Those of this process were heard when they were sent."""
        if by != self._name:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._local.hint)

    async def close(self) -> None:
        """Send what is to be sent, let go of the queue; what does not end in time is left to the end of the process."""
        ended = asyncio.Event()
        self._broker.link.over()
        threading.Thread(target=self._end, args=(ended,), name="rabbitmq-closing", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await ended.wait()

    def _end(self, ended: asyncio.Event) -> None:
        if self._publisher is not None:
            self._publisher.close()
        self._broker.closing.set()
        if self._worker is not None:
            if self._broker.consumer is not None:
                self._broker.consumer.nudge()
            self._worker.stop(timeout=STOP_MILLISECONDS)
        if self._publisher is not None:
            self._publisher.join(CLOSE_SECONDS)
        with suppress(RuntimeError):  # the loop did not wait
            self._loop.call_soon_threadsafe(ended.set)


class _Publisher(threading.Thread):
    """Sends hints from a thread of its own, so that nobody waits for the broker."""

    def __init__(self, broker: HintBroker, actor: Actor[..., None], name: str) -> None:
        super().__init__(name="rabbitmq-publisher", daemon=True)
        self._broker = broker
        self._actor = actor
        self._by = name
        self._changed = threading.Condition()
        self._asked = False
        self._closing = threading.Event()

    def ask(self) -> None:
        """Have a hint sent."""
        if not self._asked:
            with self._changed:
                self._asked = True
                self._changed.notify()

    def close(self) -> None:
        """Send what was asked for, in one try, and end."""
        with self._changed:
            self._closing.set()
            self._changed.notify()

    def run(self) -> None:
        failures = 0
        last = False
        while not last:
            with self._changed:
                if not self._asked and not self._closing.is_set():
                    self._changed.wait(SERVE_SECONDS)
                asked, self._asked = self._asked, False
                last = self._closing.is_set()
            try:
                self._send() if asked else self._broker.serve_connection()
                failures = 0
            except Exception as error:  # noqa: BLE001  (whatever it is, workers do without)
                self._broker.link.broken("publishing", error)
                self._broker.drop_connection()
                self._asked = True  # it is said when it can be: then it is known, too, that it can be
                self._closing.wait(pause(failures))
                failures += 1
            else:
                self._closing.wait(GAP_SECONDS)
        self._broker.drop_connection()

    def _send(self) -> None:
        self._actor.send(by=self._by)
        self._broker.link.healed("publishing")


@asynccontextmanager
async def open_rabbitmq(url: str) -> AsyncGenerator[RabbitDispatcher]:
    """The dispatcher on the RabbitMQ at ``url``, which need not be there.

    Args:
        url: ``amqp://USER:PASSWORD@HOST:PORT/VHOST`` or ``amqps://…``; ``?queue=NAME`` for another queue than
            ``opspawn.wake``. With TLS also ``cacertfile=``, the authorities that are trusted instead of those of the
            system, and ``certfile=`` with ``keyfile=``, our own certificate (PEM; as in RabbitMQ's own URIs).

    Raises:
        ConfigError: the URL is wrong.
    """
    parameters, queue = parsed(url)
    gate = Gate()
    link = Link(f"RabbitMQ at {parameters.host}:{parameters.port}")
    dispatcher = RabbitDispatcher(HintBroker(parameters, queue, gate, link), gate)
    try:
        yield dispatcher
    finally:
        await dispatcher.close()


def parsed(url: str) -> tuple[Any, str]:
    """What pika is to know, and the name of the queue."""
    try:
        parameters, queue = _read(url)
    except (ValueError, TypeError):
        message = (
            "dispatcher_url: not a URL of RabbitMQ; use amqp://USER:PASSWORD@HOST:PORT/VHOST, and ?queue=NAME for a "
            "queue of another name, which begins with a letter"
        )
        raise ConfigError(message, field="dispatcher_url") from None
    parameters.heartbeat = HEARTBEAT_SECONDS
    parameters.blocked_connection_timeout = BLOCKED_SECONDS
    parameters.socket_timeout = CONNECT_SECONDS
    parameters.stack_timeout = CONNECT_SECONDS
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": "opspawn"}
    return parameters, queue


def _read(url: str) -> tuple[Any, str]:
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    (queue,) = query.pop("queue", [QUEUE])
    files = {name: query.pop(name)[0] for name in FILES if name in query} if parts.scheme == "amqps" else {}
    if query or not parts.hostname or not NAME.fullmatch(queue):
        message = "a part is missing, or not known"
        raise ValueError(message)
    parameters = pika.URLParameters(urlunsplit(parts._replace(query="")))
    if parts.scheme == "amqps":
        parameters.ssl_options = pika.SSLOptions(_context(**files), parts.hostname)
    return parameters, queue


def _context(
    cacertfile: str | None = None, certfile: str | None = None, keyfile: str | None = None
) -> ssl.SSLContext:
    """For a server whose name and certificate are checked; with a certificate of ours, where it asks for one."""
    try:
        context = ssl.create_default_context(cafile=cacertfile)
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile)
    except OSError as error:  # that of a bad file (ssl.SSLError) is one, too
        message = f"dispatcher_url: cacertfile, certfile or keyfile cannot be used: {error.strerror or error}"
        raise ConfigError(message, field="dispatcher_url") from None
    return context
