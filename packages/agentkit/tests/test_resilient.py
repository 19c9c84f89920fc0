"""Retries, fallbacks, and what all calls share; in virtual time where anybody waits."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Failed, Limits, MemoryJournal
from agentkit.errors import (
    ContentRefused,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelResting,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)
from agentkit.messages import BegunAnew, ModelReply, ModelRequest, TextDelta, UserMessage
from agentkit.models.openai.client import OpenAIModel
from agentkit.models.resilience.circuit_breaker import CircuitSettings, CircuitState
from agentkit.models.resilience.model import ONCE, ResilientModel, open_chain
from agentkit.models.resilience.provider_state import CallEnded, ProviderState
from agentkit.models.resilience.rate_limiter import RateLimits
from agentkit.models.resilience.retry import (
    Again,
    GiveUp,
    NextModel,
    Retries,
    Situation,
    most_hopeful,
    what_next,
)
from agentkit.testing import ScriptedModel
from agentkit.testing.model_contract import ModelContract
from agentkit.transcript.steps import ModelFailed

from .openai_server import OpenAIProvider  # type: ignore[import-not-found]
from .virtual_time import run  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer  # type: ignore[import-not-found]

HELLO = ModelRequest(messages=(UserMessage(text="hello"),))


class EachAlone:
    """A chain whose calls share nothing: that the one before was told to come again in 7 seconds is forgotten."""

    def __init__(self, model: OpenAIModel) -> None:
        self._model = model
        self.name = model.name

    async def reply(self, request: ModelRequest, on_delta: Any = None) -> ModelReply:
        chain = ResilientModel([self._model], retries=ONCE, traffic=ProviderState())
        return await chain.reply(request, on_delta)


class TestWhole(ModelContract):
    """The contract of every model: a chain that retries nothing adds nothing to a model, and loses nothing."""

    counts = frozenset({"cached_tokens", "cache_write_tokens", "reasoning_tokens"})

    @pytest.fixture
    async def provider(self, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with (
            WireServer() as server,
            OpenAIModel("tiny", api_key=KEY, base_url=server.url, provider="test") as inner,
        ):
            yield OpenAIProvider(server, EachAlone(inner))


class TestStreamed(TestWhole):
    streamed = True


# --- decisions -----------------------------------------------------------------------------------------------------

TRANSIENT: list[Any] = [ModelRateLimited, ModelOverloaded, ModelTimeout, ModelUnreachable, ModelBadResponse]
ELSEWHERE: list[Any] = [ModelAuthError, ContextTooLong, ModelResting]
NOWHERE: list[Any] = [ModelBadRequest, ContentRefused]


@pytest.mark.parametrize("kind", TRANSIENT + ELSEWHERE + NOWHERE)
def test_what_helps_after_which_error(kind):
    def after(has_another: bool, failed: int = 1):
        situation = Situation(failed=failed, tries=3, has_another=has_another)
        return what_next(kind(), situation, Retries(), 0.5)

    retried = kind in TRANSIENT
    assert isinstance(after(False), Again if retried else GiveUp)
    assert isinstance(after(True, failed=3), GiveUp if kind in NOWHERE else NextModel)


@given(
    st.integers(1, 9),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(0, 60)),
    st.one_of(st.none(), st.floats(0, 60)),
)
def test_a_wait_obeys_the_provider_the_deadline_and_the_bounds(failed, chance, retry_after, seconds_left):
    retries = Retries(tries=10)
    situation = Situation(failed=failed, tries=10, has_another=False, seconds_left=seconds_left)
    match what_next(ModelRateLimited(retry_after=retry_after), situation, retries, chance):
        case Again(seconds):
            assert (retry_after or 0) <= seconds <= (retry_after or 0) + min(8.0, 0.5 * 2 ** (failed - 1))
            assert seconds <= retries.longest_wait
            assert seconds_left is None or seconds < seconds_left
        case _:
            wait = retries.wait(failed, chance, retry_after)
            assert wait > retries.longest_wait or (seconds_left is not None and wait >= seconds_left)


def test_of_a_chains_errors_the_one_that_gives_most_hope_is_told():
    late, soon = ModelRateLimited("late", retry_after=60), ModelRateLimited("soon", retry_after=6)
    auth = ModelAuthError("key")
    assert most_hopeful([auth, late, soon]) is soon
    assert most_hopeful([auth, ContextTooLong("long")]) is auth


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"first_seconds": -1}, {"longest_wait": float("inf")}])
def test_retries_that_cannot_be(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Retries(**wrong)


# --- the model -----------------------------------------------------------------------------------------------------


def chain(*models: Any, **options) -> ResilientModel:
    return ResilientModel(models, chance=lambda: 1.0, **options)


async def seconds_of(call) -> tuple[Any, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        result: Any = await call
    except ModelError as error:
        result = error
    return result, loop.time() - began


def test_a_call_that_failed_is_made_again_after_a_wait():
    first = ScriptedModel([ModelOverloaded(), ModelTimeout(), "done"])
    reply, seconds = run(seconds_of(chain(first).reply(HELLO)))
    assert (reply.text, seconds) == ("done", 0.5 + 1.0)
    first.assert_complete()


def test_as_often_as_wanted_and_no_more():
    first = ScriptedModel([ModelOverloaded("one"), ModelOverloaded("two")])
    error, _seconds = run(seconds_of(chain(first, retries=Retries(tries=2)).reply(HELLO)))
    assert isinstance(error, ModelOverloaded)
    first.assert_complete()


def test_retry_after_is_obeyed_by_all_calls():
    first = ScriptedModel([ModelRateLimited(retry_after=9), "one", "two"])

    async def main():
        model = chain(first)
        one = asyncio.create_task(seconds_of(model.reply(HELLO)))
        await asyncio.sleep(1)  # the other one comes while the provider wants to be left alone
        two, waited = await seconds_of(model.reply(HELLO))
        return (await one)[1], waited, two

    one, two, _reply = run(main())
    assert one == pytest.approx(9.5)
    assert two == pytest.approx(8.0)


def test_a_longer_rest_than_a_run_waits_for_is_told_without_a_call():
    first = ScriptedModel([ModelRateLimited(retry_after=60), "one"])

    async def main():
        model = chain(first)
        told = await seconds_of(model.reply(HELLO))
        return told, await seconds_of(model.reply(HELLO)), len(first.requests)

    (error, waited), (resting, no_wait), calls = run(main())
    assert isinstance(error, ModelRateLimited)
    assert isinstance(resting, ModelResting)
    assert resting.retry_after == pytest.approx(60)
    assert (waited, no_wait, calls) == (0, 0, 1)


def test_the_next_model_is_asked_when_the_first_cannot():
    first = ScriptedModel([ModelAuthError("no key")], name="a:1")
    second = ScriptedModel([ModelOverloaded(), "from the second"], name="b:2")
    reply, _seconds = run(seconds_of(chain(first, second).reply(HELLO)))
    assert (reply.text, reply.model) == ("from the second", "b:2")


def test_a_faulty_request_is_taken_nowhere_else():
    second = ScriptedModel(["never"], name="b:2")
    error, _ = run(seconds_of(chain(ScriptedModel([ModelBadRequest("bad")]), second).reply(HELLO)))
    assert isinstance(error, ModelBadRequest)
    assert second.requests == []


class Stuttering:
    """Shows some words before each of its first calls fails."""

    name = "scripted:stutters"

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.inner = ScriptedModel(["one two three"], name=self.name)

    async def reply(self, request, on_delta=None):
        if self.left:
            self.left -= 1
            if on_delta is not None:
                on_delta(TextDelta(text="one "))
            raise ModelUnreachable("it broke off")
        return await self.inner.reply(request, on_delta)


def test_what_was_shown_of_a_failed_call_is_called_back():
    seen: list = []
    reply, _ = run(seconds_of(chain(Stuttering(2)).reply(HELLO, seen.append)))
    last = max(place for place, delta in enumerate(seen) if isinstance(delta, BegunAnew))
    assert [type(delta).__name__ for delta in seen].count("BegunAnew") == 2
    assert "".join(delta.text for delta in seen[last + 1 :]) == reply.text == "one two three"


def test_a_model_that_keeps_failing_is_left_alone_and_then_asked_once():
    model = ScriptedModel([ModelTimeout()] * 3 + ["well again"], name="a:1")
    traffic = ProviderState(breaking=CircuitSettings(failures=2, seconds=10))

    async def main():
        chained = chain(model, retries=ONCE, traffic=traffic)
        told = [type((await seconds_of(chained.reply(HELLO)))[0]).__name__ for _ in range(3)]
        states = [traffic.circuits()["a:1"]]
        await asyncio.sleep(10)
        states.append(traffic.circuits()["a:1"])
        told += [type((await seconds_of(chained.reply(HELLO)))[0]).__name__]
        await asyncio.sleep(20)
        told += [(await seconds_of(chained.reply(HELLO)))[0].text]
        states.append(traffic.circuits()["a:1"])
        return told, states

    told, states = run(main())
    assert told == ["ModelTimeout", "ModelTimeout", "ModelResting", "ModelTimeout", "well again"]
    assert states == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]


def test_a_refusal_says_that_the_provider_is_there():
    model = ScriptedModel([ModelTimeout(), ModelBadRequest(), ModelTimeout(), "fine"])
    traffic = ProviderState(breaking=CircuitSettings(failures=2))

    async def main():
        chained = chain(model, retries=ONCE, traffic=traffic)
        return [(await seconds_of(chained.reply(HELLO)))[0] for _ in range(4)][-1]

    assert run(main()).text == "fine"


def test_all_models_of_a_process_share_a_limit_and_are_counted():
    ended: list[CallEnded] = []
    traffic = ProviderState({"a": RateLimits(concurrency=1)}, on_call=ended.append)

    async def slow(_request):
        await asyncio.sleep(5)
        return "done"

    async def main():
        models = [chain(ScriptedModel([slow], name=f"a:{name}"), traffic=traffic) for name in "12"]
        waiting = asyncio.gather(*(seconds_of(model.reply(HELLO)) for model in models))
        await asyncio.sleep(1)
        return traffic.queues(), [seconds for _reply, seconds in await waiting]

    queues, seconds = run(main())
    assert queues == {"a": (1, 1)}
    assert seconds == [5, 10]
    assert [(call.model, call.seconds, call.error) for call in ended] == [("a:1", 5, None), ("a:2", 5, None)]


def test_cancelled_in_the_queue_in_a_call_and_in_a_wait_nothing_stays_taken():
    async def for_ever(_request):
        await asyncio.Event().wait()

    async def main():
        traffic = ProviderState({"a": RateLimits(concurrency=1)})
        model = ScriptedModel([for_ever, ModelOverloaded(), "done"], name="a:1")
        chained = chain(model, traffic=traffic)
        calls = [asyncio.create_task(chained.reply(HELLO)) for _ in range(2)]
        await asyncio.sleep(1)
        for task in reversed(calls):
            task.cancel()
        await asyncio.wait(calls)
        waits = asyncio.create_task(chained.reply(HELLO))
        await asyncio.sleep(0.25)  # its call has failed, and it waits
        waits.cancel()
        await asyncio.wait({waits})
        assert traffic.queues() == {"a": (0, 0)}
        return (await chained.reply(HELLO)).text

    assert run(main()) == "done"


def test_an_object_is_used_as_it_is_and_a_name_with_retries():
    async def main():
        plain, own = ScriptedModel([]), ResilientModel([ScriptedModel([])])
        async with (
            open_chain([plain]) as one,
            open_chain([own]) as two,
            open_chain(["offline:planner"]) as three,
            open_chain([plain, "offline:planner"]) as four,
        ):
            return one.retries.tries, two is own, three.retries.tries, [each.name for each in four.models]

    assert run(main()) == (1, True, 3, ["scripted:model", "offline:planner"])


# --- in a run ------------------------------------------------------------------------------------------------------


async def steps_of(journal) -> list:
    return [recorded.step for recorded in await journal.load()]


def test_failed_calls_are_recorded_and_the_run_goes_on():
    model = ScriptedModel([ModelOverloaded(), ModelAuthError("no credit"), "never"], name="a:1")
    other = ScriptedModel(["done"], name="b:2")

    async def main():
        journal = MemoryJournal()
        outcome = await Agent(model, fallback=[other]).run("hello", journal=journal)
        return outcome.unwrap(), [step for step in await steps_of(journal) if isinstance(step, ModelFailed)]

    output, failed = run(main())
    assert output == "done"
    assert [(step.model, step.error.code) for step in failed] == [
        ("a:1", "model_overloaded"),
        ("a:1", "model_auth"),
    ]
    assert failed[0].again_after is not None
    assert failed[1].again_after == 0.0


def test_tries_do_not_multiply_when_a_run_is_resumed():
    model = ScriptedModel([ModelOverloaded()] * 5 + ["done"], name="a:1")
    agent = Agent(model, retries=Retries(tries=3))

    async def main():
        journal = MemoryJournal()
        calls = []
        for _ in range(4):
            outcome = await agent.run("hello", journal=journal)
            calls.append(len(model.requests))
            if isinstance(outcome, Failed):
                assert outcome.resumable
        return calls, outcome.unwrap()

    assert run(main()) == ([3, 4, 5, 6], "done")


def test_a_retry_that_cannot_be_in_time_is_not_begun():
    model = ScriptedModel([ModelRateLimited("slow down", retry_after=15)], name="a:1")

    async def main():
        began = asyncio.get_running_loop().time()
        outcome = await Agent(model, retries=Retries(), limits=Limits(seconds=10)).run("hello")
        return outcome, asyncio.get_running_loop().time() - began

    outcome, seconds = run(main())
    assert seconds == 0
    assert (outcome.error.code, outcome.error.retry_after, outcome.resumable) == (
        "model_rate_limited",
        15,
        True,
    )


def test_a_wait_and_a_queue_end_with_the_runs_time():
    async def for_ever(_request):
        await asyncio.Event().wait()

    async def main():
        traffic = ProviderState({"a": RateLimits(concurrency=1)})
        models = [ResilientModel([ScriptedModel([for_ever], name="a:1")], traffic=traffic) for _ in range(2)]
        return await asyncio.gather(
            *(Agent(model, limits=Limits(seconds=10)).run("hello") for model in models)
        )

    # the journal's clock does not jump: the time that it counts is what is left to the loop's
    for outcome in run(main()):
        assert outcome.error.code == "limit_reached"
