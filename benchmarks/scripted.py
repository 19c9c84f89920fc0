"""A model that replies at once, and the loop that anybody would write around it by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate

from agentkit import tool
from agentkit.messages import (
    AssistantMessage,
    ModelReply,
    ModelRequest,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentkit.transcript.steps import ToolReturned, Transcript

USAGE = Usage(input_tokens=100, output_tokens=20)


class Scripted:
    """Asks for calls of one tool, turn by turn, then says "done". Holds nothing of any run.

    Args:
        calls: so many calls in each turn.
        tool: the name of the tool.
    """

    name = "scripted:model"

    def __init__(self, calls: Sequence[int], tool: str = "add") -> None:
        turns = [self._turn(number, count, tool) for number, count in enumerate(calls)]
        done = ModelReply(parts=(Text(text="done"),), usage=USAGE, model=self.name)
        # a turn adds one message of the model and one for each result: the length of the conversation tells the turn
        lengths = accumulate((count + 1 for count in calls), initial=1)
        self.replies: Mapping[int, ModelReply] = dict(zip(lengths, [*turns, done], strict=True))
        self.steps = sum(calls) + len(calls) + 3  # with the beginning, the last reply and the end

    def _turn(self, number: int, count: int, tool: str) -> ModelReply:
        calls = (
            ToolCall(id=f"call_{number}_{index}", name=tool, arguments={"a": number, "b": index})
            for index in range(count)
        )
        return ModelReply(parts=tuple(calls), stop_reason=StopReason.TOOL_CALLS, usage=USAGE, model=self.name)

    async def reply(self, request: ModelRequest, on_delta: object = None) -> ModelReply:
        return self.replies[len(request.messages)]


async def plain_add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


def plain_add_in_a_thread(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


add = tool(effect="pure", name="add")(plain_add)
add_in_a_thread = tool(effect="pure", name="add")(plain_add_in_a_thread)


def has_failures(transcript: Transcript) -> bool:
    """Whether a call has failed: such a run is not what is to be measured."""
    return any(isinstance(recorded.step, ToolReturned) and recorded.step.error for recorded in transcript)


async def by_hand(
    model: Scripted,
    function: Callable[[int, int], Awaitable[int]],
    specs: tuple[ToolSpec, ...],
) -> str:
    """The least that a loop can be: no check, no limit, no policy, no events, nothing to resume from.

    Args:
        model: asked again and again.
        function: the only tool.
        specs: what the model is told of it.
    """
    messages: list[UserMessage | AssistantMessage | ToolMessage] = [UserMessage(text="go")]
    while True:
        reply = await model.reply(ModelRequest(messages=tuple(messages), tools=specs))
        messages.append(AssistantMessage(parts=reply.parts))
        calls = reply.tool_calls
        if not calls:
            return reply.text
        if len(calls) == 1:
            results = [await function(**calls[0].arguments)]
        else:
            results = await asyncio.gather(*(function(**call.arguments) for call in calls))
        for call, result in zip(calls, results, strict=True):
            messages.append(ToolMessage(call_id=call.id, name=call.name, content=str(result)))
