"""Replies of a real model, recorded once and replayed in tests: :func:`replay`.

A recording is a file of JSON lines. The first names the model; each other one is an exchange: what was asked (see
:mod:`agentkit.testing.canonical`), and the reply. It is written when the block ends without an exception, in one piece:
there is never half of one. What a request has in common with an earlier one is not repeated, so that a long run makes
a file of linear size that reads like the conversation.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from agentkit.errors import TranscriptError, UsageError
from agentkit.messages import BegunAnew, Delta, ModelReply, ModelRequest, ReasoningDelta, TextDelta
from agentkit.models import opened
from agentkit.ports import Model, OnDelta
from agentkit.testing.canonical import canonical, differences
from agentkit.testing.models import pieces
from agentkit.transcript.codec import step_from_json, step_to_json
from agentkit.transcript.steps import ModelReplied
from agentkit.untrusted.secrets import SECRET, without_keys

Record: TypeAlias = Literal["once", "never", "always"]
"""When the real model is called: where there is no recording yet, never, or always (which records anew)."""

VERSION = 1
_MAX_TOLD = 6


class RecordingDiffers(UsageError, AssertionError):
    """What was asked is not what was recorded."""

    code = "recording_differs"


@dataclass(slots=True)
class _Exchange:
    """One request and its reply, as they are in the file."""

    request: dict[str, Any]
    reply: ModelReply
    deltas: Sequence[TextDelta | ReasoningDelta]
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """How texts are made comparable, and fit to be kept."""

    secrets: Sequence[str]
    ignore: Sequence[re.Pattern[str]]

    def without_secrets(self, value: Any) -> Any:
        return _in_texts_of(value, self._cut)

    def compared(self, request: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = _in_texts_of(request, self._blur)
        return found | {"messages": list(_in_order_of_calls(found.get("messages", [])))}

    def _cut(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, SECRET)
        return without_keys(text)

    def _blur(self, text: str) -> str:
        for pattern in self.ignore:
            text = pattern.sub("…", text)
        return text


def _in_order_of_calls(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Results that stand together, in the order of their calls; earlier releases told them as they came back."""
    for is_result, group in groupby(messages, lambda message: message.get("is") == "tool_message"):
        found = list(group)
        yield from sorted(found, key=_number_of_call) if is_result else found


def _number_of_call(message: dict[str, Any]) -> int:
    number = str(message.get("call_id", "")).removeprefix("#")
    return int(number) if number.isdecimal() else 0


