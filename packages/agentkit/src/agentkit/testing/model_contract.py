"""Contract that every model keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, Protocol

from agentkit.errors import (
    ContentRefused,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimeout,
    ModelUnreachable,
)
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentkit.ports import Model
from agentkit.testing.models import as_reply


class Fault(StrEnum):
    """What can go wrong at a provider or on the way to it."""

    BAD_REQUEST = "bad request"
    CONTEXT_TOO_LONG = "context too long"
    BAD_KEY = "bad key"
    FORBIDDEN = "forbidden"
    NO_CREDIT = "no credit"
    UNKNOWN_MODEL = "unknown model"
    TOO_LARGE = "too large"
    FILTERED = "filtered"
    RATE_LIMITED = "rate limited, try again after 7 seconds"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server error"
    GATEWAY_TIMEOUT = "gateway timeout"
    DISCONNECT = "disconnect before the reply"
    DISCONNECT_MIDWAY = "disconnect in the middle of the reply"
    TRUNCATED = "reply ends in the middle, in good order"
    GARBLED = "garbled reply"
    WEB_PAGE = "a web page with status 200"
    ERROR_INSIDE = "an overload error inside a reply with status 200"
    SILENCE = "no answer until the client hangs up"
    SILENCE_MIDWAY = "the beginning of a reply, and then nothing until the client hangs up"


EXPECTED: Mapping[Fault, tuple[type[ModelError], ...]] = {
    Fault.BAD_REQUEST: (ModelBadRequest,),
    Fault.CONTEXT_TOO_LONG: (ContextTooLong,),
    Fault.BAD_KEY: (ModelAuthError,),
    Fault.FORBIDDEN: (ModelAuthError,),
    Fault.NO_CREDIT: (ModelAuthError,),
    Fault.UNKNOWN_MODEL: (ModelBadRequest,),
    Fault.TOO_LARGE: (ModelBadRequest,),
    Fault.FILTERED: (ContentRefused,),
    Fault.RATE_LIMITED: (ModelRateLimited,),
    Fault.OVERLOADED: (ModelOverloaded,),
    Fault.SERVER_ERROR: (ModelOverloaded,),
    Fault.GATEWAY_TIMEOUT: (ModelTimeout,),
    Fault.DISCONNECT: (ModelUnreachable,),
    Fault.DISCONNECT_MIDWAY: (ModelUnreachable, ModelBadResponse),
    Fault.TRUNCATED: (ModelBadResponse,),
    Fault.GARBLED: (ModelBadResponse,),
    Fault.WEB_PAGE: (ModelBadResponse,),
    Fault.ERROR_INSIDE: (ModelOverloaded,),
}


class ScriptedProvider(Protocol):
    """A model and its provider's stand-in, which the contract tells what to answer."""

    @property
    def model(self) -> Model:
        """The model under test, connected to the stand-in."""
        ...

    def answer(self, reply: ModelReply) -> None:
        """Answer the next request with ``reply``, in the provider's own words."""
        ...

    @property
    def heard(self) -> Sequence[ModelRequest]:
        """Every request so far, read back from the provider's wire; tools with their name, text and schema only.

        Reasoning is left out: it is in :attr:`thoughts`.
        """
        ...

    @property
    def thoughts(self) -> tuple[object, object]:
        """The reasoning of the last answer that had any, as it was sent, and all of it in the last request."""
        ...


class FaultyProvider(ScriptedProvider, Protocol):
    """A stand-in on a real connection, which can also go wrong."""

    @property
    def secret(self) -> str:
        """The key that the model sends."""
        ...

    def fail(self, fault: Fault) -> None:
        """Let the next request go wrong. Error texts quote the key and the prompt, as providers do."""
        ...

    async def asked(self) -> None:
        """Wait until a request has arrived that is met with silence."""
        ...

    async def hung_up(self) -> None:
        """Wait until the client has closed the connection of that request."""
        ...


