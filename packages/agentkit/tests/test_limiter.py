"""The limiter and the circuit breaker, in virtual time."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.errors import UsageError
from agentkit.models.resilience.circuit_breaker import Circuit, CircuitSettings, CircuitState
from agentkit.models.resilience.rate_limiter import Limiter, RateLimits

from .virtual_time import run  # type: ignore[import-not-found]

QUICK = settings(max_examples=60, deadline=None)
CALLS = st.lists(
    st.tuples(
        st.floats(0, 90), st.floats(0.01, 40), st.integers(0, 300), st.one_of(st.none(), st.floats(0, 30))
    ),
    min_size=1,
    max_size=25,
)
"""When each comes, how long it takes, what it reads, and when it is given up."""


async def simulate(limits: RateLimits, calls: list) -> tuple[list[tuple[int, float, int]], int, Limiter]:
    """Let calls go through a limiter; who was let in (the how manieth, when, tokens), and the most at a time."""
    limiter, loop = Limiter(limits), asyncio.get_running_loop()
    let_in: list[tuple[int, float, int]] = []
    most = came = 0

    async def call(seconds: float, tokens: int) -> None:
        nonlocal most, came
        number, came = came, came + 1
        await limiter.enter(tokens)
        let_in.append((number, loop.time(), tokens))
        most = max(most, limiter.under_way)
        try:
            await asyncio.sleep(seconds)
        finally:
            limiter.leave(tokens, tokens)

    async def come(at: float, seconds: float, tokens: int, patience: float | None) -> None:
        await asyncio.sleep(at)
        task = asyncio.create_task(call(seconds, tokens))
        await asyncio.wait({task}, timeout=patience)
        task.cancel()
        await asyncio.wait({task})

    await asyncio.gather(*(come(*call) for call in calls))
    return let_in, most, limiter


@QUICK
@given(CALLS, st.integers(1, 4))
def test_no_more_at_a_time_than_allowed_and_nobody_is_lost(calls, concurrency):
    let_in, most, limiter = run(simulate(RateLimits(concurrency=concurrency), calls))
    assert most <= concurrency
    assert (limiter.under_way, limiter.waiting) == (0, 0)
    assert len(let_in) >= sum(patience is None for _at, _takes, _tokens, patience in calls)


@QUICK
@given(CALLS, st.integers(1, 30))
def test_no_more_requests_in_any_minute_than_allowed(calls, per_minute):
    let_in, _most, _limiter = run(simulate(RateLimits(requests_per_minute=per_minute), calls))
    moments = [at for _number, at, _tokens in let_in]
    for moment in moments:
        assert sum(moment <= other < moment + 59.999 for other in moments) <= per_minute


@QUICK
@given(CALLS, st.integers(1, 2000))
def test_no_more_tokens_in_any_minute_than_allowed_and_one_call(calls, per_minute):
    let_in, _most, _limiter = run(simulate(RateLimits(tokens_per_minute=per_minute), calls))
    for _number, moment, _tokens in let_in:
        within = [tokens for _, at, tokens in let_in if moment <= at < moment + 59.999]
        assert sum(within) <= per_minute + max(within)


@QUICK
@given(CALLS, st.integers(1, 3), st.integers(1, 20))
def test_first_come_first_served(calls, concurrency, per_minute):
    limits = RateLimits(concurrency=concurrency, requests_per_minute=per_minute)
    let_in, _most, _limiter = run(simulate(limits, [(at, takes, 0, None) for at, takes, _, _ in calls]))
    assert [number for number, _at, _tokens in let_in] == list(range(len(calls)))


def test_who_waits_costs_nothing_meanwhile():
    async def main() -> int:
        limiter, loop = Limiter(RateLimits(requests_per_minute=1)), asyncio.get_running_loop()
        await limiter.enter()
        turns = 0
        handle = loop._run_once  # type: ignore[attr-defined]

        def counted() -> None:
            nonlocal turns
            turns += 1
            handle()

        loop._run_once = counted  # type: ignore[attr-defined]
        await limiter.enter()  # a minute later
        return turns

    assert run(main()) <= 3


def test_a_pause_holds_everybody_up():
    async def main() -> tuple[float, float]:
        limiter, loop = Limiter(RateLimits()), asyncio.get_running_loop()
        limiter.pause(30.0)
        began = loop.time()
        await asyncio.gather(limiter.enter(), limiter.enter())
        return loop.time() - began, limiter.paused_for

    assert run(main()) == (pytest.approx(30.0), 0.0)


def test_what_was_used_counts_and_not_what_was_estimated():
    async def main() -> float:
        limiter, loop = Limiter(RateLimits(tokens_per_minute=6000)), asyncio.get_running_loop()
        await limiter.enter(10)
        limiter.leave(10, 6600)  # the bucket holds 600, and 90 flow in each second
        began = loop.time()
        await limiter.enter(600)
        return loop.time() - began

    assert run(main()) == pytest.approx(6600 / 90, rel=0.01)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"requests_per_minute": -1}, {"tokens_per_minute": 0}])
def test_limits_that_cannot_be(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RateLimits(**wrong)


# --- the breaker ---------------------------------------------------------------------------------------------------

BREAKING = CircuitSettings(failures=3, seconds=10, max_seconds=60)
EVENTS = st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["call", "answered", "failed", "abandoned"])))


@given(EVENTS)
def test_a_circuit_opens_after_failures_in_a_row_and_closes_with_an_answer(events):
    circuit, now, in_a_row, under_way = Circuit(), 0.0, 0, 0
    for later, event in events:
        now += later
        may_ask = circuit.seconds_left(now, BREAKING) is None
        before = circuit.state(now)
        assert may_ask == (
            before is CircuitState.CLOSED or (before is CircuitState.HALF_OPEN and not circuit.probing)
        )
        if event == "call":
            if may_ask:
                circuit, under_way = circuit.asked(now), under_way + 1
                assert before is not CircuitState.HALF_OPEN or circuit.probing  # one at a time
            continue
        if not under_way:
            continue
        under_way -= 1
        match event:
            case "answered":
                circuit, in_a_row = circuit.answered(), 0
                assert circuit.state(now) is CircuitState.CLOSED
            case "failed":
                circuit, in_a_row = circuit.failed(now, BREAKING), in_a_row + 1
                assert (circuit.state(now) is CircuitState.CLOSED) <= (in_a_row < 3)
                assert (circuit.until or now) - now <= BREAKING.max_seconds
            case _:
                circuit = circuit.abandoned()
                assert circuit.state(now) is before


def test_each_rest_is_twice_as_long_as_the_one_before_up_to_a_bound():
    circuit, now = Circuit(), 0.0
    rests: list[Any] = []
    for _ in range(3):
        circuit = circuit.failed(now, BREAKING)
    for _ in range(5):
        rests.append(circuit.seconds_left(now, BREAKING))
        now += rests[-1]
        assert circuit.state(now) is CircuitState.HALF_OPEN
        circuit = circuit.asked(now).failed(now, BREAKING)
    assert rests == [10, 20, 40, 60, 60]


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"seconds": 0}, {"seconds": 9, "max_seconds": 8}])
def test_a_breaker_that_cannot_be(wrong):
    with pytest.raises(UsageError, match="breaking"):
        CircuitSettings(**wrong)
