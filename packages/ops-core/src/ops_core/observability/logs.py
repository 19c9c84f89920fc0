"""Log lines: one for each event, with the task that it concerns, as text or as JSON.

Whatever is logged inside ``with about(task=…)`` carries these fields, also what a tool or a library says there. An
exception is told by its type and its place; its text, which may hold anything, is not, except that of a tool at
``debug``, for those who develop it. Known secrets are cut out of
every line, and characters that a terminal would act on are shown as escapes.

Why the standard library: docs/decisions/0021-logs-on-the-standard-library.md.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO, TypeAlias

from agentkit.run.tool_call import place_of
from agentkit.untrusted.secrets import REGISTER
from ops_core.observability.log_writer import LineWriter
from ops_core.observability.redaction import json_line, one_line

Form: TypeAlias = Literal["text", "json"]

TALKATIVE = {
    "alembic": "WARNING",
    "httpx2": "WARNING",
    "mcp": "WARNING",
    "dramatiq": "CRITICAL",
    "pika": "CRITICAL",
}
"""Libraries that tell every request, connection or session (with its id, which opens it): without ``debug`` only what
is at least of this level is logged. The last two tell in many lines, at every try, what ``ops_core.dispatchers`` tells
once."""

OUTSIDERS = ("uvicorn.error", "ops_core.api.connections", "grpc._cython.cygrpc")
"""Loggers whose lines a caller can cause without a valid request: each message is sampled, see :class:`Sampled`."""

SAMPLE_SECONDS = 10.0
"""The same message of a logger of :data:`OUTSIDERS` is logged at most once in this time."""

MAX_SAMPLED = 1000
"""Number of different messages that :class:`Sampled` remembers."""

CUT = "[secret]"

_about: ContextVar[Mapping[str, Any]] = ContextVar("about")
_NOTHING: Mapping[str, Any] = {}
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every record has; anything else was given as ``extra``. ``color_message`` is uvicorn's."""


@contextmanager
def about(**fields: Any) -> Generator[None]:
    """Everything that is logged inside carries ``fields``, also by the tasks that are started there."""
    token = _about.set({**_about.get(_NOTHING), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def set_up(
    level: str, form: Form | None, secrets: Collection[str] = (), stream: TextIO | None = None
) -> None:
    """Let the whole process log like this. What was set up before is replaced.

    Args:
        level: what is below it is not logged.
        form: of the lines; ``None`` for text on a terminal, and JSON otherwise.
        secrets: texts that must not appear.
        stream: where the lines go; stderr, where not given.
    """
    to: TextIO = sys.stderr if stream is None else stream
    form = form or ("text" if to.isatty() else "json")
    handler = Handler(to)
    handler.setFormatter(Lines(form, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in TALKATIVE.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else least)
    for name in OUTSIDERS:
        logger = logging.getLogger(name)
        logger.filters[:] = [kept for kept in logger.filters if not isinstance(kept, Sampled)] + [Sampled()]
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended


class Sampled(logging.Filter):
    """Passes the same message at most once in ``seconds``, with the number of those that were left out.

    Args:
        seconds: the time between two lines of one message.
    """

    def __init__(self, seconds: float = SAMPLE_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._last = dict[str, tuple[float, int]]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; messages are compared before their arguments are put in."""
        message, now = str(record.msg), time.monotonic()
        at, left_out = self._last.get(message, (now - self._seconds, 0))
        if now - at < self._seconds:
            self._last[message] = (at, left_out + 1)
            return False
        if message not in self._last and len(self._last) >= MAX_SAMPLED:
            self._last.clear()
        self._last[message] = (now, 0)
        if left_out:
            record.left_out = left_out
        return True


class Handler(logging.StreamHandler[TextIO]):
    """Writes lines. One that cannot be written is lost, and nobody is harmed.

    Lines for a file, a pipe or a terminal are written by a thread: see :mod:`ops_core.observability.log_writer`.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        descriptor = _descriptor_of(stream)
        self._writer = None if descriptor is None else LineWriter(descriptor, self._left_out)

    def emit(self, record: logging.LogRecord) -> None:
        """Have the line of a record written."""
        if self._writer is None:
            super().emit(record)
            return
        try:
            self._writer.write(self.format(record))
        except Exception:  # noqa: BLE001  (as the library: a line must not end whoever logs it)
            self.handleError(record)

    def flush(self) -> None:
        """Wait a moment for what is to be written: a process that ends has its last lines in the log."""
        if self._writer is None:
            super().flush()
        else:
            self._writer.flush()

    def _left_out(self, count: int) -> str:
        event = "%d lines were left out: the log could not be written, or was not read in time"
        return self.format(
            logging.LogRecord("ops_core.observability.logs", logging.WARNING, "", 0, event, (count,), None)
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the library's name)
        """Nothing: the library would print the values that were to be logged."""


def _descriptor_of(stream: TextIO) -> int | None:
    """That of a stream of the operating system; ``None`` for one in memory, which never blocks."""
    try:
        return stream.fileno()
    except (OSError, AttributeError, ValueError):
        return None


class Lines(logging.Formatter):
    """Makes a line of a record.

    Args:
        form: of the line.
        secrets: texts that are cut out.
    """

    def __init__(self, form: Form, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._as_json = form == "json"
        forms = {form for secret in secrets for form in (secret, json_line(secret)[1:-1], one_line(secret))}
        self._secrets = sorted(filter(None, forms), key=len, reverse=True)
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        fields = {**_about.get(_NOTHING), **_extra(record), **_error(record)}
        moment, level, event = self._moment(record.created), record.levelname.lower(), _event(record)
        if self._as_json:
            first = {"time": moment, "level": level, "logger": record.name, "event": event}
            line = json_line({**first, **{name: fields[name] for name in fields if name not in first}})
        else:
            said = "".join(f" {name}={_word(value)}" for name, value in fields.items())
            line = f"{moment} {level:<7} {record.name}: {one_line(event)}{said}"
        for secret in self._secrets:
            if secret in line:
                line = line.replace(secret, CUT)
        return REGISTER.hidden(line)

    def _moment(self, created: float) -> str:
        """UTC, ISO 8601. The second is made once: hundreds of lines may share it."""
        second = int(created)
        if self._second[0] != second:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        return f"{self._second[1]}.{int((created - second) * 1000):03d}Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    given = vars(record)
    return {name: given[name] for name in given if name not in _ORDINARY}


def _event(record: logging.LogRecord) -> str:
    try:
        event = record.getMessage()
    except Exception:  # noqa: BLE001  (whoever logs a wrong format must not end for it)
        event = str(record.msg)
    if record.name == "asyncio" or record.exc_info:  # below stand a task's arguments, or the exception's text
        event = re.split(r"[\n(<]" if record.name == "asyncio" else r"\n", event, maxsplit=1)[0].strip()
    return event


def _error(record: logging.LogRecord) -> dict[str, Any]:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return {"error": type(error).__qualname__, "at": place_of(error)}  # pyright: ignore[reportUnknownArgumentType]


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = one_line(str(value))
    return f'"{text}"' if " " in text or not text else text


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger("ops_core").error("a thread has ended by an error", exc_info=error)
