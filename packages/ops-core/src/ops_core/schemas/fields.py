"""Fields of the JSON of the API: forms of single values. Unknown fields are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from agentkit.attachments import checked_input
from agentkit.errors import TranscriptError, UsageError
from agentkit.transcript.codec import to_json_text
from ops_core.schemas.queries import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, NAME_PATTERN, THREAD_ID_PATTERN
from ops_core.task import EARLIEST_SECONDS, LATEST_SECONDS

LATEST = datetime.fromtimestamp(LATEST_SECONDS, UTC)

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _as_rfc3339(value: Any) -> Any:
    # left to itself, pydantic also takes numbers, in seconds or milliseconds as it sees fit
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    message = "must be a moment as RFC 3339 writes it, with an offset, for example 2030-01-31T09:00:00Z"
    raise ValueError(message)


def _in_utc(value: datetime) -> datetime:
    """The same moment, so that two that are the same are told and compared as the same."""
    try:
        told = value.astimezone(UTC)
    except OverflowError:
        told = None
    if told is None or told >= LATEST:
        message = f"must be a moment before {LATEST:%Y-%m-%dT%H:%M:%SZ}, and none before the year 1"
        raise ValueError(message)
    return told


def _as_text_or_object(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    # one error instead of one for each alternative
    try:
        to_json_text(value)
        checked_input(value)
        return handler(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    except (ValidationError, TranscriptError):
        message = "must be a text or a JSON object"
        raise ValueError(message) from None


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_as_rfc3339, json_schema_input_type=AwareDatetime),
    AfterValidator(_in_utc),
]
TextOrObject = Annotated[str | dict[str, JsonValue], WrapValidator(_as_text_or_object)]

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]
ThreadId = Annotated[str, StringConstraints(pattern=THREAD_ID_PATTERN)]


class Strict(BaseModel):
    """What is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def moment(seconds: float) -> datetime:
    """A moment in seconds since the epoch, as it is told; one beyond the calendar is its last, or its first, day."""
    return datetime.fromtimestamp(min(max(seconds, EARLIEST_SECONDS), LATEST_SECONDS), UTC)
