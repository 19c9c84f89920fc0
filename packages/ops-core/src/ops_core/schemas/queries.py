"""Queries: what a list shows, and how the things in it are named: ids, labels, cursors."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from math import isfinite
from typing import Any, TypeAlias, TypeVar

from ops_core.bulk import FITTING, USUAL, BulkVerb, TaskSelection
from ops_core.durations import MAX_SECONDS
from ops_core.errors import HaltNotFound, InvalidRequest, TaskNotFound, ThreadNotFound
from ops_core.ports import ApprovalFilter, HaltFilter, NoteFilter, TaskFilter, ThreadFilter
from ops_core.strict_json import is_unicode
from ops_core.task import TaskStatus

Place = TypeVar("Place")

VIEWS = ("full", "basic")
"""What a list tells of tasks: everything, or all but inputs and outputs."""

PAGE_DEFAULT, PAGE_MOST = 50, 200
"""So many tasks are on a page, where nothing or the most is asked for."""

IDEMPOTENCY_KEY = r"[!#-~]([ -~]{0,253}[!-~])?"
"""What a key may be: 1 to 255 printable ASCII characters, without spaces around it."""

NAME_PATTERN = r"^[^\x00-\x1f\x7f]{1,200}$"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"
LABEL_VALUE_PATTERN = r"^[^\x00-\x1f\x7f]{0,256}$"
THREAD_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
NOTE_ID_PATTERN = r"^[^\x00-\x1f\x7f]{1,64}$"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def task_filter(
    *,
    status: Collection[str] = (),
    agent: str | None = None,
    label: str | None = None,
    thread_id: str | None = None,
    cursor: str | None = None,
    limit: int = PAGE_DEFAULT,
    view: str = "full",
) -> TaskFilter:
    """What the store is asked for a page.

    Raises:
        InvalidRequest: a value makes no sense; ``field`` names it.
    """
    _check_limit(limit)
    asked = TaskFilter(
        status=tuple(_status(value) for value in status),
        agent=_checked(agent, NAME_PATTERN, "agent", "must be the name of an agent"),
        label=None if label is None else _label(label),
        thread=_checked(thread_id, THREAD_ID_PATTERN, "thread_id", _THREAD_RULE),
        limit=limit,
        texts=_is_full(view),
    )
    return asked if cursor is None else replace(asked, before=_decode_cursor(cursor, asked, _task_before))


def task_selection(
    verb: BulkVerb,
    wanted: TaskFilter,
    *,
    older_than_seconds: float | None = None,
    everything: bool = False,
    cursor: str | None = None,
) -> TaskSelection:
    """Which tasks a verb is for.

    Raises:
        InvalidRequest: a value makes no sense, nothing is said, or all and something; ``field`` names it.
    """
    filters = (wanted.agent, wanted.label, wanted.thread, older_than_seconds)
    if everything == (bool(wanted.status) or any(each is not None for each in filters)):
        message = (
            "say which tasks are meant: status, agent, label, thread_id or older_than_seconds; or all of them"
        )
        raise InvalidRequest(message, field="all")
    status = tuple(dict.fromkeys(wanted.status)) or USUAL[verb]
    if not set(status) <= set(FITTING[verb]):
        message = f"status must be among {', '.join(FITTING[verb])}: no other task can be {_PAST[verb]}"
        raise InvalidRequest(message, field="status")
    if older_than_seconds is not None and not 0 < older_than_seconds <= MAX_SECONDS:
        message = f"older_than_seconds must be more than 0, and at most {MAX_SECONDS:.0f}"
        raise InvalidRequest(message, field="older_than_seconds")
    asked = TaskSelection(
        verb=verb,
        status=status,
        agent=wanted.agent,
        label=wanted.label,
        thread=wanted.thread,
        older_seconds=older_than_seconds,
    )
    return asked if cursor is None else replace(asked, after=_decode_cursor(cursor, asked, _bulk_at))


_PAST = {BulkVerb.CANCEL: "cancelled", BulkVerb.RETRY: "retried"}


def _is_full(view: str) -> bool:
    if view not in VIEWS:
        message = f"view must be among {', '.join(VIEWS)}"
        raise InvalidRequest(message, field="view")
    return view == "full"


def thread_filter(*, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ThreadFilter:
    """As :func:`task_filter`, for threads.

    Raises:
        InvalidRequest: a value makes no sense; ``field`` names it.
    """
    _check_limit(limit)
    asked = ThreadFilter(limit=limit + 1)
    return asked if cursor is None else replace(asked, before=_decode_cursor(cursor, asked, _thread_before))


def note_filter(
    *,
    agent: str | None = None,
    key: str | None = None,
    cursor: str | None = None,
    limit: int = PAGE_DEFAULT,
) -> NoteFilter:
    """As :func:`task_filter`, for notes.

    Raises:
        InvalidRequest: a value makes no sense; ``field`` names it.
    """
    _check_limit(limit)
    asked = replace(_notes(agent, key), limit=limit + 1)
    return asked if cursor is None else replace(asked, behind=_decode_cursor(cursor, asked, _notes_behind))


def notes_to_forget(
    *,
    agent: str | None = None,
    key: str | None = None,
    ids: Collection[str] = (),
    everything: bool = False,
) -> NoteFilter:
    """Which notes are to be deleted: those that fit all that is given, or all.

    Raises:
        InvalidRequest: a value makes no sense, or nothing is said, or all and something; ``field`` names it.
    """
    if everything == (agent is not None or key is not None or bool(ids)):
        message = "say which notes are to be forgotten: agent, key or id; or all of them"
        raise InvalidRequest(message, field="all")
    for each in ids:
        _checked(each, NOTE_ID_PATTERN, "id", "must be the id of a note")
    return replace(_notes(agent, key), ids=tuple(ids) or None)


def _notes(agent: str | None, key: str | None) -> NoteFilter:
    return NoteFilter(
        agent=_checked(agent, NAME_PATTERN, "agent", "must be the name of an agent"),
        key=_checked(key, LABEL_VALUE_PATTERN, "key", "must have at most 256 characters, none of control"),
    )


def approval_filter(*, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ApprovalFilter:
    """As :func:`task_filter`, for open approvals.

    Raises:
        InvalidRequest: a value makes no sense; ``field`` names it.
    """
    _check_limit(limit)
    asked = ApprovalFilter(limit=limit + 1)
    return asked if cursor is None else replace(asked, before=_decode_cursor(cursor, asked, _approval_before))


def halt_filter(*, in_force: bool = True, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> HaltFilter:
    """As :func:`task_filter`, for halts.

    Raises:
        InvalidRequest: a value makes no sense; ``field`` names it.
    """
    _check_limit(limit)
    asked = HaltFilter(in_force=in_force, limit=limit + 1)
    return asked if cursor is None else replace(asked, before=_decode_cursor(cursor, asked, _halt_before))


def halt_id_of(given: str) -> str:
    """The id as it is stored.

    Raises:
        HaltNotFound: no halt can have this id.
    """
    if not _ID.fullmatch(given.lower()):
        message = "there is no halt of this id: it is not a UUID"
        raise HaltNotFound(message)
    return given.lower()


def thread_id_of(given: str) -> str:
    """The id as it is stored.

    Raises:
        ThreadNotFound: no thread can have this id.
    """
    if not re.fullmatch(THREAD_ID_PATTERN, given):
        message = f"there is no thread of this id: it {_THREAD_RULE}"
        raise ThreadNotFound(message)
    return given


_THREAD_RULE = "must be 1 to 128 letters, digits and . _ : @ -, beginning with a letter or a digit"


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_MOST:
        message = f"limit must be from 1 to {PAGE_MOST}"
        raise InvalidRequest(message, field="limit")


def task_id_of(given: str) -> str:
    """The id as it is stored.

    Raises:
        TaskNotFound: no task can have this id.
    """
    if not _ID.fullmatch(given.lower()):
        message = "there is no task of this id: it is not a UUID"
        raise TaskNotFound(message)
    return given.lower()


def checked_key(key: str) -> str:
    """An idempotency key that can be sent.

    Raises:
        InvalidRequest: it cannot.
    """
    rule = "must be 1 to 255 printable ASCII characters, not beginning with a quotation mark"
    _checked(key, IDEMPOTENCY_KEY, "Idempotency-Key", rule)
    return key


def _status(value: str) -> TaskStatus:
    if value not in set(TaskStatus):
        message = f"status must be among {', '.join(TaskStatus)}"
        raise InvalidRequest(message, field="status")
    return TaskStatus(value)


def _label(value: str) -> str:
    key, _equals, wanted = value.partition("=")
    _checked(key, LABEL_KEY_PATTERN, "label", "must be `key` or `key=value`")
    _checked(wanted, LABEL_VALUE_PATTERN, "label", "must be `key` or `key=value`")
    return value


def _checked(value: str | None, pattern: str, field: str, rule: str) -> str | None:
    if value is not None and not (re.fullmatch(pattern, value) and is_unicode(value)):
        message = f"{field} {rule}"
        raise InvalidRequest(message, field=field)
    return value


Asked: TypeAlias = TaskSelection | ApprovalFilter | HaltFilter | TaskFilter | ThreadFilter | NoteFilter


def encode_cursor(place: Mapping[str, Any], asked: Asked) -> str:
    """Where a page ends, and of which list it is, for whoever asks for the next one."""
    text = json.dumps({"v": 1, **place, "of": _list_of(asked)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


_NO_FILTERS = frozenset({"after", "before", "behind", "limit", "max_bytes", "texts"})


def _list_of(asked: Asked) -> str:
    """The same for two pages of one list, however its filters were written."""
    told = {name: value for name, value in asdict(asked).items() if name not in _NO_FILTERS}
    if told.get("status"):
        told["status"] = sorted(set(told["status"]))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _decode_cursor(cursor: str, asked: Asked, read: Callable[[Any], Place | None]) -> Place:
    told: Any = None
    with suppress(ValueError, RecursionError, binascii.Error):
        text = base64.b64decode(
            cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
        told = json.loads(text)
    place = read(told)
    if place is None:
        message = "cursor must be a `next_cursor` that this list has given"
        raise InvalidRequest(message, field="cursor")
    if told.get("of", of := _list_of(asked)) != of:  # servers of the release before do not say it
        message = "cursor was given by this list with other filters: leave them as they were, or begin anew without it"
        raise InvalidRequest(message, field="cursor")
    return place


def _task_before(told: Any) -> str | None:
    match told:
        case {"v": 1, "tasks_before": str(before)} if _ID.fullmatch(before):
            return before
        case _:
            return None


def _bulk_at(told: Any) -> str | None:
    match told:
        case {"v": 1, "bulk_at": str(at)} if _ID.fullmatch(at):
            return at
        case _:
            return None


def _halt_before(told: Any) -> str | None:
    match told:
        case {"v": 1, "halts_before": str(before)} if _ID.fullmatch(before):
            return before
        case _:
            return None


def _notes_behind(told: Any) -> tuple[float, str, str, str] | None:
    match told:
        case {"v": 1, "notes_behind": [int() | float() as moment, str(agent), str(key), str(id_)]} if (
            isfinite(moment) and is_unicode(agent + key + id_) and "\x00" not in agent + key + id_
        ):
            return float(moment), agent, key, id_
        case _:
            return None


def _approval_before(told: Any) -> tuple[str, int] | None:
    match told:
        case {"v": 1, "approvals_before": [str(id_), int(seq)]} if _ID.fullmatch(id_):
            return id_, seq
        case _:
            return None


def _thread_before(told: Any) -> tuple[float, str] | None:
    match told:
        case {"v": 1, "threads_before": [int() | float() as moment, str(id_)]} if isfinite(moment):
            return (float(moment), thread_id_of(id_)) if re.fullmatch(THREAD_ID_PATTERN, id_) else None
        case _:
            return None
