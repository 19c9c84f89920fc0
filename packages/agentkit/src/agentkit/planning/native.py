"""Planning with the provider's own tool calls."""

from __future__ import annotations

from agentkit.messages import ModelReply, ModelRequest, StopReason
from agentkit.planning.conversation import Brief, Conversation, Reading, cut_off
from agentkit.planning.thinking_tags import ONLY_THOUGHT, UNCLOSED, Spoken, SpokenDeltas, split_thinking
from agentkit.ports import OnDelta
from agentkit.transcript.steps import Transcript


class NativePlanning:
    """Tools and schema are passed on as such; the reply is taken as it is."""

    def __init__(self) -> None:
        self._conversation = Conversation()

    def request(self, transcript: Transcript, brief: Brief) -> ModelRequest:
        """The conversation, the instructions, the tools and the schema."""
        return ModelRequest(
            messages=self._conversation.of(transcript, brief.earlier),
            instructions=brief.instructions,
            tools=brief.tools,
            output_schema=brief.output_schema,
        )

    def read(self, reply: ModelReply, brief: Brief) -> Reading:
        """The reply's own parts, thinking told apart; an empty or truncated reply is a problem, a paused one is not.

        An output of a schema shows by itself whether it is whole.
        """
        spoken = split_thinking(reply.parts)
        if reply.stop_reason is StopReason.PAUSED:
            return Reading(parts=reply.parts)
        if reply.stop_reason is StopReason.LENGTH:
            return Reading(
                parts=tuple(part for part in spoken.parts if part not in reply.tool_calls),
                problem=cut_off(reply),
            )
        problem = reply.problem
        if reply.stop_reason is StopReason.UNFINISHED:
            problem = problem or "Your reply is not whole."
        if problem is not None and (brief.output_schema is None or not spoken.text.strip()):
            return Reading(parts=spoken.parts, problem=problem)
        if (
            brief.output_schema is not None
            and reply.attachments
            and not (reply.tool_calls or spoken.text.strip())
        ):
            return Reading(parts=spoken.parts, problem=_ONLY_MEDIA)
        return Reading(parts=spoken.parts, problem=_problem_with(reply, spoken))

    def watch(self, show: OnDelta, model: str) -> SpokenDeltas:
        """Show a streamed reply with its thinking told apart."""
        return SpokenDeltas(show, model)


_ONLY_MEDIA = (
    "Your reply holds an image or a recording, and no text. Answer in text, as JSON that fits the schema."
)


def _problem_with(reply: ModelReply, spoken: Spoken) -> str | None:
    if reply.tool_calls or reply.attachments:
        return None
    if not spoken.text.strip():
        return ONLY_THOUGHT if spoken.has_thoughts else "Your reply was empty."
    return UNCLOSED if spoken.is_unclosed else None
