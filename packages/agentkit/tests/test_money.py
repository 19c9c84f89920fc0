"""Prices, budgets of money, and that the bill is right."""

from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Failed, Limits, MemoryJournal, tool
from agentkit.budget import prices
from agentkit.budget.prices import _OWN_PRICE_OF_KIND, Price, Prices
from agentkit.budget.reservations import LEAST_OUTPUT_TOKENS, MAX_OUTPUT_TOKENS, ReservationInput, reservation
from agentkit.budget.token_estimates import likely_input_tokens, max_input_tokens
from agentkit.errors import LimitReached, ModelError, ModelOverloaded, ModelTimeout, PriceUnknown, UsageError
from agentkit.messages import (
    Attachment,
    ModelReply,
    ModelRequest,
    Text,
    ToolCall,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentkit.models.resilience.retry import Retries
from agentkit.money import add_usd, as_text, nanos, usd
from agentkit.testing import CrashingJournal, ScriptedModel
from agentkit.testing.journals import Crash
from agentkit.transcript.steps import ModelAsked, ModelFailed, ModelReplied
from agentkit.transcript.usage import RunningUsage, usage

# --- exact sums ----------------------------------------------------------------------------------------------------

AMOUNTS = st.integers(0, 8 * 10**15)


@given(AMOUNTS, AMOUNTS)
def test_dollars_carry_nano_dollars_without_loss(one, other):
    assert nanos(usd(one)) == one
    assert nanos(add_usd(usd(one // 2), usd(other // 2)) or 0.0) == one // 2 + other // 2
    assert Decimal(as_text(one)[1:]) * 10**9 == one


def test_a_sum_of_many_small_costs_is_exact():
    total = Usage()
    for _ in range(10_000):
        total += Usage(cost_usd=0.0001)
    assert total.cost_usd == 1.0
    assert (Usage() + Usage(cost_usd=0.5)).cost_usd == 0.5
    assert (Usage() + Usage()).cost_usd is None


@pytest.mark.parametrize(
    "amount, text",
    [
        (0, "$0.00"),
        (250_000_000, "$0.25"),
        (12 * 10**9, "$12.00"),
        (135_000, "$0.000135"),
        (-1, "-$0.000000001"),
    ],
)
def test_money_for_people(amount, text):
    assert as_text(amount) == text


# --- prices --------------------------------------------------------------------------------------------------------

PRICE = Price(
    input_usd_per_million=1.25,
    output_usd_per_million=10,
    cached_input_usd_per_million=0.125,
    cache_write_usd_per_million=2.5,
)


def test_a_price_is_applied_part_by_part_and_rounded_up():
    used = Usage(input_tokens=1000, output_tokens=100, cached_tokens=500, cache_write_tokens=100)
    assert PRICE.of(used) == 400 * 1250 + 500 * 125 + 100 * 2500 + 100 * 10_000
    assert Price(input_usd_per_million=0.0375, output_usd_per_million=0).of(Usage(input_tokens=1)) == 38


DEAR: dict[str, Any] = {
    "cache_write_1h_usd_per_million": 4,
    "input_audio_usd_per_million": 30,
    "cached_audio_usd_per_million": 3,
    "output_audio_usd_per_million": 60,
    "output_image_usd_per_million": 120,
    "web_search_usd_per_thousand": 10,
    "file_search_usd_per_thousand": 2.5,
}


@pytest.mark.parametrize(
    "used, dollars",
    [
        ({"by_kind": {"cache_write_1h_tokens": 300}, "cache_write_tokens": 400}, 600 + 250 + 1200 + 10_000),
        ({"by_kind": {"input_audio_tokens": 200}}, 800 + 6000 + 10_000),
        (
            {"by_kind": {"input_audio_tokens": 200, "cache_audio_read_tokens": 150}, "cached_tokens": 250},
            700 + 100 * 0.1 + 1500 + 450 + 10_000,
        ),
        (
            {"by_kind": {"output_audio_tokens": 400, "output_image_tokens": 500}},
            1000 + 1000 + 24_000 + 60_000,
        ),
        ({"by_kind": {"web_searches": 3, "storage_searches": 2}}, 1000 + 10_000 + 30_000 + 5_000),
    ],
    ids=str,
)
def test_what_has_a_price_of_its_own_is_billed_at_that_price(used, dollars):
    """Of 1000 tokens read and 1000 written; in millionths of a dollar."""
    price = Price(
        input_usd_per_million=1,
        output_usd_per_million=10,
        cached_input_usd_per_million=0.1,
        cache_write_usd_per_million=2.5,
        **DEAR,
    )
    usage = Usage(input_tokens=1000, output_tokens=1000, **used)
    assert Prices(own={"own:m": price}).cost(usage, "own:m") == round(dollars * 1000)
    for kind in used["by_kind"]:  # without its own price nobody knows
        unknown: dict[str, Any] = {_OWN_PRICE_OF_KIND[kind]: None}
        without = replace(price, **unknown)
        with pytest.raises(LookupError):
            Prices(own={"own:m": without}).cost(usage, "own:m")
    searches = sum(count for kind, count in used["by_kind"].items() if "searches" in kind) * 10**7
    assert price.most(1000, 1000) + searches >= round(dollars * 1000)


def test_own_prices_come_first_and_then_the_tables():
    used = Usage(input_tokens=1_000_000, output_tokens=100_000)
    assert Prices().cost(used, "openai:gpt-5") == nanos(2.25)
    assert Prices({"openai:gpt-5": Price(input_usd_per_million=1, output_usd_per_million=0)}).cost(
        used, "openai:gpt-5-2025-08-07", "openai:gpt-5"
    ) == nanos(1.0)
    assert Prices().cost(used, "offline:planner") == 0
    for unknown in ("openai:nobody-knows", "local:gpt-5", "scripted:model"):
        with pytest.raises(LookupError, match=unknown):
            Prices().cost(used, unknown)


def test_what_the_provider_says_comes_before_every_price():
    told = Usage(input_tokens=10, cost_usd=0.123)
    assert Prices({"a:1": PRICE}).billed(told, "a:1") == told
    assert Prices().billed(Usage(input_tokens=10), "a:1").cost_usd is None
    assert (
        Prices({"a:1": PRICE}).billed(Usage(input_tokens=10, cached_tokens=99), "a:1").cost_usd == 0.00000125
    )


@pytest.fixture
def looked_up_anew():
    """Whether the library is there, and which models it does not know, is remembered for the whole process."""
    prices._calculator.cache_clear()
    yield
    prices._calculator.cache_clear()


@pytest.mark.usefixtures("looked_up_anew")
def test_without_the_library_only_own_prices_are_known(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "genai_prices", None)
    assert Prices().billed(Usage(input_tokens=10), "openai:gpt-5").cost_usd is None


@pytest.mark.usefixtures("looked_up_anew")
def test_a_model_that_the_library_does_not_know_is_looked_for_once(monkeypatch):
    """It compares a name that it does not know with its thousand patterns: more work than the rest of a call."""
    asked: list[str] = []

    def count(usage, model, **others):
        asked.append(model)
        return calc_price(usage, model, **others)

    calc_price = genai_prices.calc_price
    monkeypatch.setattr(genai_prices, "calc_price", count)
    for _ in range(3):
        assert Prices().billed(Usage(input_tokens=10), "openai:nobody-knows-it").cost_usd is None
    assert asked == ["nobody-knows-it"]

    newer = replace(get_snapshot())
    monkeypatch.setattr("genai_prices.data_snapshot._custom_snapshot", newer)  # as its updates of prices do
    Prices().billed(Usage(input_tokens=10), "openai:nobody-knows-it")
    assert asked == ["nobody-knows-it"] * 2


@pytest.mark.parametrize("wrong", [{"input_usd_per_million": -1}, {"output_usd_per_million": float("nan")}])
def test_a_price_that_cannot_be(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Price(**{"input_usd_per_million": 1, "output_usd_per_million": 1, **wrong})


# --- what a call may cost ------------------------------------------------------------------------------------------

MEANS = ReservationInput(prices=Prices({"a:1": PRICE}), left=None)


@given(st.text(max_size=300), st.text(max_size=100))
def test_the_bound_of_a_request_is_never_less_than_its_bytes(said, instructions):
    spec = ToolSpec(name="add", description=said, parameters={"type": "object"})
    request = ModelRequest(messages=(UserMessage(text=said),), instructions=instructions, tools=(spec,))
    assert max_input_tokens(request) >= 2 * len(said.encode()) + len(instructions.encode())
    assert max_input_tokens(request) > likely_input_tokens(request)


def test_what_is_attached_counts():
    plain = max_input_tokens(ModelRequest(messages=(UserMessage(text="look"),)))
    image = Attachment(media_type="image/png", data=b"x")
    assert (
        max_input_tokens(ModelRequest(messages=(UserMessage(text="look", attachments=(image,)),)))
        > plain + 1000
    )


def request_of(text: str, **more) -> ModelRequest:
    return ModelRequest(messages=(UserMessage(text=text),), **more)


@given(st.integers(0, 200_000), st.integers(1, 300_000_000), st.one_of(st.none(), st.integers(1, 20_000)))
def test_a_reservation_fits_and_covers_the_longest_reply(size, left, max_tokens):
    request = request_of("x" * size, max_tokens=max_tokens)
    wanted = max_tokens or MAX_OUTPUT_TOKENS
    bound = max_input_tokens(request)
    least = MEANS.prices.most("a:1", bound, min(wanted, LEAST_OUTPUT_TOKENS))
    try:
        asked: Any = reservation("a:1", request, ReservationInput(prices=MEANS.prices, left=left))
    except LimitReached:
        assert least > left
        return
    assert nanos(asked.reserved_usd) <= left
    assert asked.max_tokens <= wanted
    dearest = Usage(input_tokens=bound, cache_write_tokens=bound, output_tokens=asked.max_tokens)
    assert nanos(asked.reserved_usd) >= MEANS.prices.cost(dearest, "a:1")


def test_what_the_model_has_counted_before_is_not_estimated_again():
    first = reservation("a:1", request_of("x" * 10_000), MEANS)
    longer = ReservationInput(prices=MEANS.prices, left=None, last_call=(first, 2500))
    second = reservation("a:1", request_of("x" * 10_100), longer)
    assert nanos(second.reserved_usd) == MEANS.prices.most("a:1", 2600, MAX_OUTPUT_TOKENS)
    other = ReservationInput(prices=Prices({"b:2": PRICE}), left=None, last_call=(first, 2500))
    assert reservation("b:2", request_of("x" * 10_100), other).reserved_usd > second.reserved_usd


def test_a_model_that_costs_nothing_is_not_cut_short():
    asked = reservation("offline:planner", request_of("hello"), ReservationInput(prices=Prices(), left=1))
    assert (asked.reserved_usd, asked.max_tokens) == (0.0, None)


# --- runs with a budget --------------------------------------------------------------------------------------------


def reply(
    text: str = "done", *, read: int = 100, written: int = 20, calls: tuple[ToolCall, ...] = ()
) -> ModelReply:
    return ModelReply(
        parts=calls or (Text(text=text),), usage=Usage(input_tokens=read, output_tokens=written)
    )


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def call(number: int) -> tuple[ToolCall, ...]:
    return (ToolCall(id=f"c{number}", name="add", arguments={"a": number, "b": 1}),)


ONE_DOLLAR = Price(input_usd_per_million=1, output_usd_per_million=1)


def agent_of(*replies, name: str = "a:1", **more) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(replies, name=name)
    return Agent(model, tools=[add], prices=Prices({"a:1": ONE_DOLLAR, "b:2": ONE_DOLLAR}), **more), model


async def steps_of(journal, kind) -> list:
    return [recorded.step for recorded in await journal.load() if isinstance(recorded.step, kind)]


async def test_a_call_is_recorded_before_it_is_made_and_sent_with_a_bound():
    agent, model = agent_of(reply(calls=call(1)), reply())
    journal = MemoryJournal()
    outcome: Any = await agent.run("hello", journal=journal, limits=Limits(usd=1))
    kinds = [type(recorded.step).__name__ for recorded in outcome.transcript]
    assert kinds[1:3] == ["ModelAsked", "ModelReplied"]
    assert [request.max_tokens for request in model.requests] == [MAX_OUTPUT_TOKENS] * 2
    assert outcome.usage.tokens.cost_usd == 0.00024
    assert outcome.usage.unsettled_usd == 0.0


async def test_without_a_limit_of_money_nothing_is_reserved_and_the_cost_is_known():
    agent, model = agent_of(reply())
    outcome: Any = await agent.run("hello")
    assert [type(recorded.step).__name__ for recorded in outcome.transcript] == [
        "RunStarted",
        "ModelReplied",
        "Finished",
    ]
    assert outcome.usage.tokens.cost_usd == 0.00012
    assert model.requests[0].max_tokens is None


async def test_a_price_that_nobody_knows_is_refused_before_any_call():
    agent, model = agent_of("never", name="c:3")
    outcome: Any = await agent.run("hello", limits=Limits(usd=1))
    assert isinstance(outcome, Failed)
    assert outcome.error.code == PriceUnknown.code
    assert 'prices."c:3"' in outcome.error.message
    assert model.requests == []


async def test_a_budget_is_never_exceeded_and_says_how_it_stands():
    agent, model = agent_of(*[reply(calls=call(number), read=2000, written=500) for number in range(50)])
    outcome: Any = await agent.run("hello", limits=Limits(usd=0.0213))
    assert outcome.error.code == "limit_reached"
    assert "left" in outcome.error.message
    assert "a:1" in outcome.error.message
    assert 0.015 < outcome.usage.tokens.cost_usd <= 0.0213
    assert len(model.requests) == outcome.usage.model_calls
    assert (
        model.requests[-1].max_tokens < MAX_OUTPUT_TOKENS  # type: ignore[operator]
    )  # shorter where the money does not last for more


async def test_steps_that_only_tell_of_calls_do_not_count_as_steps():
    replies = [reply(calls=call(1)), reply(calls=call(2)), reply()]
    plain, _ = agent_of(*replies, limits=Limits(steps=6))
    limited, _ = agent_of(*replies, limits=Limits(steps=6, usd=1))
    assert (await plain.run("hello")).unwrap() == (await limited.run("hello")).unwrap() == "done"


async def test_a_failed_call_is_billed_as_the_provider_says_or_counts_in_full():
    told = ModelTimeout("late")
    told.billed = (100, 5)
    agent, _model = agent_of(
        ModelOverloaded(), told, ModelTimeout("no word"), reply(), retries=Retries(tries=4, first_seconds=0)
    )
    journal = MemoryJournal()
    outcome: Any = await agent.run("hello", journal=journal, limits=Limits(usd=1))
    nothing, some, unknown = await steps_of(journal, ModelFailed)
    assert nothing.usage == Usage(cost_usd=0.0)
    assert some.usage == Usage(input_tokens=100, output_tokens=5, cost_usd=0.000105)
    assert unknown.usage is None
    assert outcome.usage.tokens.cost_usd == 0.000225
    reserved = [asked.reserved_usd for asked in await steps_of(journal, ModelAsked)]
    assert outcome.usage.unsettled_usd == reserved[2]


@pytest.mark.parametrize(
    "used",
    [
        Usage(partial=True),
        Usage(input_tokens=100, output_tokens=1, partial=True),
        Usage(input_tokens=100, output_tokens=20, by_kind={"output_image_tokens": 20}),
        Usage(input_tokens=100, output_tokens=20, by_kind={"web_searches": 1}),
    ],
)
async def test_what_has_no_known_price_stays_reserved(used):
    agent, _model = agent_of(replace(reply(calls=call(1)), usage=used), reply())
    journal = MemoryJournal()
    outcome: Any = await agent.run("hello", journal=journal, limits=Limits(usd=1))
    first, last = await steps_of(journal, ModelReplied)
    assert (first.usage, last.usage.cost_usd) == (used, 0.00012)
    asked, _ = await steps_of(journal, ModelAsked)
    assert outcome.usage.unsettled_usd == asked.reserved_usd > 0
    assert outcome.usage.tokens.cost_usd == 0.00012
    assert outcome.usage.tokens.partial is used.partial
    free = Prices({"a:1": Price(input_usd_per_million=0, output_usd_per_million=0)})
    assert free.billed(used, "a:1").cost_usd == 0


async def test_a_failed_call_costs_what_the_provider_says_that_it_does():
    told = ModelOverloaded("gone in the middle")
    told.billed, told.billed_usd = (100, 5), 0.25
    agent, _model = agent_of(told, reply(), retries=Retries(tries=2, first_seconds=0))
    outcome: Any = await agent.run("hello", limits=Limits(usd=1))
    assert outcome.usage.tokens.cost_usd == 0.25012
    assert outcome.usage.unsettled_usd == 0


async def test_another_model_is_paid_by_the_same_budget():
    first, second = ScriptedModel([ModelTimeout()], name="a:1"), ScriptedModel([reply()], name="b:2")
    prices = Prices({"a:1": ONE_DOLLAR, "b:2": PRICE})
    journal = MemoryJournal()
    agent = Agent(first, fallback=[second], retries=Retries(tries=1), prices=prices, limits=Limits(usd=1))
    outcome: Any = await agent.run("hello", journal=journal)
    assert [asked.model for asked in await steps_of(journal, ModelAsked)] == ["a:1", "b:2"]
    assert nanos(outcome.usage.tokens.cost_usd) == PRICE.of(Usage(input_tokens=100, output_tokens=20))


# --- crashes -------------------------------------------------------------------------------------------------------


class SpendingLedger:
    """A provider that keeps a journal of what it was asked and what it has charged."""

    name = "a:1"

    def __init__(self) -> None:
        self.charged = 0
        self.calls = 0

    async def reply(self, request, on_delta=None):
        self.calls += 1
        if self.calls % 3 == 2:
            raise ModelOverloaded("not now")
        written = 50
        said = sum(type(message).__name__ == "AssistantMessage" for message in request.messages)
        answer = reply(calls=call(said), written=written) if said < 3 else reply(written=written)
        self.charged += ONE_DOLLAR.of(answer.usage) or 0
        return answer


async def test_die_at_every_append_and_the_bill_is_right():
    async def carried(journal, till) -> Any:
        agent = Agent(
            till,
            tools=[add],
            prices=Prices({"a:1": ONE_DOLLAR}),
            limits=Limits(usd=1),
            retries=Retries(tries=3, first_seconds=0),
        )
        return await agent.run("hello", journal=journal)

    whole = await carried(MemoryJournal(), SpendingLedger())
    assert whole.usage.unsettled_usd == 0
    for at, after in product(range(len(whole.transcript)), (False, True)):
        till, journal = SpendingLedger(), CrashingJournal(at=at, after=after)
        with pytest.raises(Crash):
            await carried(journal, till)
        outcome: Any = await carried(journal.revived(), till)
        assert outcome.unwrap() == "done"
        known = nanos(outcome.usage.tokens.cost_usd)
        lost = till.charged - known
        assert 0 <= lost <= nanos(outcome.usage.unsettled_usd)
        if outcome.usage.unsettled_usd == 0:
            assert lost == 0
        tally = RunningUsage.of(outcome.transcript)
        assert usage(outcome.transcript) == tally.usage == outcome.usage
        assert till.charged <= tally.spent


async def test_a_call_that_was_lost_counts_with_all_that_it_may_have_cost():
    agent, _ = agent_of(reply(), limits=Limits(usd=1))
    journal = CrashingJournal(at=2)  # the reply is there, and cannot be recorded any more
    with pytest.raises(Crash):
        await agent.run("hello", journal=journal)
    again, _model = agent_of(reply(), limits=Limits(usd=1))
    revived = journal.revived()
    outcome: Any = await again.run("hello", journal=revived)
    lost, _answered = await steps_of(revived, ModelAsked)
    assert outcome.usage.unsettled_usd == lost.reserved_usd
    assert outcome.usage.tokens.cost_usd == 0.00012


async def test_lost_calls_cannot_exceed_a_budget_either():
    spent = 0
    journal = MemoryJournal()
    limits = Limits(usd=0.02)
    for _ in range(20):
        agent, model = agent_of(ModelTimeout("nobody knows"), limits=limits)
        outcome: Any = await agent.run("hello", journal=journal)
        spent += len(model.requests)
        if not (isinstance(outcome, Failed) and outcome.resumable):
            break
    assert outcome.error.code == "limit_reached"
    assert spent <= 3
    assert RunningUsage.of(outcome.transcript).spent <= nanos(0.02)
    assert await steps_of(journal, ModelReplied) == []
    assert issubclass(ModelTimeout, ModelError)
