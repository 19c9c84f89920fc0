"""A person's answer is for one call with just these arguments, once, and in time."""

import time
from dataclasses import replace

import pytest

from agentkit import Agent, MemoryJournal, SecurityPolicy, ToolCall, UsageError, Waiting, tool
from agentkit.policies import Between, Rule
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, ToolReturned, ToolStarted, digest_of_call
from agentkit.transcript.usage import RunningUsage

CALL = ToolCall(id="c1", name="pay", arguments={"amount": 120, "to": "shop"})


class Payments:
    def __init__(self) -> None:
        self.made: list[tuple[float, str]] = []
        self.journal = MemoryJournal()
        self.model = ScriptedModel.by_turn([CALL, "done"])
        self.policy = SecurityPolicy(
            ask=["pay"], rules=[Rule(tools=["pay"], argument="amount", check=Between(most=200))]
        )

        @tool(effect="unsafe")
        def pay(amount: float, to: str) -> str:
            """Pay."""
            self.made.append((amount, to))
            return "paid"

        self.tool = pay

    async def run(self, **options):
        agent = Agent(self.model, tools=[self.tool], policy=self.policy)
        return await agent.run("go", journal=self.journal, run_id="r1", **options)

    async def asked(self, **options) -> ApprovalAsked:
        outcome = await self.run(**options)
        assert isinstance(outcome, Waiting)
        (asked,) = outcome.on
        return asked

    async def answer(self, asked: ApprovalAsked, **fields) -> None:
        given = {"approved": True, "digest": asked.digest, **fields}
        await self.journal.append(ApprovalGiven(approval_id=asked.approval_id, **given))

    async def steps(self, kind):
        return [recorded.step for recorded in await self.journal.load() if isinstance(recorded.step, kind)]


@pytest.fixture
def payments() -> Payments:
    return Payments()


async def test_what_is_approved_is_bound_to_the_run_the_call_and_its_arguments(payments):
    asked = await payments.asked()
    assert asked.digest == digest_of_call("r1", CALL)
    others = [
        digest_of_call("r2", CALL),
        digest_of_call("r1", replace(CALL, id="c2")),
        digest_of_call("r1", replace(CALL, name="pay2")),
        digest_of_call("r1", replace(CALL, arguments={"amount": 121, "to": "shop"})),
        digest_of_call("r1", replace(CALL, arguments={"amount": 120.0, "to": "shop"})),
    ]
    assert len({asked.digest, *others}) == 6
    assert digest_of_call("r1", replace(CALL, arguments={"to": "shop", "amount": 120})) == asked.digest


async def test_an_answer_for_another_call_opens_nothing(payments):
    asked = await payments.asked()
    await payments.answer(asked, digest=digest_of_call("another run", CALL))
    assert isinstance(await payments.run(), Waiting)
    assert payments.made == []


async def test_a_question_about_another_call_than_the_one_that_is_owed_is_asked_anew(payments):
    asked = await payments.asked()
    payments.journal.steps[-1] = replace(  # as somebody does who writes into the database
        payments.journal.steps[-1], step=replace(asked, arguments={"amount": 1}, digest="0" * 64)
    )
    await payments.answer(replace(asked, digest="0" * 64))
    again = await payments.asked()
    assert (again.arguments, again.digest) == (CALL.arguments, asked.digest)
    assert again.approval_id != asked.approval_id
    assert payments.made == []


async def test_an_approval_permits_one_start(payments):
    asked = await payments.asked()
    await payments.answer(asked)
    await payments.journal.append(ToolStarted(call_id="c1", tool="pay"))  # and its worker died
    again = await payments.asked()
    assert again.interrupted
    assert again.approval_id != asked.approval_id
    assert payments.made == []


async def test_an_answer_that_comes_too_late_does_not_count(payments):
    payments.policy = replace(payments.policy, approval_seconds=3600)
    asked = await payments.asked()
    assert asked.expires_seconds == 3600
    await payments.answer(asked)
    late = payments.journal.steps[-1]
    payments.journal.steps[-1] = replace(late, at=late.at + 3600)
    outcome = await payments.run(at=late.at + 3601)
    assert outcome.unwrap() == "done"
    (returned,) = await payments.steps(ToolReturned)
    assert returned.error is not None
    assert returned.error.message == "not approved: nobody has answered within 3600 seconds"
    assert payments.made == []


async def test_a_run_waits_until_the_question_expires_and_then_goes_on_without_the_call(payments):
    payments.policy = replace(payments.policy, approval_seconds=60)
    await payments.asked()
    at = payments.journal.steps[-1].at
    assert isinstance(await payments.run(at=at + 59), Waiting)
    assert (await payments.run(at=at + 60)).unwrap() == "done"
    assert "nobody has answered" in str(payments.model.requests[-1].messages)
    assert payments.made == []


async def test_the_time_in_which_nobody_answered_is_not_the_runs(payments):
    await payments.asked()
    steps = payments.journal.steps
    steps.append(
        replace(
            steps[-1], seq=len(steps), at=steps[-1].at + 1000, step=ToolReturned(call_id="c1", tool="pay")
        )
    )
    assert RunningUsage.of(steps).seconds < 100


@pytest.mark.parametrize("seconds, expected", [(None, None), (5, 5), (0.5, 0.5)])
async def test_how_long_a_question_is_open_is_the_policys(payments, seconds, expected):
    payments.policy = replace(payments.policy, approval_seconds=seconds)
    assert (await payments.asked()).expires_seconds == expected


def test_a_question_that_is_never_open_is_refused():
    with pytest.raises(UsageError, match="approval_seconds"):
        SecurityPolicy(approval_seconds=0)


async def test_a_person_may_change_the_arguments_and_the_model_is_told(payments):
    asked = await payments.asked()
    await payments.answer(
        asked, arguments={"amount": 99, "to": "the shop"}, reason="we got a discount", by="kim"
    )
    assert (await payments.run()).unwrap() == "done"
    assert payments.made == [(99, "the shop")]
    told = str(payments.model.requests[-1].messages)
    assert 'A person has changed the arguments of this call to {"amount":99,"to":"the shop"}' in told
    assert "we got a discount" in told
    (given,) = await payments.steps(ApprovalGiven)
    assert given.arguments == {"amount": 99, "to": "the shop"}


async def test_what_the_policy_forbids_a_person_cannot_write_either(payments):
    asked = await payments.asked()
    await payments.answer(asked, arguments={"amount": 1000, "to": "me"})
    assert (await payments.run()).unwrap() == "done"
    (returned,) = await payments.steps(ToolReturned)
    assert returned.error is not None
    assert returned.error.message == "not allowed: amount must be at most 200"
    assert payments.made == []


@pytest.mark.parametrize("approved", [True, False])
async def test_what_a_person_says_reaches_the_model(payments, approved):
    asked = await payments.asked()
    await payments.answer(asked, approved=approved, reason="only this once")
    await payments.run()
    assert "only this once" in str(payments.model.requests[-1].messages)
    assert len(payments.made) == approved


async def test_an_answer_of_an_earlier_release_still_counts(payments):
    asked = await payments.asked()
    payments.journal.steps[-1] = replace(
        payments.journal.steps[-1], step=replace(asked, digest="", expires_seconds=None)
    )
    await payments.answer(asked, digest="")
    assert (await payments.run(at=time.time() + 1e9)).unwrap() == "done"
    assert payments.made == [(120, "shop")]
