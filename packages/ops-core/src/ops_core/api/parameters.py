"""Parameters of headers, paths and queries: their types, and how they are parsed."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, Field

from ops_core.errors import InvalidRequest
from ops_core.schemas import MAX_SEQ, STEPS_MOST
from ops_core.schemas.queries import (
    IDEMPOTENCY_KEY,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
    NOTE_ID_PATTERN,
    PAGE_MOST,
    THREAD_ID_PATTERN,
)
from ops_core.service import MAX_WAIT_SECONDS

_KEY = rf'^("([ !#-\[\]-~]|\\["\\]){{1,255}}"|{IDEMPOTENCY_KEY})$'
_LABEL = rf"{LABEL_KEY_PATTERN.removesuffix('$')}(={LABEL_VALUE_PATTERN.strip('^$')})?$"
_REPEATABLE = frozenset({"status", "id"})


def _whole(value: Any) -> Any:
    # left to itself, pydantic also takes "5.0" and "1_000"
    if isinstance(value, str) and not re.fullmatch(r"-?\d{1,10}", value):
        message = "must be a whole number"
        raise ValueError(message)
    return value


# the bounds first: behind a validator, pydantic would not put them into the schema
_Seq = Annotated[int, Field(ge=-1, le=MAX_SEQ), BeforeValidator(_whole)]
_Seen = Annotated[int, Field(ge=0, le=MAX_SEQ), BeforeValidator(_whole)]
_Limit = Annotated[int, Field(ge=1, le=PAGE_MOST), BeforeValidator(_whole)]
_StepsLimit = Annotated[int, Field(ge=1, le=STEPS_MOST), BeforeValidator(_whole)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=_KEY,
        description="1 to 255 printable ASCII characters, plain or as a quoted string. The same key with the same "
        "request has the same result, however often it is sent; with another one it is refused.",
        examples=["nightly-report-2026-11-22"],
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description=f"`wait=N` answers when the task has ended, or after N seconds (at most {MAX_WAIT_SECONDS}); "
        "the status stays 202.",
        examples=["wait=10"],
    ),
]
Traceparent = Annotated[
    str | None,
    Header(
        alias="traceparent",
        description="The caller's span, as W3C Trace Context has it: the runs of the task belong to its trace. A "
        "malformed one is ignored.",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    ),
]
Tracestate = Annotated[
    str | None, Header(alias="tracestate", description="Goes with `traceparent`; at most 512 characters.")
]
LastEventId = Annotated[
    _Seen | None,
    Header(alias="Last-Event-ID", description="Number of the last step that was seen; wins over `after`."),
]
After = Annotated[_Seq, Query(description="Only steps with a greater number than this.")]
StepsLimit = Annotated[_StepsLimit, Query(description="So many steps at most.")]
PageLimit = Annotated[_Limit, Query(description="So many at most.")]
View = Annotated[
    Literal["full", "basic"],
    Query(description="`basic` leaves out inputs and outputs, which are then `null`."),
]
Statuses = Annotated[
    list[str] | None,
    Query(description="In one of these statuses; repeated, or separated by commas.", examples=[["failed"]]),
]
OfAgent = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Of this agent.")]
Label = Annotated[
    str | None,
    Query(pattern=_LABEL, description="With this label: `key` or `key=value`.", examples=["team=search"]),
]
OfThread = Annotated[
    str | None,
    Query(alias="thread_id", pattern=THREAD_ID_PATTERN, description="Of this thread.", examples=["chat-42"]),
]
OfKey = Annotated[
    str | None,
    Query(pattern=LABEL_VALUE_PATTERN, description="About this person or thing.", examples=["kim"]),
]
NoteIds = Annotated[
    list[Annotated[str, Field(pattern=NOTE_ID_PATTERN)]] | None,
    Query(alias="id", description="Of this id; may be repeated."),
]
All = Annotated[bool, Query(alias="all", description="Every note, of all agents.")]
InForce = Annotated[bool, Query(description="Only those that were not lifted.")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
TaskId = Annotated[
    str, Path(description="Id of the task.", examples=["01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77"])
]
HaltId = Annotated[
    str, Path(description="Id of the halt.", examples=["01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77"])
]
ThreadIdPath = Annotated[str, Path(description="Id of the thread.", examples=["chat-42"])]
ApprovalId = Annotated[str, Path(description="Id of the approval, from the step that asked for it.")]
AgentName = Annotated[str, Path(description="Name of the agent.", examples=["assistant"])]


async def known_query(request: Request) -> None:
    """Refuse parameters that the operation does not know, and those that are given twice.

    Raises:
        InvalidRequest: ``field`` names it.
    """
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params}
    for name, count in Counter(name for name, _value in request.query_params.multi_items()).items():
        if name not in known:
            there_are = ", ".join(sorted(known)) or "none"
            message = f"{name} is not a parameter of this operation; there are: {there_are}"
            raise InvalidRequest(message, field=name)
        if count > 1 and name not in _REPEATABLE:
            message = f"{name} is there {count} times"
            raise InvalidRequest(message, field=name)


async def no_body(request: Request) -> None:
    """Refuse a body where none is read.

    Raises:
        InvalidRequest: there is one.
    """
    if await request.body():
        message = "this operation takes no body"
        raise InvalidRequest(message, field="body")


def key_of(header: str | None) -> str | None:
    """The key in an ``Idempotency-Key``; a quoted one (as the IETF's draft writes it) is the same as a plain one."""
    if header is None or not header.startswith('"'):
        return header
    return re.sub(r"\\(.)", r"\1", header[1:-1])


def wait_of(prefer: str | None) -> int | None:
    """The seconds in a ``Prefer`` header's ``wait=N``, capped; ``None`` without one. Other preferences are ignored.

    Raises:
        InvalidRequest: N is not a whole number.
    """
    for preference in (prefer or "").split(","):
        name, equals, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            if not equals or not re.fullmatch(r"\d{1,9}", seconds):
                message = "wait must be a whole number of seconds, for example wait=10"
                raise InvalidRequest(message, field="Prefer")
            return min(int(seconds), MAX_WAIT_SECONDS)
    return None
