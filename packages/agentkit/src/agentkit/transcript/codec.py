"""The stored form of steps: one JSON object each, with the version of the form and the kind of the step.

::

    {"v": 1, "kind": "tool_returned", "call_id": "call_1", "tool": "add", "output": 3, …}

Readers accept every version in :data:`VERSIONS`. A newer version, an unknown kind or an unknown field is refused: to
guess at what happened in a run would be worse than to stop. A field that has a default may be missing, so that a new
field does not need a new version; a new meaning does.

A release that adds a field which older readers may leave out marks the steps that have it with a number,
``"minor": 1`` for the first such addition. A reader leaves out unknown fields of a step whose number is higher than its
own :data:`MINOR`, and of no other. Steps are only appended, so what it leaves out stays stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache, partial
from operator import attrgetter
from typing import Any, NoReturn, cast

from agentkit.errors import Actor, RunError, TranscriptError
from agentkit.messages import (
    Attachment,
    JsonObject,
    JsonValue,
    Opaque,
    Part,
    Reasoning,
    Source,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Declared,
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Note,
    Recalled,
    Recorded,
    Ruling,
    RunRetried,
    RunStarted,
    Settlement,
    Step,
    Summarised,
    ToolReturned,
    ToolStarted,
    Unreadable,
)

VERSIONS: Mapping[int, str] = {1: "the first form"}
"""What each version of the stored form brought."""

CURRENT = max(VERSIONS)

MINOR = 0
"""Number of the last addition to the stored form that this release knows."""

_STEPS: Mapping[str, type[Any]] = {
    "run_started": RunStarted,
    "model_replied": ModelReplied,
    "model_asked": ModelAsked,
    "model_failed": ModelFailed,
    "tool_started": ToolStarted,
    "tool_returned": ToolReturned,
    "approval_asked": ApprovalAsked,
    "approval_given": ApprovalGiven,
    "run_retried": RunRetried,
    "summarised": Summarised,
    "recalled": Recalled,
    "embedded": Embedded,
    "nested_spent": NestedSpent,
    "declared": Declared,
    "finished": Finished,
}
_PARTS: Mapping[str, type[Any]] = {
    "text": Text,
    "reasoning": Reasoning,
    "tool_call": ToolCall,
    "opaque": Opaque,
    "source": Source,
    "attachment": Attachment,
}
_SHOWN_ONLY: Mapping[str, type[Any]] = {"unreadable": Unreadable}
_KIND_OF: Mapping[type[Any], str] = {
    cls: kind for kinds in (_STEPS, _PARTS, _SHOWN_ONLY) for kind, cls in kinds.items()
}


def kind_of(step: Step) -> str:
    """The name under which this kind of step is stored, for example ``model_replied``."""
    return _KIND_OF[type(step)]


def step_to_json(step: Step) -> JsonObject:
    """The stored form of ``step`` as a JSON object."""
    return {"v": CURRENT, **_dump(step)}


def step_from_json(stored: Mapping[str, Any]) -> Step:
    """The step whose stored form is given.

    Raises:
        TranscriptError: it was written by a newer release, or is damaged.
    """
    body = dict(stored)
    version = body.pop("v", None)
    if type(version) is not int or version not in VERSIONS:
        message = f"a step is stored in form {version!r}; this release reads {sorted(VERSIONS)}: upgrade it"
        raise TranscriptError(message)
    if body.get("kind") in _SHOWN_ONLY:
        message = f"a stored step is of the kind {body['kind']!r}, which is never stored"
        raise TranscriptError(message)
    step: Step = _load_step(body)
    return step


def shown_from_json(stored: Any) -> Step:
    """As :func:`step_from_json`; a step that cannot be read is shown as
    :class:`~agentkit.transcript.steps.Unreadable`.
    """
    if not isinstance(stored, dict):
        return Unreadable(stored_as="", problem="a stored step is not a JSON object")
    body = cast("dict[str, Any]", stored)
    kind = str(body.get("kind", ""))[:MAX_KIND]
    try:
        if kind in _SHOWN_ONLY:
            shown: Step = _load(
                _SHOWN_ONLY[kind], {name: body[name] for name in body if name not in ("v", "kind")}
            )
            return shown
        return step_from_json(body)
    except TranscriptError as error:
        return Unreadable(stored_as=kind, problem=str(error))


MAX_KIND = 64
"""Number of characters of a kind that are shown."""


def encode_step(step: Step) -> str:
    """The stored form of ``step`` as compact JSON text.

    Raises:
        TranscriptError: it holds something that JSON cannot express, or is a step that is only shown.
    """
    if isinstance(step, Unreadable):
        message = f"a step that could not be read is not recorded: {step.problem}"
        raise TranscriptError(message)
    return to_json_text(step_to_json(step))


def decode_step(text: str | bytes) -> Step:
    """The step that :func:`encode_step` stored.

    Raises:
        TranscriptError: it was written by a newer release, or is damaged.
    """
    stored = _json_of(text)
    if not isinstance(stored, dict):
        message = "a stored step is not a JSON object"
        raise TranscriptError(message)
    return step_from_json(cast("dict[str, Any]", stored))


def decode_shown(text: str | bytes) -> Step:
    """As :func:`decode_step`, for showing: a step that cannot be read is
    :class:`~agentkit.transcript.steps.Unreadable`.
    """
    try:
        return shown_from_json(_json_of(text))
    except TranscriptError as error:
        return Unreadable(stored_as="", problem=str(error))


def _json_of(text: str | bytes) -> Any:
    try:
        return from_json_text(text)
    except (ValueError, RecursionError) as error:
        message = f"a stored step is not JSON (position {getattr(error, 'pos', '?')})"
        raise TranscriptError(message) from None


def recorded_to_json(recorded: Recorded) -> JsonObject:
    """A step with its number and time as one JSON object, for files and wires."""
    return {"seq": recorded.seq, "at": recorded.at, **step_to_json(recorded.step)}


def recorded_from_json(stored: Mapping[str, Any]) -> Recorded:
    """The inverse of :func:`recorded_to_json`.

    Raises:
        TranscriptError: it was written by a newer release, or is damaged.
    """
    seq, at, body = _in_place(stored)
    return Recorded(seq=seq, at=at, step=step_from_json(body))


def recorded_shown(stored: Mapping[str, Any]) -> Recorded:
    """As :func:`recorded_from_json`, for showing: see :func:`shown_from_json`.

    Raises:
        TranscriptError: it has no number or time.
    """
    seq, at, body = _in_place(stored)
    return Recorded(seq=seq, at=at, step=shown_from_json(body))


def _in_place(stored: Mapping[str, Any]) -> tuple[int, float, dict[str, Any]]:
    body = dict(stored)
    seq, at = body.pop("seq", None), body.pop("at", None)
    if not isinstance(seq, int) or not isinstance(at, int | float):
        message = "a stored step has no number or time"
        raise TranscriptError(message)
    return seq, float(at), body


def from_json_text(text: str | bytes) -> Any:
    """The inverse of :func:`to_json_text`.

    Raises:
        ValueError: it is not strict JSON.
        RecursionError: it is nested too deeply.
    """
    said = text.decode() if isinstance(text, bytes) else text
    value = _DECODER.decode(said)
    if "\\ud" in said or "\\uD" in said:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            message = "it holds half a character"
            raise ValueError(message) from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_STRICT = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def to_json_text(value: object) -> str:
    """``value`` as compact, strict JSON: no NaN, no lone surrogates; keys that are numbers become texts.

    Raises:
        TranscriptError: JSON cannot express it.
    """
    text = _quickly(value)
    return _strictly(value) if text is None else text


def _quickly(value: object) -> str | None:
    """The same by the encoder of pydantic-core, a tenth of the time; ``None`` where it would say something else.

    That one also writes what is no JSON (sets, bytes, dates, infinity …), so its text is read back and compared.
    """
    to_json, from_json = _pydantic_core()
    try:
        text: bytes = to_json(value)
        return text.decode() if from_json(text, allow_inf_nan=False) == value else None
    except (ValueError, TypeError, RecursionError):
        return None


@cache
def _pydantic_core() -> tuple[Callable[..., bytes], Callable[..., Any]]:
    """Loaded when the first step is encoded: `import agentkit` does without."""
    from pydantic_core import from_json, to_json

    return to_json, from_json


def _strictly(value: object) -> str:
    try:
        text = _STRICT.encode(value)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"a step holds a value that JSON cannot express ({type(error).__name__})"
        raise TranscriptError(message) from None
    return text


# --- fields ------------------------------------------------------------------------------------------------------


_AS_THEY_ARE = frozenset({str, int, float, bool, dict, list, type(None)})
"""What JSON holds without a change; most fields are of these."""


def _dump(value: Any) -> dict[str, JsonValue]:
    kind = _KIND_OF.get(value.__class__)
    body: dict[str, JsonValue] = {} if kind is None else {"kind": kind}
    names, defaults, get = _layout(value.__class__)
    for name, default, field in zip(names, defaults, get(value), strict=True):
        if field is default or (type(field) is type(default) and field == default):
            continue
        if isinstance(value, Attachment) and isinstance(field, bytes):
            body[name] = base64.b64encode(field).decode()
        else:
            body[name] = field if type(field) in _AS_THEY_ARE else _plain(field)
    return body


def _plain(field: Any) -> JsonValue:
    if isinstance(field, StrEnum):
        return str(field)
    if isinstance(field, Usage | RunError | Ruling | Settlement):
        return _dump(field)
    if isinstance(field, tuple):
        return [_dump(part) for part in field]  # pyright: ignore[reportUnknownVariableType]
    return field  # type: ignore[no-any-return]


def _load_step(body: dict[str, Any]) -> Any:
    minor = body.pop("minor", 0)
    if type(minor) is not int or minor < 0:
        message = f"a stored step has the minor number {minor!r}, which is none"
        raise TranscriptError(message)
    if minor <= MINOR:
        return _load_tagged(body, _STEPS, "step")
    kept = _PASSES.set(True)
    try:
        return _load_tagged(body, _STEPS, "step")
    finally:
        _PASSES.reset(kept)


_PASSES: ContextVar[bool] = ContextVar("passes", default=False)
"""Whether unknown fields are left out: while a step of a later addition is read, also for the values inside it."""


def _load_tagged(stored: Mapping[str, Any], kinds: Mapping[str, type[Any]], what: str) -> Any:
    kind = stored.get("kind")
    cls = kinds.get(kind) if isinstance(kind, str) else None
    if cls is None:
        message = f"a stored {what} is of the unknown kind {kind!r}: was it written by a newer release?"
        raise TranscriptError(message)
    return _load(cls, {name: value for name, value in stored.items() if name != "kind"})


def _load(cls: type[Any], stored: Mapping[str, Any]) -> Any:
    known = set(_layout(cls)[0])
    if not known.issuperset(stored) and _PASSES.get():
        stored = {name: value for name, value in stored.items() if name in known}
    if not known.issuperset(stored):
        unknown = ", ".join(sorted(set(stored) - known))
        message = (
            f"a stored {cls.__name__} has the unknown field {unknown}: was it written by a newer release?"
        )
        raise TranscriptError(message)
    try:
        return cls(**{name: _NESTED.get((cls, name), _as_is)(value) for name, value in stored.items()})
    except (TypeError, ValueError, AttributeError) as error:
        message = f"a stored {cls.__name__} is damaged: {error}"
        raise TranscriptError(message) from None


def _as_is(value: Any) -> Any:
    return value


def _parts(stored: Any) -> tuple[Part, ...]:
    if not isinstance(stored, list):
        message = "parts is not a list"
        raise TypeError(message)
    return tuple(_load_tagged(part, _PARTS, "part") for part in cast("list[dict[str, Any]]", stored))


def _notes(stored: Any) -> tuple[Note, ...]:
    if not isinstance(stored, list):
        message = "notes is not a list"
        raise TypeError(message)
    return tuple(_load(Note, note) for note in cast("list[dict[str, Any]]", stored))


def _bytes(stored: Any) -> bytes | None:
    return None if stored is None else base64.b64decode(stored, validate=True)


def _usage(stored: Any) -> Usage | None:
    return None if stored is None else _load(Usage, stored)


def _ruling(stored: Any) -> Ruling | None:
    return None if stored is None else _load(Ruling, stored)


def _settlement(stored: Any) -> Settlement | None:
    return None if stored is None else _load(Settlement, stored)


def _error(stored: Any) -> RunError | None:
    return None if stored is None else _load(RunError, stored)


_NESTED: Mapping[tuple[type[Any], str], Callable[[Any], Any]] = {
    (ModelReplied, "parts"): _parts,
    (ModelReplied, "stop_reason"): StopReason,
    (ModelReplied, "usage"): _usage,
    (Attachment, "data"): _bytes,
    (Summarised, "usage"): _usage,
    (Recalled, "notes"): _notes,
    (Embedded, "usage"): _usage,
    (NestedSpent, "usage"): _usage,
    (ModelFailed, "usage"): _usage,
    (ModelFailed, "error"): _error,
    (ToolReturned, "error"): _error,
    (ToolReturned, "ruling"): _ruling,
    (ToolStarted, "ruling"): _ruling,
    (Finished, "error"): _error,
    (Settlement, "error"): _error,
    (ApprovalGiven, "settlement"): _settlement,
    (RunError, "actor"): Actor,
}


def _layout(cls: type[Any]) -> tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], Sequence[Any]]]:
    if cls not in _LAYOUTS:
        _LAYOUTS[cls] = _laid_out(cls)
    return _LAYOUTS[cls]


_LAYOUTS: dict[type[Any], tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], Sequence[Any]]]] = {}


def _laid_out(cls: type[Any]) -> tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], Sequence[Any]]]:
    """Names of the fields of a class, their defaults, and what reads all of them from a value."""
    names = tuple(field.name for field in fields(cls))
    defaults = tuple(
        field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(cls)
    )
    get: Callable[[Any], Sequence[Any]] = attrgetter(*names)
    if len(names) == 1:  # that would give the field, and not a sequence
        get = partial(_only, names[0])
    return names, defaults, get


def _only(name: str, value: object) -> Sequence[Any]:
    return (getattr(value, name),)
