"""RabbitMQ broker for hints: Dramatiq's broker, reduced to one short queue of messages that mean "look".

Dramatiq by itself loses messages and doubles them (docs/decisions/0017). Here nothing depends on any message, and what
made it so is gone: no delay queue, no dead letters, no retries, no middleware, no reconnecting inside of a call, no
acknowledgement on a channel other than the one that a message came on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import pika
from dramatiq import Consumer, JSONEncoder, Message, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from ops_core.concurrency.jitter import spread
from ops_core.dispatchers.broker_status import Link, log

Connection: TypeAlias = Any
Channel: TypeAlias = Any
"""Of pika, which has no type information."""

ACTOR = "wake"

QUEUED = 4
"""So many hints stay in the queue, the newest; more say nothing that these do not say."""

STALE_MILLISECONDS = "10000"
"""A hint that nobody took for so long is dropped: whoever has a slot has looked since."""

LOOK_SECONDS = 1.0
"""How often a consumer without messages looks whether it is to end."""

HOLD_SECONDS = 0.02
"""So long a hint waits for a slot to come free here, before it is given back for another worker."""

REFUSED = (403, 406)
"""The queue may not be declared by us, or was declared with other arguments: it is used as it is."""

LONGEST_PAUSE_SECONDS = 5.0


class Gate:
    """Open while a runner with a free slot waits for a wake-up. Set by the event loop, read by other threads."""

    def __init__(self) -> None:
        self._waiting = 0
        self._open = threading.Event()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is open; ``False`` when it was not in time."""
        return self._open.wait(seconds)

    def enter(self) -> None:
        """One runner more waits."""
        self._waiting += 1
        self._open.set()

    def leave(self) -> None:
        """One runner less waits."""
        self._waiting -= 1
        if not self._waiting:
            self._open.clear()


class HintBroker(RabbitmqBroker):
    """Dramatiq's broker with one queue, which holds hints only.

    Args:
        parameters: where RabbitMQ is.
        queue: the name of the queue.
        gate: hints are taken while it is open.
        link: told whether RabbitMQ can be used.
    """

    def __init__(self, parameters: Any, queue: str, gate: Gate, link: Link) -> None:
        super().__init__(middleware=[], confirm_delivery=True)
        self.parameters: Any = parameters
        self.queue = queue
        self.gate = gate
        self.link = link
        self.closing = threading.Event()
        self.encoder = JSONEncoder()  # not the one of the process, which the program may have changed
        self.consumer: HintConsumer | None = None
        self._as_it_is = False

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Make the queue known to the worker. On the server it is made with each connection."""
        if queue_name not in self.queues:
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """A consumer, which is not connected yet."""
        self.consumer = HintConsumer(self)
        return self.consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Send a hint and wait until RabbitMQ has it; one try. Raises what pika raises."""
        channel = self._publishing()
        properties: Any = BasicProperties(delivery_mode=1, expiration=STALE_MILLISECONDS)  # type: ignore[no-untyped-call]
        body = self.encoder.encode(message.asdict())
        publish = partial(channel.basic_publish, "", self.queue, body, properties, mandatory=True)
        try:
            publish()
        except UnroutableError:  # the queue was deleted
            self.declared(self.state.connection).close()
            publish()
        except NackError:
            pass  # the queue is full of hints
        return message

    def _publishing(self) -> Channel:
        """This thread's channel; made, with its queue, where there is none."""
        if getattr(self.state, "channel", None) is None:
            connection = self.state.connection = pika.BlockingConnection(self.parameters)
            channel = self.state.channel = self.declared(connection)
            channel.confirm_delivery()
        return self.state.channel

    def declared(self, connection: Connection) -> Channel:
        """A channel on which the queue was found or made."""
        channel = connection.channel()
        try:
            channel.queue_declare(self.queue, durable=True, arguments={"x-max-length": QUEUED})
        except ChannelClosedByBroker as error:
            if error.reply_code not in REFUSED:
                raise
            channel = connection.channel()
            channel.queue_declare(self.queue, passive=True)
            if not self._as_it_is:
                self._as_it_is = True
                log.warning("the queue %s is used as it is: %s", self.queue, error.reply_text)
        return channel

    def serve_connection(self) -> None:
        """Answer the heartbeats of this thread's connection, where there is one; raises when it is broken."""
        connection = getattr(self.state, "connection", None)
        if connection is not None:
            connection.process_data_events(0)

    def drop_connection(self) -> None:
        """Close this thread's connection, where there is one."""
        connection = getattr(self.state, "connection", None)
        self.state.connection = self.state.channel = None
        closed(connection)

    def decoded(self, body: bytes) -> Message[Any] | None:
        """The hint in a message; ``None`` for anything else."""
        try:
            fields: dict[str, Any] = self.encoder.decode(body)
            fields.update(args=(), options={})  # they mean nothing here
            message: Message[Any] = Message(**fields)
            by = message.kwargs["by"]
        except Exception:  # noqa: BLE001  (whatever it is, it is no hint)
            return None
        fits = message.actor_name == ACTOR and message.queue_name == self.queue and isinstance(by, str)
        return message if fits and len(message.kwargs) == 1 else None


