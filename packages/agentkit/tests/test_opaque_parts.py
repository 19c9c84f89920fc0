"""Opaque data belongs to who wrote it: it goes back there, in its place, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from agentkit import Agent, Completed, Failed, tool
from agentkit.errors import ModelBadRequest
from agentkit.messages import (
    AssistantMessage,
    ModelReply,
    ModelRequest,
    Opaque,
    StopReason,
    ToolMessage,
    UserMessage,
)
from agentkit.models.credentials import Extras
from agentkit.models.resilience.retry import Retries
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.journals import MemoryJournal
from agentkit.transcript.steps import ModelReplied, RunStarted

from .wire_server import KEY, as_events, as_json  # type: ignore[import-not-found]
from .wires import Call, Served, anthropic, body, google, response, said, served  # type: ignore[import-not-found]

HELLO = UserMessage(text="Weather in Oslo?")
SECRET = "b3BhcXVl"  # base64, as signatures are


@tool(effect="pure")
def weather(city: str) -> str:
    """Weather in a city."""
    return f"{city}: 7 degrees"


def chat_call(**more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    return {"id": "call_1", "type": "function", "function": function, **more}


RESPONSE_CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Oslo"}',
}
THOUGHT: dict[str, Any] = {
    "type": "reasoning",
    "id": "rs_1",
    "status": None,
    "summary": [],
    "encrypted_content": SECRET,
}
SIGNED = {"google": {"thought_signature": SECRET}}
CALLS = {
    "chat, reasoning": ("chat", body("chat", calls=[Call("call_1")], reasoning_content=f"Oslo {SECRET}")),
    "chat, call": ("chat", body("chat", tool_calls=[chat_call(extra_content=SIGNED)])),
    "chat, message": ("chat", body("chat", calls=[Call("call_1")], extra_content=SIGNED)),
    "openrouter": (
        "openrouter",
        body("openrouter", calls=[Call("call_1")], reasoning_details=[{"type": "x", "data": SECRET}]),
    ),
    "responses": ("responses", response(THOUGHT, RESPONSE_CALL)),
    "anthropic": (
        "anthropic",
        anthropic(
            {"type": "thinking", "thinking": "Oslo", "signature": SECRET},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        ),
    ),
    "google": (
        "google",
        google({"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": SECRET}),
    ),
}


async def ran(first: Served, second: Served) -> Any:
    """The second request of a run that began at ``first``, which then fails; both are of one wire."""
    first.server.plan(as_json({"error": {"message": "overloaded"}}, status=503))
    second.answers(body(second.kind, "7 degrees"))
    agent = Agent(first.model, fallback=[second.model], tools=[weather], retries=Retries(tries=1))
    assert isinstance(await agent.run("Weather in Oslo?"), Completed)
    return second.sent[-1]


@pytest.mark.parametrize("case", CALLS)
async def test_it_goes_back_to_who_wrote_it(case: str) -> None:
    kind, first = CALLS[case]
    async with served(kind) as one:
        one.answers(first, body(kind, "7 degrees"))
        assert isinstance(await Agent(one.model, tools=[weather]).run("Weather in Oslo?"), Completed)
        assert SECRET in json.dumps(one.sent[-1])


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("other", ["provider", "model", "address"])
async def test_a_fallback_of_the_same_wire_gets_none_of_it(case: str, other: str) -> None:
    kind, first = CALLS[case]
    more = {"provider": "second"} if other == "provider" else {}
    async with served(kind) as one, served(kind, "n" if other == "model" else "m", **more) as two:
        one.answers(first)
        sent = json.dumps(await ran(one, two))
        assert SECRET not in sent
        assert "reasoning_content" not in sent
        assert "Oslo" in sent  # the call itself is told


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("kind", ["chat", "responses", "anthropic", "google"])
async def test_a_fallback_of_another_wire_gets_none_of_it(case: str, kind: str) -> None:
    async with served(CALLS[case][0]) as one, served(kind, "other") as two:
        one.answers(CALLS[case][1])
        assert SECRET not in json.dumps(await ran(one, two))


@pytest.mark.parametrize("case", CALLS)
async def test_a_run_that_goes_on_with_another_model_sends_none_of_it(case: str) -> None:
    kind, first = CALLS[case]
    journal = MemoryJournal()
    async with served(kind) as one, served(kind, "newer") as two:
        one.answers(first)
        one.server.plan(as_json({"error": {"message": "overloaded"}}, status=503))
        await Agent(one.model, tools=[weather]).run("Weather in Oslo?", journal=journal)
        two.answers(body(kind, "7 degrees"))
        assert isinstance(await Agent(two.model, tools=[weather]).run(journal=journal), Completed)
        assert SECRET not in json.dumps(two.sent[-1])


@pytest.mark.parametrize("model, goes_back", [("openai:m-2026-01-01", True), ("deepseek:m", False)])
async def test_of_an_older_transcript_the_provider_that_answered_decides(model: str, goes_back: bool) -> None:
    line = {
        "v": 1,
        "kind": "model_replied",
        "model": model,
        "stop_reason": "tool_calls",
        "parts": [
            {"kind": "reasoning", "text": SECRET, "data": {"openai_field": "reasoning_content"}},
            {"kind": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Oslo"}},
        ],
    }
    journal = MemoryJournal()
    await journal.append(RunStarted(run_id="r", agent="agent", input="Weather in Oslo?"))
    await journal.append(decode_step(json.dumps(line)))
    async with served("chat") as one:
        one.answers(body("chat", "7 degrees"))
        assert isinstance(await Agent(one.model, tools=[weather]).run(journal=journal), Completed)
        assert (SECRET in json.dumps(one.sent[-1])) is goes_back


async def test_what_a_call_carries_goes_back_from_a_stream_as_well() -> None:
    def piece(**more: Any) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": more, "finish_reason": None}]}

    end = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    call = chat_call(index=0)
    call["function"] = {"name": "weather", "arguments": '{"city":'}
    rest = {"index": 0, "function": {"arguments": '"Oslo"}'}, "extra_content": SIGNED}
    async with served("chat") as one:
        one.server.plan(as_events([piece(tool_calls=[call]), piece(tool_calls=[rest]), end]))
        one.server.plan(as_events([piece(content="7 degrees"), {**end}]))
        agent = Agent(one.model, tools=[weather])
        assert isinstance(await agent.run("Weather?", on_event=lambda _event: None), Completed)
        assert one.sent[-1]["messages"][1]["tool_calls"][0]["extra_content"] == SIGNED


# --- what the model of another provider must be told instead -----------------------------------------------------


async def test_gemini_3_gets_a_mark_on_the_first_call_of_another_model() -> None:
    async with served("anthropic") as one, served("google", "gemini-3-flash") as two:
        one.answers(body("anthropic", calls=[Call("toolu_1"), Call("toolu_2", "Rome")]))
        sent = await ran(one, two)
        marks = [part.get("thoughtSignature") for part in sent["contents"][1]["parts"]]
        assert marks == ["c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=", None]


@pytest.mark.parametrize("name", ["gemini-2.5-flash", "tiny"])
async def test_models_that_sign_nothing_get_no_mark(name: str) -> None:
    async with served("anthropic") as one, served("google", name) as two:
        one.answers(body("anthropic", calls=[Call("toolu_1")]))
        assert "thoughtSignature" not in json.dumps(await ran(one, two))


# --- items that only their provider can read ---------------------------------------------------------------------

SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "O"},
}
SECOND = {**THOUGHT, "id": "rs_2"}
SERVER_USE = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}}
SERVER_RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"encrypted": SECRET}],
}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(7)"}, "thoughtSignature": SECRET}
RESULT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "7\n"}}


async def second(kind: str, first: dict[str, Any], **more: Any) -> tuple[ModelReply, Any]:
    """A reply, and the request that carries it back."""
    async with served(kind, **more) as one:
        one.answers(first, body(kind, "done"))
        reply = await one.model.reply(ModelRequest(messages=(HELLO,)))
        step = ModelReplied(parts=reply.parts, stop_reason=reply.stop_reason, model=reply.model)
        assert decode_step(encode_step(step)) == step
        goes_on: list[Any] = [
            ToolMessage(call_id=call.id, name=call.name, content="7") for call in reply.tool_calls
        ] or [UserMessage(text="Go on.")]
        await one.model.reply(ModelRequest(messages=(HELLO, AssistantMessage(parts=reply.parts), *goes_on)))
        return reply, one.sent[-1]


async def test_items_of_responses_go_back_in_their_places_without_the_ids_of_reasoning() -> None:
    _, sent = await second("responses", response(THOUGHT, SEARCH, SECOND, said("7 degrees")))
    thought = {"type": "reasoning", "summary": [], "encrypted_content": SECRET}
    assert sent["input"][1:5] == [thought, SEARCH, thought, {"role": "assistant", "content": "7 degrees"}]


async def test_the_phase_of_a_message_and_plain_reasoning_go_back() -> None:
    plain = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm"}],
    }
    _, sent = await second(
        "responses", response(plain, said("Let me look.", phase="commentary"), RESPONSE_CALL)
    )
    assert sent["input"][1] == {"type": "reasoning", "summary": [], "content": plain["content"]}
    assert sent["input"][2] == {"role": "assistant", "content": "Let me look.", "phase": "commentary"}


async def test_a_summary_that_only_the_provider_could_look_up_does_not_go_back() -> None:
    _, sent = await second("responses", response({**THOUGHT, "encrypted_content": None}, said("7 degrees")))
    assert [item.get("role") for item in sent["input"]] == ["user", "assistant", "user"]


async def test_blocks_of_anthropic_go_back_in_their_places() -> None:
    thinking = {"type": "thinking", "thinking": "Hm", "signature": SECRET}
    cited = {
        "type": "text",
        "text": "7.",
        "citations": [{"type": "web_search_result_location", "url": "https://o.no"}],
    }
    blocks = [thinking, SERVER_USE, SERVER_RESULT, cited]
    _, sent = await second("anthropic", anthropic(*blocks))
    assert sent["messages"][1]["content"] == blocks


async def test_blocks_of_a_stream_of_anthropic_go_back_whole() -> None:
    blocks: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({**SERVER_USE, "input": {}}, [{"type": "input_json_delta", "partial_json": '{"query": "Oslo"}'}]),
        (SERVER_RESULT, []),
        ({"type": "compaction", "content": ""}, [{"type": "compaction_delta", "content": "So far."}]),
        (
            {"type": "text", "text": ""},
            [
                {"type": "text_delta", "text": "7."},
                {"type": "citations_delta", "citation": {"type": "page_location"}},
            ],
        ),
    ]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**anthropic(), "stop_reason": None}}
    ]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    async with served("anthropic") as one:
        one.server.plan(as_events(events, done=False))
        one.answers(body("anthropic", "done"))
        reply = await one.model.reply(ModelRequest(messages=(HELLO,)), lambda _delta: None)
        messages = (HELLO, AssistantMessage(parts=reply.parts), UserMessage(text="Go on."))
        await one.model.reply(ModelRequest(messages=messages))
        assert one.sent[-1]["messages"][1]["content"] == [
            SERVER_USE,
            SERVER_RESULT,
            {"type": "compaction", "content": "So far."},
            {"type": "text", "text": "7.", "citations": [{"type": "page_location"}]},
        ]


async def test_code_that_gemini_ran_goes_back_with_its_signature() -> None:
    _, sent = await second("google", google(CODE, RESULT, {"text": "It is 7."}))
    assert sent["contents"][1]["parts"] == [CODE, RESULT, {"text": "It is 7."}]


async def test_a_turn_that_anthropic_has_paused_goes_on() -> None:
    paused = anthropic({"type": "text", "text": "I look."}, SERVER_USE, stop_reason="pause_turn")
    search = {"type": "web_search_20250305", "name": "web_search"}
    async with served("anthropic", extras=Extras(body={"tools": [search]})) as one:
        one.answers(paused, anthropic(SERVER_RESULT, {"type": "text", "text": "7 degrees."}))
        outcome = await Agent(one.model).run("Weather in Oslo?")
        assert isinstance(outcome, Completed)
        assert outcome.output == "7 degrees."
        assert [message["role"] for message in one.sent[-1]["messages"]] == ["user", "assistant"]
        assert one.sent[-1]["messages"][1]["content"][-1] == SERVER_USE
        replies = [one.step for one in outcome.transcript if isinstance(one.step, ModelReplied)]
        assert [reply.stop_reason for reply in replies] == [StopReason.PAUSED, StopReason.END]


FOUND = {"type": "text", "text": "I look."}


@pytest.mark.parametrize("kind", ["chat", "openrouter", "responses", "anthropic", "google"])
@pytest.mark.parametrize(
    "said", [[FOUND, SERVER_USE], [FOUND], [SERVER_USE]], ids=["text+use", "text", "use"]
)
async def test_a_paused_turn_is_carried_on_by_another_provider(kind: str, said: list[dict[str, Any]]) -> None:
    """It is sent no conversation that ends with a turn of the model, and neither is the first one afterwards."""
    paused = anthropic(*said, stop_reason="pause_turn")
    search = {"type": "web_search_20250305", "name": "web_search"}
    async with (
        served("anthropic", extras=Extras(body={"tools": [search]})) as one,
        served(kind, provider="other") as other,
    ):
        one.answers(paused)
        one.server.plan(as_json({"type": "error", "error": {"type": "overloaded_error"}}, status=529))
        other.answers(body(kind, calls=[Call("call_1")]))
        one.answers(anthropic({"type": "text", "text": "7 degrees."}))
        agent = Agent(one.model, fallback=[other.model], tools=[weather], retries=Retries(tries=1))
        outcome = await agent.run("Weather in Oslo?")
        assert isinstance(outcome, Completed)
        sent, again = other.sent[0], one.sent[-1]
    turns = sent.get("messages") or sent.get("input") or sent["contents"]
    roles = [turn["role"] for turn in turns]
    assert roles[-1] == "user"
    assert all(one != two for one, two in pairwise(roles) if one != "user")
    assert ("Please go on." in json.dumps(turns)) == (FOUND in said)
    assert "srvtoolu_1" not in json.dumps(again["messages"])  # what never answered is not spoken of
    back = [message["role"] for message in again["messages"]]
    assert back == (["user", "assistant"] * (2 if FOUND in said else 1)) + ["user"]


async def test_a_turn_that_is_paused_again_and_again_counts_where_it_brings_nothing_new() -> None:
    def paused(place: int, words: str) -> dict[str, Any]:
        use = {**SERVER_USE, "id": f"srvtoolu_{place}"}
        return anthropic({"type": "text", "text": words}, use, stop_reason="pause_turn")

    async with served("anthropic") as one:
        one.answers(*(paused(place, f"I look {place} times.") for place in range(6)))
        one.answers(anthropic({"type": "text", "text": "7 degrees."}))
        assert (await Agent(one.model, patience=1).run("Weather?")).unwrap() == "7 degrees."
    async with served("anthropic") as one:
        one.answers(*(paused(place, "I look.") for place in range(4)))
        outcome = await Agent(one.model, patience=2).run("Weather?")
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "no_progress"
        assert "paused" in outcome.error.message


@pytest.mark.parametrize("kind", ["anthropic", "responses"])
async def test_a_secret_that_an_item_of_the_provider_repeats_is_not_recorded(kind: str) -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": f"key {KEY}"}}
    use = {**SERVER_USE, "input": {"query": f"key {KEY}"}}
    text = "7 degrees."
    reply = (
        response(item, said(text)) if kind == "responses" else anthropic(use, {"type": "text", "text": text})
    )
    async with served(kind) as one:
        one.answers({**reply, "model": f"m-{KEY}"})
        found = await one.model.reply(ModelRequest(messages=(HELLO,)))
    assert found.text == text
    assert any(isinstance(part, Opaque) for part in found.parts)
    assert KEY not in repr(found)


async def test_a_thought_that_nothing_follows_does_not_end_a_message_of_anthropic() -> None:
    thinking = {"type": "thinking", "thinking": "Hm", "signature": SECRET}
    _, sent = await second("anthropic", anthropic(thinking, stop_reason="max_tokens"))
    assert [message["role"] for message in sent["messages"]] == ["user"]


@pytest.mark.parametrize("kind", ["computer_call", "custom_tool_call", "mcp_approval_request"])
async def test_an_item_that_an_agent_cannot_answer_says_where_it_comes_from(kind: str) -> None:
    with pytest.raises(ModelBadRequest, match=f"{kind}.*body"):
        await second("responses", response({"type": kind, "id": "x"}))
