"""Framing: messages among the lines that a server writes. A line that is no message harms no message. Pure.

This module imports the SDK's types; it is imported when a connection is opened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json

from agentkit.mcp.repairs import repaired
from agentkit.untrusted.json_bounds import MAX_VALUES, has_more_values

LARGE = 1 << 16
"""Bytes that take a while to read."""

MALFORMED = "what it sends is not of its protocol"
_START = re.compile(r'\{\s*"(?:jsonrpc|id|result|error|method|params)"\s*:')
_ID = re.compile(r'"id"\s*:\s*(?:(?P<number>\d{1,18})|"(?P<text>[^"\\]{1,100})")\s*(?=[,}])')
_ANSWERS = re.compile(r'"(?:result|error)"\s*:')
_HALVES = re.compile(  # of characters, in escapes
    r"(?P<whole>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_MAX_STARTS = 8
_EDGE = 4096


@dataclass(slots=True)
class Found:
    """What some text of a server holds.

    Attributes:
        messages: in their order.
        noise: what is no message; empty where there is none.
    """

    messages: list[JSONRPCMessage] = field(default_factory=list[JSONRPCMessage])
    noise: str = ""


def messages_in(raw: bytes) -> Found:
    """Return the messages in a line, an event or a body.

    Bytes that are not UTF-8 become replacement characters. A message counts behind a byte order mark, behind text that
    does not end with a line, and within a list. An answer that cannot be read, or holds too many values, fails its call
    and no other.
    """
    found = Found()
    if has_more_values(raw):
        found.noise = raw[:_EDGE].decode(errors="replace")
        failed = failed_answer(raw, f"its answer has more than {MAX_VALUES} values")
        found.messages += [] if failed is None else [failed]
        return found
    text = raw.decode(errors="replace").strip("\ufeff\x00 \t\r\n")
    if b'"jsonrpc"' not in raw:  # told at once: a program may write any number of lines
        found.noise = text
        return found
    try:
        values: list[Any] = [_parsed(text)]
    except ValueError:
        values = []
        for piece, value in _pieces(text):
            if value is None:
                found.noise = found.noise or piece
            else:
                values.append(value)
    for value in values:
        for each in cast("list[object]", value) if isinstance(value, list) else [value]:
            message = _message(each)
            if message is None:
                found.noise = found.noise or text
            else:
                found.messages.append(message)
    if not found.messages and (message := failed_answer(raw)) is not None:
        found.messages.append(message)
    return found


async def read_messages(raw: bytes) -> Found:
    """:func:`messages_in`; what is large is read beside the event loop."""
    return await asyncio.to_thread(messages_in, raw) if len(raw) > LARGE else messages_in(raw)


def failed_answer(raw: bytes, why: str = MALFORMED) -> JSONRPCMessage | None:
    """Return an error in the place of an answer that cannot be read; ``None`` where it cannot be told which one it is.

    Args:
        raw: of the answer, its beginning and its end.
        why: what is wrong with it.
    """
    edges = [raw] if len(raw) <= 2 * _EDGE else [raw[:_EDGE], raw[-_EDGE:]]
    begin, end = (edges[0].decode(errors="replace"), edges[-1].decode(errors="replace"))
    answer = _ANSWERS.search(begin)
    if answer is None or not begin.lstrip("\ufeff \t").startswith("{"):
        return None
    # the id stands before the result or behind it: within the result it is one of the server's own data
    found = _ID.search(begin, 0, answer.start())
    if found is None:
        found = next(
            (each for each in reversed(list(_ID.finditer(end))) if end[each.end() :].strip() == "}"), None
        )
    if found is None:
        return None
    return failure(int(found["number"]) if found["number"] else found["text"], why)


def _parsed(text: str) -> Any:
    """A JSON object or list. Raises ValueError."""
    try:
        value = from_json(text)
    except ValueError as error:
        if _HALVES.search(text) is None:
            raise error from None
        value = from_json(_HALVES.sub(lambda match: match["whole"] or "\\ufffd", text))
    if not isinstance(value, dict | list):
        raise ValueError("no object and no list")  # noqa: TRY004  (the text is wrong, not the caller)
    return cast("Any", value)


def _pieces(text: str) -> Iterator[tuple[str, Any]]:
    """What could be a message in a text that is none as a whole, each with its value; ``None`` where it is noise."""
    starts = [match.start() for match in _START.finditer(text)][:_MAX_STARTS]
    if not starts:
        yield text, None
        return
    if starts[0] > 0:
        yield text[: starts[0]], None
    place = 0
    while place < len(starts):
        for end in (len(text), *reversed(starts[place + 1 :])):
            piece = text[starts[place] : end]
            try:
                yield piece, _parsed(piece)
            except ValueError:
                continue
            place = len(starts) if end == len(text) else starts.index(end)
            break
        else:
            yield text[starts[place] :], None
            place += 1


def _message(value: Any) -> JSONRPCMessage | None:
    if not isinstance(value, dict) or "jsonrpc" not in value:
        return None
    given = repaired(cast("dict[str, Any]", value))
    try:
        return jsonrpc_message_adapter.validate_python(given, by_name=False)
    except ValidationError:
        call_id = given.get("id")
        if (
            isinstance(call_id, int | str)
            and not isinstance(call_id, bool)
            and given.keys() & {"result", "error"}
        ):
            return failure(call_id)
        return None


def failure(call_id: int | str, why: str = MALFORMED) -> JSONRPCError:
    """Return an error in the place of the answer to a call."""
    return JSONRPCError(jsonrpc="2.0", id=call_id, error=ErrorData(code=PARSE_ERROR, message=why))


def is_answer_to(message: JSONRPCMessage, call_id: object) -> bool:
    """Whether a message answers the call of this id; some servers write a number as a text, or null."""
    return isinstance(message, JSONRPCResponse | JSONRPCError) and (
        message.id is None or str(message.id) == str(call_id)
    )