ADD = ToolSpec(
    name="add",
    description="Adds.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)
PROMPT = "the quick brown fox, confidential"
PICTURE = Attachment(media_type="image/png", data=b"\x89PNG\r\n\x1a\n\x00\xff", name="dot.png")
PAPER = Attachment(media_type="application/pdf", data=b"%PDF-1.7\n\x00", name="paper.pdf")
LINKED = Attachment(media_type="image/jpeg", url="https://example.com/cat.jpg")


class ConversationContract:
    """What is said arrives, in both directions.

    Subclass it, give it a ``provider`` fixture (a :class:`ScriptedProvider`) and let pytest collect it; the tests are
    coroutines, for example for ``pytest-asyncio`` in its auto mode. Set ``streamed`` to have every reply streamed.
    """

    streamed: bool = False
    stop_reasons: frozenset[StopReason] = frozenset(StopReason) - {StopReason.UNFINISHED, StopReason.PAUSED}
    """Those that the provider has a word for."""
    takes: frozenset[str] = frozenset({"stop", "max_tokens", "temperature"})
    """The bounds that the provider knows."""
    counts: frozenset[str] = frozenset({"cached_tokens", "reasoning_tokens"})
    """The parts of the usage that the provider tells."""

    async def ask(self, provider: ScriptedProvider, request: ModelRequest) -> tuple[ModelReply, list[Delta]]:
        """The reply and what was seen of it on the way."""
        deltas: list[Delta] = []
        reply = await provider.model.reply(request, deltas.append if self.streamed else None)
        return reply, deltas

    async def exchange(self, provider: ScriptedProvider, *messages: Message) -> ModelRequest:
        """What the provider hears when these messages are sent."""
        provider.answer(as_reply("Noted."))
        await self.ask(provider, ModelRequest(messages=messages))
        return provider.heard[-1]

    async def test_a_text_is_answered(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply("It is 21 °C – in Oslo. 🌤️"))
        reply, _ = await self.ask(provider, _hello())
        assert reply.parts == (Text(text="It is 21 °C – in Oslo. 🌤️"),)
        assert reply.stop_reason is StopReason.END
        assert reply.model.partition(":")[0] == provider.model.name.partition(":")[0]
        assert provider.heard[-1].messages == _hello().messages

    async def test_pieces_add_up_to_the_text(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply("One two\nthree  four. "))
        reply, deltas = await self.ask(provider, _hello())
        seen = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        assert seen == (reply.text if self.streamed else "")
        assert not self.streamed or len(deltas) > 1, "the reply came in one piece"

    async def test_the_system_text_is_passed_on(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply("Aye."))
        await self.ask(provider, replace(_hello(), instructions="Answer as a pirate."))
        assert provider.heard[-1].instructions == "Answer as a pirate."

    async def test_all_turns_are_passed_on_in_order(self, provider: ScriptedProvider) -> None:
        said = AssistantMessage(parts=(Text(text="Hello."),))
        turns = (UserMessage(text="Hi"), said, UserMessage(text="How are you?"))
        assert (await self.exchange(provider, *turns)).messages == turns

    async def test_the_tools_are_passed_on(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply("No need."))
        await self.ask(provider, replace(_hello(), tools=(ADD,)))
        (heard,) = provider.heard[-1].tools
        assert (heard.name, heard.description, heard.parameters) == (
            ADD.name,
            ADD.description,
            ADD.parameters,
        )

    async def test_one_tool_call(self, provider: ScriptedProvider) -> None:
        call = ToolCall(id="call_1", name="add", arguments={"a": 1, "b": [{"ä": None}, 2.5, "“"]})
        provider.answer(as_reply(call))
        reply, _ = await self.ask(provider, replace(_hello(), tools=(ADD,)))
        assert reply.tool_calls == (call,)
        assert reply.stop_reason is StopReason.TOOL_CALLS

    async def test_parallel_tool_calls_with_a_text(self, provider: ScriptedProvider) -> None:
        calls = tuple(ToolCall(id=f"call_{n}", name="add", arguments={"a": n}) for n in range(3))
        said: tuple[Part, ...] = (Text(text="Let me see."), *calls)
        provider.answer(ModelReply(parts=said, stop_reason=StopReason.TOOL_CALLS))
        reply, _ = await self.ask(provider, replace(_hello(), tools=(ADD,)))
        assert reply.parts == said

    async def test_a_tool_call_without_arguments(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply(ToolCall(id="call_1", name="now")))
        reply, _ = await self.ask(provider, _hello())
        assert reply.tool_calls == (ToolCall(id="call_1", name="now"),)

    async def test_tool_results_and_tool_errors_are_passed_on(self, provider: ScriptedProvider) -> None:
        calls = tuple(ToolCall(id=f"call_{n}", name="add", arguments={"a": n}) for n in range(2))
        turns = (
            UserMessage(text="Add."),
            AssistantMessage(parts=(Text(text="Adding."), *calls)),
            ToolMessage(call_id="call_0", name="add", content="3"),
            ToolMessage(call_id="call_1", name="add", content="b is missing", is_error=True),
        )
        heard = (await self.exchange(provider, *turns)).messages
        assert heard == turns

    async def test_reasoning_is_kept_and_goes_back_unchanged(self, provider: ScriptedProvider) -> None:
        call = ToolCall(id="call_1", name="add", arguments={"a": 1, "b": 2})
        said = (Reasoning(text="They want a sum. – So: add."), Text(text="Adding."), call)
        provider.answer(ModelReply(parts=said, stop_reason=StopReason.TOOL_CALLS))
        reply, deltas = await self.ask(provider, replace(_hello(), tools=(ADD,)))
        thought = "".join(part.text for part in reply.parts if isinstance(part, Reasoning))
        assert thought == "They want a sum. – So: add."
        seen = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
        assert seen == (thought if self.streamed else "")
        assert (reply.text, reply.tool_calls) == ("Adding.", (call,))
        result = ToolMessage(call_id="call_1", name="add", content="3")
        await self.exchange(provider, *_hello().messages, AssistantMessage(parts=reply.parts), result)
        sent, returned = provider.thoughts
        assert sent
        assert returned == sent

    async def test_reasoning_of_another_provider_is_left_out(self, provider: ScriptedProvider) -> None:
        foreign = Reasoning(text="Hm.", data={"of_another": {"signature": "x"}})
        said = AssistantMessage(parts=(foreign, Text(text="Yes.")))
        heard = await self.exchange(provider, *_hello().messages, said, UserMessage(text="Why?"))
        assert heard.messages[1] == AssistantMessage(parts=(Text(text="Yes."),))

    async def test_images_and_documents_are_passed_on(self, provider: ScriptedProvider) -> None:
        asked = UserMessage(text="What is on these?", attachments=(PICTURE, PAPER, LINKED))
        (heard,) = (await self.exchange(provider, asked)).messages
        assert isinstance(heard, UserMessage)
        assert heard.text == asked.text
        assert [(each.media_type.split("/")[0], each.data, each.url) for each in heard.attachments] == [
            (each.media_type.split("/")[0], each.data, each.url) for each in asked.attachments
        ]

    async def test_a_document_of_plain_text_is_passed_on(self, provider: ScriptedProvider) -> None:
        notes = Attachment(media_type="text/markdown", data="# Nötes".encode(), name="notes.md")
        (heard,) = (await self.exchange(provider, UserMessage(text="Sum up.", attachments=(notes,)))).messages
        assert isinstance(heard, UserMessage)
        found = heard.text + "".join((each.data or b"").decode() for each in heard.attachments)
        assert "# Nötes" in found
        assert "Sum up." in found

    async def test_the_output_schema_is_passed_on(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply('{"a": 1}'))
        await self.ask(provider, replace(_hello(), output_schema=ADD.parameters))
        assert provider.heard[-1].output_schema == ADD.parameters

    async def test_the_bounds_are_passed_on(self, provider: ScriptedProvider) -> None:
        provider.answer(as_reply("Yes."))
        bounds: dict[str, Any] = {"stop": ("\n", "END"), "max_tokens": 7, "temperature": 0.5}
        known = {name: bounds[name] for name in self.takes}
        await self.ask(provider, replace(_hello(), **known))
        heard = provider.heard[-1]
        assert {name: getattr(heard, name) for name in known} == known

    async def test_usage(self, provider: ScriptedProvider) -> None:
        parts = {"cached_tokens": 64, "cache_write_tokens": 16, "reasoning_tokens": 10}
        told: dict[str, Any] = {name: count for name, count in parts.items() if name in self.counts}
        usage = replace(Usage(input_tokens=120, output_tokens=30), **told)
        provider.answer(replace(as_reply("Yes."), usage=usage))
        reply, _ = await self.ask(provider, _hello())
        assert replace(reply.usage, cost_usd=None) == usage

    async def test_stop_reasons(self, provider: ScriptedProvider) -> None:
        for reason in self.stop_reasons - {StopReason.TOOL_CALLS}:
            provider.answer(replace(as_reply("Cut."), stop_reason=reason))
            reply, _ = await self.ask(provider, _hello())
            assert (reply.text, reply.stop_reason) == ("Cut.", reason)

    async def test_many_at_once(self, provider: ScriptedProvider) -> None:
        for _ in range(20):
            provider.answer(as_reply("Yes."))
        replies = await asyncio.gather(*(self.ask(provider, _hello()) for _ in range(20)))
        assert [reply.text for reply, _ in replies] == ["Yes."] * 20


class ModelContract(ConversationContract):
    """The whole contract: what is said arrives, and what goes wrong is told in our words.

    The ``provider`` fixture gives a :class:`FaultyProvider`: a server that speaks the provider's wire on loopback.
    """

    expected: Mapping[Fault, tuple[type[ModelError], ...]] = EXPECTED
    """The errors that may tell each fault."""

    async def failure(self, provider: FaultyProvider, fault: Fault) -> ModelError:
        """How the model reports ``fault``."""
        provider.fail(fault)
        try:
            reply, _ = await self.ask(provider, ModelRequest(messages=(UserMessage(text=PROMPT),)))
        except ModelError as error:
            return error
        raise AssertionError(f"{fault}: no error, but {reply}")

    async def test_each_fault_is_told_in_our_words(self, provider: FaultyProvider) -> None:
        for fault, kinds in self.expected.items():
            error = await self.failure(provider, fault)
            assert type(error) in kinds, f"{fault}: {type(error).__name__}: {error}"

    async def test_nothing_is_tried_again(self, provider: FaultyProvider) -> None:
        for count, fault in enumerate(self.expected, start=1):
            await self.failure(provider, fault)
            assert len(provider.heard) == count, f"{fault}: asked again"

    async def test_errors_tell_neither_key_nor_prompt(self, provider: FaultyProvider) -> None:
        for fault in self.expected:
            error = await self.failure(provider, fault)
            told = f"{error} {error!r} {error.__cause__}"
            assert PROMPT not in told, f"{fault}: tells the prompt"
            assert provider.secret not in told, f"{fault}: tells the key"
        assert provider.secret not in f"{provider.model!r} {provider.model}"

    async def test_an_unknown_model_is_named(self, provider: FaultyProvider) -> None:
        error = await self.failure(provider, Fault.UNKNOWN_MODEL)
        assert provider.model.name.partition(":")[2] in str(error)

    async def test_how_long_to_wait_is_told(self, provider: FaultyProvider) -> None:
        error = await self.failure(provider, Fault.RATE_LIMITED)
        assert isinstance(error, ModelRateLimited)
        assert error.retry_after == 7

    async def test_a_fault_is_over_when_it_is_over(self, provider: FaultyProvider) -> None:
        for fault in self.expected:
            await self.failure(provider, fault)
            provider.answer(as_reply("Fine."))
            reply, _ = await self.ask(provider, _hello())
            assert reply.text == "Fine.", f"after {fault}"

    async def test_cancelling_closes_the_connection(self, provider: FaultyProvider) -> None:
        provider.fail(Fault.SILENCE)
        waiting = asyncio.create_task(self.ask(provider, _hello()))
        await provider.asked()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()
        await provider.hung_up()

    async def test_cancelling_in_the_middle_of_a_reply_closes_the_connection(
        self, provider: FaultyProvider
    ) -> None:
        if not self.streamed:  # nobody would know that it has begun
            return
        begun = asyncio.Event()
        provider.fail(Fault.SILENCE_MIDWAY)
        waiting = asyncio.create_task(provider.model.reply(_hello(), lambda _delta: begun.set()))
        await begun.wait()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()
        await provider.hung_up()


def _hello() -> ModelRequest:
    return ModelRequest(messages=(UserMessage(text="Hello"),))
