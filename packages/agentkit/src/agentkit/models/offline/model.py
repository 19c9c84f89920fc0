"""The model itself: from a request to a reply, with nothing kept in between."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence

from agentkit.errors import ModelBadRequest
from agentkit.messages import (
    AssistantMessage,
    JsonValue,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    Reasoning,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.offline.answers import Unfit, as_json, in_words, not_understood
from agentkit.models.offline.calls import Call, members, unused
from agentkit.models.offline.goals import Goal, understand
from agentkit.models.offline.plan import Failed, Known, Ledger, State, Waiting
from agentkit.ports import OnDelta

CHARACTERS_PER_TOKEN = 4
_GOAL_FIELDS = ("goal", "question", "prompt", "text", "input", "task")
_CORRECTION = re.compile(
    r"\nPlease reply again\.\s*\Z|\AObservation\b|\AThe answer (?:must be JSON|does not satisfy)"
)


class OfflineModel:
    """A model without a network, a key or intelligence: a grammar that plans tool calls.

    For the quickstart, for demonstrations, and for tests of whatever runs agents: real tool calls through the same
    protocol as any model, and the same reply to the same request, always. It understands goals in English about
    arithmetic, dates, and counting, finding and reading in texts and files, and says so where it does not understand.

    It keeps nothing: what is to be done next follows from the request alone. Calls that do not depend on each other are
    made in one reply. Each call is made once; where a file is not found it is looked for once in other folders.

    Args:
        name: what follows ``offline:`` in the model's name.
    """

    def __init__(self, name: str = "planner") -> None:
        self._name = f"offline:{name}"

    @property
    def name(self) -> str:
        """``offline:`` and the name given."""
        return self._name

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """The next tool calls, or the final text; with ``on_delta`` the text is passed on word by word.

        The usage is an estimate, a token for every four characters; the cost is zero.

        Raises:
            ModelBadRequest: there are attachments, which it cannot look at.
        """
        if any(
            isinstance(message, UserMessage | ToolMessage) and message.attachments
            for message in request.messages
        ):
            raise ModelBadRequest(f"{self.name} reads text only: it cannot look at attachments")
        decided = decide(request)
        parts: tuple[Part, ...]
        if isinstance(decided, str):
            text, stop_reason = _within(_labelled(decided, request), request)
            parts = (Text(text=text),)
            if on_delta is not None:
                await _stream(text, on_delta)
        else:
            parts, stop_reason = decided, StopReason.TOOL_CALLS
        return ModelReply(parts=parts, stop_reason=stop_reason, usage=_usage(request, parts), model=self.name)


def decide(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """What comes next: tool calls, or the final text."""
    place = _goal_place(request.messages)
    if place is None:
        return not_understood("")
    goal = understand(_goal_text(request.messages[place]))
    if not isinstance(goal, Goal):
        return not_understood(goal.rest)
    states = Ledger(request.messages[place + 1 :], request.tools).states(goal.parts)
    waiting = [made for _, state in states if isinstance(state, Waiting) for made in state.calls]
    if waiting:
        return _numbered(waiting, request.messages)
    return _final(goal, states, request)


def _numbered(calls: Iterable[ToolCall], messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The calls, equal ones once, with ids that are unique in the conversation."""
    replies = sum(isinstance(message, AssistantMessage) for message in messages)
    different = {json.dumps([call.name, call.arguments]): call for call in calls}
    return tuple(
        ToolCall(id=f"offline_{replies}_{place}", name=call.name, arguments=call.arguments)
        for place, call in enumerate(different.values())
    )


def _final(goal: Goal, states: Sequence[tuple[Call, State]], request: ModelRequest) -> str:
    known = [(call, state) for call, state in states if isinstance(state, Known)]
    failures = [state for _, state in states if isinstance(state, Failed)]
    sentence = in_words(known, failures)
    if request.output_schema is None or failures:
        return sentence
    answers = {goal.parts[place] for place in unused(goal.parts)}
    last = [state.value for call, state in known if call in answers]
    try:
        return as_json(request.output_schema, [state.value for _, state in known], last, sentence)
    except Unfit:
        return (
            f"The offline model cannot put its answer into the form that is asked for. In words: {sentence}"
        )


def _goal_place(messages: Sequence[Message]) -> int | None:
    """Where the goal stands: the last message of the user that corrects nothing."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, UserMessage) and not (place and _CORRECTION.search(message.text)):
            return place
    return None


def _goal_text(message: Message) -> str:
    """The goal itself, also where the input is an object with the goal as a member."""
    text = message.text if isinstance(message, UserMessage) else ""
    try:
        given: JsonValue = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return text
    goals = (members(given).get(field) for field in _GOAL_FIELDS)
    return next((goal for goal in goals if isinstance(goal, str)), text)


def _labelled(text: str, request: ModelRequest) -> str:
    """Where the agent plans in text, it wants the answer marked as such; this model then is offered no tools."""
    return f"Final Answer: {text}" if "\nFinal Answer:" in request.instructions else text


def _within(text: str, request: ModelRequest) -> tuple[str, StopReason]:
    """The text as far as the request allows."""
    stops = [place for stop in request.stop if stop and (place := text.find(stop)) >= 0]
    text = text[: min(stops)] if stops else text
    if request.max_tokens is not None and len(text) > request.max_tokens * CHARACTERS_PER_TOKEN:
        return text[: request.max_tokens * CHARACTERS_PER_TOKEN], StopReason.LENGTH
    return text, StopReason.END


async def _stream(text: str, on_delta: OnDelta) -> None:
    for piece in re.findall(r"\s*\S+\s*|\s+", text):
        on_delta(TextDelta(text=piece))
        await asyncio.sleep(0)  # others have their turn, and a cancellation arrives


def _usage(request: ModelRequest, parts: Sequence[Part]) -> Usage:
    written = [message.parts for message in request.messages if isinstance(message, AssistantMessage)]
    said = [
        message.content if not isinstance(message, UserMessage) else message.text
        for message in request.messages
        if not isinstance(message, AssistantMessage)
    ]
    characters = (
        len(request.instructions) + sum(map(len, said)) + sum(_characters(reply) for reply in written)
    )
    characters += sum(
        len(tool.name) + len(tool.description) + len(json.dumps(tool.parameters)) for tool in request.tools
    )
    return Usage(input_tokens=_tokens(characters), output_tokens=_tokens(_characters(parts)), cost_usd=0.0)


def _characters(parts: Sequence[Part]) -> int:
    return sum(
        len(part.name) + len(json.dumps(part.arguments)) if isinstance(part, ToolCall) else len(part.text)
        for part in parts
        if isinstance(part, Text | Reasoning | ToolCall)
    )


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
