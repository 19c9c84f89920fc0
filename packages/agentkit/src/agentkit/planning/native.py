"""Planning with the provider's own tool calls."""

from __future__ import annotations

from agentkit.messages import ModelReply, ModelRequest, StopReason
from agentkit.planning.conversation import Brief, Conversation, Reading, cut_off, earlier_messages
from agentkit.transcript import Transcript


class NativePlanning:
    """Tools and schema are passed on as such; the reply is taken as it is."""

    def __init__(self) -> None:
        self._conversation = Conversation()

    def request(self, transcript: Transcript, brief: Brief) -> ModelRequest:
        """The conversation, the instructions, the tools and the schema."""
        return ModelRequest(
            messages=(*earlier_messages(brief.earlier), *self._conversation.of(transcript)),
            instructions=brief.instructions,
            tools=brief.tools,
            output_schema=brief.output_schema,
        )

    def read(self, reply: ModelReply, brief: Brief) -> Reading:
        """The reply's own parts; an empty or truncated reply is a problem, one that is only paused is not.

        An output of a schema shows by itself whether it is whole.
        """
        if reply.stop_reason is StopReason.PAUSED:
            return Reading(parts=reply.parts)
        if reply.stop_reason is StopReason.LENGTH:
            problem = cut_off(reply)
            return Reading(
                parts=tuple(part for part in reply.parts if part not in reply.tool_calls), problem=problem
            )
        wrong = reply.problem
        if reply.stop_reason is StopReason.UNFINISHED:
            wrong = wrong or "Your reply is not whole."
        if wrong is not None and (brief.output_schema is None or not reply.text.strip()):
            return Reading(parts=reply.parts, problem=wrong)
        if not (reply.tool_calls or reply.attachments or reply.text.strip()):
            return Reading(parts=reply.parts, problem="Your reply was empty.")
        return Reading(parts=reply.parts)
