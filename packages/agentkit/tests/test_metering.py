"""Embeddings in the budget of a run: reserved, settled and counted, wherever the run's memory asks for them."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentkit import Agent, Completed, Failed, Limits, MemoryJournal
from agentkit.budget.prices import Price, Prices
from agentkit.memories import AgentMemory, LocalMemory, Note, Scope
from agentkit.memories.openai import OpenAIEmbeddings
from agentkit.messages import ToolCall, Usage
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.transcript.steps import Embedded, Finished, ModelAsked, ModelFailed, Recalled

from .wire_server import KEY, Answer, WireServer  # type: ignore[import-not-found]

SCOPE = Scope(agent="agent")
NAME = "openai:vectors"
FREE = Price(input_usd_per_million=0, output_usd_per_million=0)
PRICES = Prices({NAME: Price(input_usd_per_million=1, output_usd_per_million=0), "scripted:model": FREE})
RICH = Limits(usd=1)


def answered(tokens: int | None = 100):
    def answer(body) -> Answer:
        data = [{"index": place, "embedding": [1.0, 0.5]} for place in range(len(body["input"]))]
        usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        return Answer(chunks=[json.dumps({"data": data, **usage}).encode()])

    return answer


BROKEN = Answer(status=500, chunks=[b'{"error": {"message": "oops"}}'])
CUT = Answer(chunks=[b'{"data":'], end="drop")


@pytest.fixture
async def memory(server: WireServer) -> AsyncGenerator[LocalMemory]:
    """With one note in it, which no run has paid for."""
    async with OpenAIEmbeddings("vectors", api_key=KEY, base_url=server.url, timeout=2) as embeddings:
        made = LocalMemory(embeddings)
        server.plan(answered())
        await made.remember(SCOPE, Note(id="0", text="Kim likes tea."))
        server.journal.clear()
        yield made


def agent_of(memory: LocalMemory, *replies: Any, prices: Prices = PRICES, **fields: Any) -> Agent:
    declared = AgentMemory(memory=memory, min_score=-1, **fields)
    return Agent(ScriptedModel(replies), memory=declared, prices=prices)


def call(number: int) -> ToolCall:
    return ToolCall(id=f"call_{number}", name="remember", arguments={"text": f"The number is {number}."})


def kinds(outcome: Any) -> list[str]:
    return [type(recorded.step).__name__ for recorded in outcome.transcript]


def asked_of(outcome: Any) -> list[ModelAsked]:
    return [step for step in steps_of(outcome, ModelAsked) if step.model == NAME]


def steps_of(outcome: Any, kind: type) -> list[Any]:
    return [recorded.step for recorded in outcome.transcript if isinstance(recorded.step, kind)]


async def test_all_that_a_run_asks_for_counts_in_its_tokens_and_its_cost(server, memory):
    for tokens in (7, 11, 13, 17):
        server.plan(answered(tokens))
    agent = agent_of(memory, [call(1), call(2)], "done", remember="tool")
    outcome: Any = await agent.run("Go.")
    assert (outcome.usage.tokens.input_tokens, outcome.usage.tokens.cost_usd) == (31, 0.000031)
    assert [step.usage.input_tokens for step in steps_of(outcome, Embedded)] == [7, 11, 13]
    assert {step.model for step in steps_of(outcome, Embedded)} == {NAME}
    keeping: Any = await agent_of(memory, "done", remember="outcome", recall=0).run("Go.")
    assert keeping.usage.tokens.input_tokens == 17
    assert kinds(keeping) == ["RunStarted", "ModelReplied", "Embedded", "Finished"]


async def test_under_a_limit_of_money_each_call_is_reserved_before_it_is_made_and_then_settled(
    server, memory
):
    for _ in range(4):
        server.plan(answered())
    agent = agent_of(memory, [call(1), call(2)], "done", remember="tool")
    outcome: Any = await agent.run("Go.", limits=RICH)
    paid = ["ModelAsked", "Embedded"]
    reply = ["ModelAsked", "ModelReplied"]
    told = [kind for kind in kinds(outcome) if kind != "ToolReturned"]  # which stand in between as they come
    assert told == ["RunStarted", *paid, "Recalled", *reply, *paid, *paid, *reply, "Finished"]
    asked = asked_of(outcome)
    assert all(step.reserved_usd == step.input_bound / 1e6 > 0 for step in asked)
    assert (outcome.usage.tokens.cost_usd, outcome.usage.unsettled_usd) == (0.0003, 0.0)


async def test_what_was_recalled_is_told_although_steps_of_its_price_come_first(server, memory):
    server.plan(answered())
    model = ScriptedModel(["done"])
    declared = AgentMemory(memory=memory, min_score=-1)
    for planning in ("native", "react"):
        server.plan(answered())
        model = ScriptedModel(["Final Answer: tea"])
        await Agent(model, memory=declared, prices=PRICES, planning=planning).run("Go.", limits=RICH)
        assert "Kim likes tea." in model.requests[0].messages[0].text


@pytest.mark.parametrize(
    "prices, limits, code",
    [
        (PRICES, Limits(usd=0.00001), "limit_reached"),
        (Prices({"scripted:model": FREE}), RICH, "price_unknown"),
    ],
)
async def test_what_cannot_be_paid_for_is_not_asked_for(server, memory, prices, limits, code):
    outcome: Any = await agent_of(memory, "never", prices=prices).run("Go.", limits=limits)
    assert (outcome.error.code, server.journal) == (code, [])
    assert NAME in outcome.error.message


async def test_a_model_that_remembers_more_than_it_can_pay_for_is_told_so(server, memory):
    agent = agent_of(memory, call(1), "done", remember="tool", recall=0)
    outcome: Any = await agent.run("Go.", limits=Limits(usd=0.00001))
    assert isinstance(outcome, Completed)
    (returned,) = [recorded.step for recorded in outcome.transcript if hasattr(recorded.step, "call_id")]
    assert "left" in returned.error.message
    assert server.journal == []


async def test_an_answer_that_was_paid_for_is_not_lost_for_want_of_a_note(server, memory, caplog):
    agent = agent_of(memory, "done", remember="outcome", recall=0)
    outcome: Any = await agent.run("Go.", limits=Limits(usd=0.00001))
    assert outcome.unwrap() == "done"
    assert "is not remembered" in caplog.text
    assert server.journal == []


async def test_what_costs_nothing_leaves_no_trace():
    memory = LocalMemory()
    await memory.remember(SCOPE, Note(id="0", text="Kim likes tea."))
    outcome: Any = await agent_of(memory, call(1), "done", remember="tool").run("Go.", limits=RICH)
    assert "Embedded" not in kinds(outcome)
    assert {step.model for step in steps_of(outcome, ModelAsked)} == {"scripted:model"}


async def test_a_failed_call_is_settled_as_far_as_is_known_and_made_again_by_whoever_resumes(server, memory):
    for answer in (BROKEN, CUT, answered()):
        server.plan(answer)
    agent, journal = agent_of(memory, "done"), MemoryJournal()
    for _ in range(2):
        failed: Any = await agent.run("Go.", limits=RICH, journal=journal)
        assert isinstance(failed, Failed)
        assert failed.resumable
    outcome: Any = await agent.run("Go.", limits=RICH, journal=journal)
    assert isinstance(outcome, Completed)
    overloaded, cut = steps_of(outcome, ModelFailed)
    assert (overloaded.usage, cut.usage) == (Usage(cost_usd=0.0), None)
    assert outcome.usage.tokens.cost_usd == 0.0001
    assert outcome.usage.unsettled_usd == asked_of(outcome)[1].reserved_usd
    assert len(steps_of(outcome, Recalled)) == 1


async def test_where_the_provider_does_not_tell_what_it_has_read_all_that_was_reserved_counts(server, memory):
    for _ in range(2):
        server.plan(answered(None))
    outcome: Any = await agent_of(memory, "done").run("Go.", limits=RICH)
    (asked,) = asked_of(outcome)
    assert outcome.usage.unsettled_usd == asked.reserved_usd
    unlimited: Any = await agent_of(memory, "done").run("Go.")
    assert steps_of(unlimited, Embedded) == []


async def test_wherever_the_process_dies_every_call_that_was_made_is_counted(server, memory):
    async def run(journal) -> Any:
        model = ScriptedModel.by_turn([call(1), "done"])
        declared = AgentMemory(memory=memory, min_score=-1, remember="tool")
        agent = Agent(model, memory=declared, prices=PRICES)
        return await agent.run("Go.", limits=RICH, journal=journal, run_id="run")

    for _ in range(2):
        server.plan(answered())
    clean = await run(MemoryJournal())
    for at in range(len(clean.transcript)):
        server.journal.clear()
        for _ in range(4):
            server.plan(answered())
        journal = CrashingJournal(at=at)
        with pytest.raises(Crash):
            await run(journal)
        outcome = await run(journal.revived())
        assert isinstance(outcome.transcript[-1].step, Finished)
        settled, asked = outcome.usage.tokens.input_tokens // 100, asked_of(outcome)
        assert settled == len(steps_of(outcome, Embedded))
        assert len(server.journal) in (len(asked), len(asked) - 1), "dead before the call, or after it"
        assert (outcome.usage.unsettled_usd > 0) == (len(asked) > settled)
        server._planned.clear()