@contextmanager
def replay(
    path: str | Path,
    *,
    model: str | Model | None = None,
    record: Record = "once",
    secrets: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Generator[Replay, None, None]:
    """A model that replays the recording at ``path``, and makes it where ``record`` says so.

    ::

        with replay("run.jsonl", model="openai:gpt-5.5") as model:
            outcome = Agent(model, tools=[search]).run_sync("Who wrote it?")

    A request gets the reply that was recorded for the same request, in whatever order and however many runs there are
    at once; the same request twice gets two recorded replies in their order. Every recorded reply must be asked for.

    Args:
        path: the recording, a file of JSON lines; its folder is made where there is none.
        model: what is called to record, by name or open; may be left out where nothing is recorded.
        record: ``once`` calls the model where there is no file yet, ``never`` does not call it (for CI), ``always``
            records anew.
        secrets: texts that must not get into the file. What looks like a key is left out in any case, and keys of
            providers never reach the port at which this sits.
        ignore: regular expressions of what may differ in a request: dates, paths, versions.

    Raises:
        UsageError: there is no recording and none may be made, or the file cannot be read.
        RecordingDiffers: something else was asked than was recorded, or less. It is raised to whoever asked, which ends
            the run, and again at the end of the block where nothing else was raised.
    """
    if record not in get_args(Record):
        raise UsageError(f"record is one of {', '.join(get_args(Record))}, not {record!r}")
    terms = _Terms(
        secrets=[secret for secret in secrets if secret], ignore=[re.compile(pattern) for pattern in ignore]
    )
    path = Path(path)
    recording = record == "always" or (record == "once" and not path.exists())
    made = _Recorder(path, model, terms) if recording else _Player(path, model, terms)
    try:
        yield made
    except Exception as error:
        if made.difference is not None and not isinstance(error, RecordingDiffers):
            error.add_note(str(made.difference))
        raise
    made.close()


class Replay(ABC):
    """An open recording, as a model. See :func:`replay`.

    Attributes:
        difference: the first request that was not the recorded one.
    """

    difference: RecordingDiffers | None = None

    def __init__(self, path: Path, name: str, terms: _Terms) -> None:
        self._path = path
        self._name = name
        self._terms = terms
        self._exchanges: list[_Exchange] = []

    @property
    def name(self) -> str:
        """``provider:name`` of the real model."""
        return self._name

    @abstractmethod
    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """The reply to ``request``: recorded earlier, or now.

        Raises:
            RecordingDiffers: none is recorded.
            ModelError: recording, the model gave no usable reply.
        """

    @abstractmethod
    def close(self) -> None:
        """What is due when all was asked."""

    def _said(self, request: ModelRequest) -> dict[str, Any]:
        said: dict[str, Any] = self._terms.without_secrets(canonical(request))
        return said


class _Recorder(Replay):
    """Asks the real model, and keeps what it says."""

    def __init__(self, path: Path, model: str | Model | None, terms: _Terms) -> None:
        if model is None:
            raise UsageError(f"there is no recording {path}: say which model= shall be recorded")
        super().__init__(path, model if isinstance(model, str) else model.name, terms)
        self._model = model
        self._failed = False

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        deltas: list[TextDelta | ReasoningDelta] = []

        def tell(delta: Delta) -> None:
            if isinstance(delta, BegunAnew):  # what was shown before is void
                deltas.clear()
            else:
                deltas.append(delta)
            if on_delta is not None:
                on_delta(delta)

        said = self._said(request)
        try:
            async with opened(
                self._model
            ) as model:  # a block without an event loop cannot close it at its end
                reply = await model.reply(request, None if on_delta is None else tell)
        except BaseException:
            self._failed = True
            raise
        self._exchanges.append(_Exchange(said, reply, deltas))
        return reply

    def close(self) -> None:
        if self._failed or not self._exchanges:
            return  # not a whole recording: the next time asks again
        lines = [{"recording": VERSION, "model": self._name}, *_lines(self._exchanges, self._terms)]
        text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(self._path)


class _Player(Replay):
    """Says what was recorded, and calls nobody."""

    def __init__(self, path: Path, model: str | Model | None, terms: _Terms) -> None:
        name, exchanges = _read(path)
        wanted = model if isinstance(model, str | None) else model.name
        if wanted not in (None, name):
            raise UsageError(
                f"{path} is a recording of {name}, not of {wanted}: delete it, or record='always'"
            )
        super().__init__(path, name, terms)
        self._exchanges = exchanges
        self._compared = [terms.compared(exchange.request) for exchange in exchanges]

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        asked = self._terms.compared(self._said(request))
        for exchange, recorded in zip(self._exchanges, self._compared, strict=True):
            if not exchange.used and recorded == asked:
                exchange.used = True
                for delta in (exchange.deltas or pieces(exchange.reply)) if on_delta else ():
                    on_delta(delta)  # type: ignore[misc]
                return exchange.reply
        difference = RecordingDiffers(self._describe_difference(asked))
        self.difference = self.difference or difference
        raise difference

    def close(self) -> None:
        if self.difference is not None:
            raise self.difference
        if left := [number for number, each in enumerate(self._exchanges, start=1) if not each.used]:
            raise RecordingDiffers(
                f"{self._path}: of {len(self._exchanges)} recorded replies, these were never asked for: {left}"
                f"{_HOW_TO_RECORD}"
            )

    def _describe_difference(self, asked: dict[str, Any]) -> str:
        """What the request differs in from the recorded one that is most like it."""
        if asked in self._compared:
            times = self._compared.count(asked)
            return (
                f"{self._path}: this request was recorded {times} times and is made once more{_HOW_TO_RECORD}"
            )
        unused = [number for number, each in enumerate(self._exchanges) if not each.used]
        candidates = unused or range(len(self._exchanges))
        number, found = min(
            ((number, differences(self._compared[number], asked)) for number in candidates),
            key=lambda candidate: len(candidate[1]),
        )
        more = [f"… and {len(found) - _MAX_TOLD} more"] if len(found) > _MAX_TOLD else []
        used = "" if unused else " (all of them have been used)"
        told = "".join(f"\n  {line}" for line in [*found[:_MAX_TOLD], *more])
        return (
            f"{self._path}: a request that was not recorded; the nearest is number {number + 1} of "
            f"{len(self._exchanges)}{used}, from which it differs in{told}{_HOW_TO_RECORD}"
        )


_HOW_TO_RECORD = "\n  Where that is meant: record anew (record='always'), or delete the file."


# --- the file ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Chain:
    """Requests so far, so that the next one need not repeat what it shares with one of them."""

    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def shortened(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is new in ``request``, and ``after`` which request (counted from 1) it comes."""
        said, rest = request["messages"], {name: each for name, each in request.items() if name != "messages"}
        for number in range(len(self.requests), 0, -1):
            earlier = self.requests[number - 1]
            length = len(earlier["messages"])
            same = all(earlier.get(name) == rest.get(name) for name in {*earlier, *rest} - {"messages"})
            if same and said[:length] == earlier["messages"]:
                self.requests.append(request)
                return {"after": number, "messages": said[length:]}
        self.requests.append(request)
        return request

    def whole(self, short: Mapping[str, Any]) -> dict[str, Any]:
        """The request that was shortened to ``short``."""
        found = dict(short)
        after = found.pop("after", None)
        if after is not None:
            earlier = self.requests[int(after) - 1]
            found = {**earlier, "messages": [*earlier["messages"], *found["messages"]]}
        self.requests.append(found)
        return found


def _lines(exchanges: Sequence[_Exchange], terms: _Terms) -> Iterable[dict[str, Any]]:
    chain = _Chain()
    for exchange in exchanges:
        reply = exchange.reply
        said = ModelReplied(
            parts=reply.parts, stop_reason=reply.stop_reason, usage=reply.usage, model=reply.model
        )
        line = {
            "request": chain.shortened(exchange.request),
            "reply": terms.without_secrets(step_to_json(said)),
        }
        told = "".join(delta.text for delta in exchange.deltas)
        if (
            told and terms.without_secrets(told) == told
        ):  # one that was cut in two would not be seen in the pieces
            line["deltas"] = [[type(delta).__name__, delta.text] for delta in exchange.deltas]
        yield line


_DELTAS: Mapping[str, Callable[..., TextDelta | ReasoningDelta]] = {
    kind.__name__: kind for kind in (TextDelta, ReasoningDelta)
}


def _read(path: Path) -> tuple[str, list[_Exchange]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no recording {path}, and record='never' makes none") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    number = 0
    chain, exchanges = _Chain(), list[_Exchange]()
    try:
        first, *rest = text.removesuffix("\n").split("\n")
        name = _model_of(json.loads(first), path)
        for number, line in enumerate(rest, start=1):  # noqa: B007  (the error names the line)
            exchanges.append(_exchange(json.loads(line), chain))
    except (TranscriptError, ValueError, KeyError, TypeError, IndexError) as error:
        what = f"not a recorded exchange ({type(error).__name__})"
        raise UsageError(f"{path}, line {number + 1}: {what}") from None
    return name, exchanges


def _model_of(header: Mapping[str, Any], path: Path) -> str:
    if header["recording"] != VERSION:
        raise UsageError(f"{path} is of form {header['recording']}; this release reads {VERSION}: upgrade it")
    return str(header["model"])


def _exchange(line: Mapping[str, Any], chain: _Chain) -> _Exchange:
    said = cast("ModelReplied", step_from_json(line["reply"]))
    reply = ModelReply(parts=said.parts, stop_reason=said.stop_reason, usage=said.usage, model=said.model)
    deltas = [_DELTAS[kind](text=text) for kind, text in line.get("deltas", ())]
    return _Exchange(chain.whole(line["request"]), reply, deltas)


def _in_texts_of(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _in_texts_of(each, change) for key, each in items}
    if isinstance(value, list | tuple):
        return [_in_texts_of(each, change) for each in cast("Sequence[Any]", value)]
    return value
