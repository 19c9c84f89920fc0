"""Conversion of single values: JSON texts, timestamps, statuses, and the names of fields."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from ops_core.errors import InvalidRequest
from ops_core.protocol.v1 import task_pb2
from ops_core.strict_json import MAX_DEPTH, NotStrict, parse
from ops_core.task import TaskStatus

PREFIX = "TASK_STATUS_"

FIELDS: Mapping[str, str] = {
    "input": "input_json",
    "arguments": "arguments_json",
    "Idempotency-Key": "idempotency_key",
    "cursor": "page_token",
    "limit": "page_size",
    "status": "statuses",
}
"""What is called otherwise in a message than in JSON or a header."""

_NAMES = {there: here for here, there in FIELDS.items()}


def field_there(name: str) -> str:
    """The path of a field in a message."""
    return _renamed(name, FIELDS)


def field_here(name: str) -> str:
    """The path of a field in our JSON."""
    return _renamed(name, _NAMES)


def _renamed(path: str, names: Mapping[str, str]) -> str:
    first, dot, rest = path.partition(".")
    return names.get(first, first) + dot + rest


def json_in(text: str, field: str) -> Any:
    """The value of a JSON text.

    Raises:
        InvalidRequest: it is not strict JSON; ``field`` names the place in it.
    """
    try:
        return parse(text.encode(), MAX_DEPTH - 1)  # in the JSON we speak it stands inside of an object
    except NotStrict as error:
        place = f"{field}.{error.place}" if error.place else field
        message = f"{field_there(place)} {error.why}"
        raise InvalidRequest(message, field=place) from None


def moment_in(told: Timestamp, field: str) -> datetime:
    """A moment, to the microsecond.

    Raises:
        InvalidRequest: no calendar has it.
    """
    try:
        return told.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        message = f"{field} must be a moment from year 1 to year 9999"
        raise InvalidRequest(message, field=field) from None


def moment_out(moment: datetime | None) -> Timestamp | None:
    """A moment as it is told."""
    if moment is None:
        return None
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def status_in(told: task_pb2.TaskStatus.ValueType) -> str:
    """A status; of a number that is none, a text that is none."""
    if told in task_pb2.TaskStatus.values():
        return task_pb2.TaskStatus.Name(told).removeprefix(PREFIX).lower()
    return str(told)


def status_out(status: TaskStatus | str) -> task_pb2.TaskStatus.ValueType:
    """A status as it is told.

    Raises:
        InvalidRequest: there is no such status.
    """
    try:
        return task_pb2.TaskStatus.Value(f"{PREFIX}{status.upper()}")
    except ValueError:
        message = f"status must be among {', '.join(TaskStatus)}"
        raise InvalidRequest(message, field="status") from None


def refuse_unknown(message: Message) -> None:
    """Refuse what this release would not heed.

    Raises:
        InvalidRequest: the message has a field that is not known here.
    """
    found = UnknownFieldSet(message)
    if len(found):
        numbers = ", ".join(str(found[place].field_number) for place in range(len(found)))
        text = f"{type(message).__name__} has no field of number {numbers} here: is the caller of a newer release?"
        raise InvalidRequest(text)
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else (value,):
            refuse_unknown(inner)