class HintConsumer(Consumer):
    """Takes one hint at a time, and only for a runner with a free slot; connects again by itself.

    A worker without a slot gives its hint back and leaves the queue to the others until it has one.
    """

    def __init__(self, broker: HintBroker) -> None:
        self._broker = broker
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._arrived: deque[tuple[int, bytes]] = deque()
        self._failures = 0
        self._queue_gone = False

    # --- what Dramatiq's threads call -----------------------------------------------------------------------------

    def __next__(self) -> MessageProxy | None:
        broker = self._broker
        if broker.closing.is_set():
            self.close()  # also a connection that was made meanwhile
            time.sleep(HOLD_SECONDS)
            return None
        try:
            return self._next(self._channel or self._connect())
        except Exception as error:  # noqa: BLE001  (whatever it is, workers do without)
            self.close()
            if not broker.closing.is_set():
                broker.link.broken("listening", error)
            broker.closing.wait(pause(self._failures))
            self._failures += 1
            return None

    def ack(self, message: MessageProxy) -> None:
        """The hint has reached the runner."""
        self._settle(message, "basic_ack")

    def nack(self, message: MessageProxy) -> None:
        """The hint cannot be handed on."""
        self._settle(message, "basic_reject", requeue=False)

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection, self._channel, self._tag = self._connection, None, None, None
        self._arrived.clear()
        closed(connection)

    # --- what the event loop calls --------------------------------------------------------------------------------

    def resume(self) -> None:
        """The gate has opened: take hints again, where it does not."""
        if self._tag is None:
            self.nudge()

    def nudge(self) -> None:
        """End the wait for messages."""
        self._soon(self._connection, lambda: None)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _connect(self) -> Channel:
        self._connection = pika.BlockingConnection(self._broker.parameters)
        if self._broker.closing.is_set():  # nobody waits for it any more
            raise ConnectionError
        channel = self._channel = self._broker.declared(self._connection)
        channel.basic_qos(prefetch_count=1)
        channel.add_on_cancel_callback(self._cancelled)
        self._failures = 0
        self._broker.link.healed("listening")
        return channel

    def _next(self, channel: Channel) -> MessageProxy | None:
        gate = self._broker.gate
        if self._queue_gone:
            self._broker.declared(channel.connection).close()
            self._queue_gone = False
        if self._tag is None and gate.is_open:
            self._tag = channel.basic_consume(self._broker.queue, self._delivered)
        if not self._arrived:
            channel.connection.process_data_events(LOOK_SECONDS)
        if not self._arrived:
            return None
        delivery, body = self._arrived.popleft()
        message = self._broker.decoded(body)
        if message is None:
            channel.basic_reject(delivery, requeue=False)
            log.warning("a message that is no hint was thrown away from the queue %s", self._broker.queue)
            return None
        if not gate.wait(HOLD_SECONDS):
            # no longer a consumer when the hint is in the queue again: another one gets it
            if self._tag is not None:
                tag, self._tag = self._tag, None
                channel.basic_cancel(tag)
            channel.basic_nack(delivery, requeue=True)
            return None
        return _Hint(message, channel, delivery)

    def _delivered(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._arrived.append((method.delivery_tag, body))

    def _cancelled(self, _frame: Any) -> None:
        """The queue was deleted."""
        self._tag = None
        self._queue_gone = True
        log.warning("the queue %s was deleted; it is made again", self._broker.queue)

    def _settle(self, message: MessageProxy, method: str, **options: Any) -> None:
        """Answer on the channel that the hint came on: on another one, its number would be another message's."""
        assert isinstance(message, _Hint)
        channel, delivery = message.channel, message.delivery

        def settle() -> None:
            if channel.is_open:
                getattr(channel, method)(delivery, **options)

        self._soon(channel.connection, settle)

    def _soon(self, connection: Connection | None, call: Callable[[], None]) -> None:
        with suppress(Exception):  # a connection that is closed has forgotten its messages, too
            if connection is not None:
                connection.add_callback_threadsafe(call)


class _Hint(MessageProxy):
    """A hint, and where it came from."""

    def __init__(self, message: Message[Any], channel: Channel, delivery: int) -> None:
        super().__init__(message)  # pyright: ignore[reportUnknownMemberType]
        self.channel = channel
        self.delivery = delivery


def closed(connection: Connection | None) -> None:
    """Close a connection, whatever its state."""
    with suppress(Exception):
        if connection is not None and connection.is_open:
            connection.close()


def pause(failures: int) -> float:
    """Seconds until the next try to connect, after so many in vain."""
    return spread(min(LONGEST_PAUSE_SECONDS, 0.1 * 2.0 ** min(failures, 10)), 0.7, 1.0)
