"""Amounts that hold for a whole run: many small calls do not go round a limit that one large call would meet."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Between, MemoryJournal, Rule, SecurityPolicy, ToolCall, UsageError, Waiting, tool
from agentkit.errors import RunError
from agentkit.policies.run_history import calls_made
from agentkit.ports import Deny, Question
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.transcript.steps import (
    ApprovalGiven,
    ModelReplied,
    Recorded,
    Ruling,
    RunRetried,
    Step,
    Summarised,
    ToolReturned,
    ToolStarted,
)

PAID: list[float] = []


@tool(effect="unsafe")
async def pay(amount: float) -> str:
    """Pay."""
    await asyncio.sleep(0)  # others of the turn go on meanwhile
    PAID.append(amount)
    if amount == 13:
        raise ConnectionError
    return "paid"


@tool(effect="idempotent")
async def transfer(amount: float) -> str:
    """Pay in another way."""
    await asyncio.sleep(0)
    PAID.append(amount)
    return "paid"


@tool(effect="unsafe")
def give(amount: float | str) -> str:
    """Give."""
    return f"gave {amount}"


@tool(effect="unsafe")
def pay_all(bills: list[dict[str, float]]) -> str:
    """Pay several bills."""
    PAID.extend(bill["amount"] for bill in bills)
    return "paid"


def policy(otherwise="deny", **check) -> SecurityPolicy:
    rule = Rule(
        tools=["pay", "transfer"],
        argument="amount",
        check=Between(**{"most_per_run": 100, **check}),
        otherwise=otherwise,
    )
    return SecurityPolicy(rules=[rule])


def calls(*amounts: float, name="pay") -> list[ToolCall]:
    return [ToolCall(id=f"c{n}", name=name, arguments={"amount": amount}) for n, amount in enumerate(amounts)]


def agent(model, given=None) -> Agent:
    PAID.clear()
    return Agent(model, tools=[pay, transfer, pay_all, give], policy=given or policy(), patience=99)


def returned(outcome) -> list[ToolReturned]:
    return [each.step for each in outcome.transcript if isinstance(each.step, ToolReturned)]


async def test_ten_calls_of_99_do_not_go_round_a_limit_of_100():
    model = ScriptedModel([*calls(*[99] * 10), "done"])
    outcome = await agent(model, policy(most=100)).run("pay")
    assert outcome.unwrap() == "done"
    assert PAID == [99]
    told = [step.error.message for step in returned(outcome) if step.error is not None]
    assert (
        told
        == ["not allowed: amount must be at most 100 in all calls of a run together, and it is 99 so far"] * 9
    )


PAYMENT = st.tuples(st.sampled_from(["pay", "transfer"]), st.integers(1, 60))


@given(st.lists(st.lists(PAYMENT, min_size=1, max_size=4), max_size=5))
async def test_whatever_is_paid_one_by_one_or_at_once_is_within_the_limit_and_nothing_is_held_back_in_vain(
    turns,
):
    script = [
        [
            ToolCall(id=f"c{n}", name=name, arguments={"amount": amount})
            for n, (name, amount) in enumerate(several)
        ]
        for several in turns
    ]
    outcome = await agent(ScriptedModel([*script, "done"])).run("pay")
    expected, total = [], 0
    for _name, amount in (one for several in turns for one in several):
        if total + amount <= 100 and amount != 13:
            expected.append(amount)
        total += amount if total + amount <= 100 else 0  # one that has failed may have taken effect
    assert outcome.unwrap() == "done"
    assert sorted(amount for amount in PAID if amount != 13) == sorted(expected)
    assert sum(PAID) <= 100


async def test_a_tenth_is_a_tenth():
    await agent(ScriptedModel([*calls(*[0.1] * 11), "done"]), policy(most_per_run=1)).run("pay")
    assert PAID == [0.1] * 10


async def test_several_amounts_of_one_call_are_added():
    rule = Rule(tools=["pay_all"], argument="bills.*.amount", check=Between(most_per_run=100))
    bills = [[60, 30], [5, 6], [4]]
    script = [
        ToolCall(id=f"c{n}", name="pay_all", arguments={"bills": [{"amount": each} for each in several]})
        for n, several in enumerate(bills)
    ]
    await agent(ScriptedModel([*script, "done"]), SecurityPolicy(rules=[rule])).run("pay")
    assert PAID == [60, 30, 4]


async def test_what_was_refused_does_not_count_and_what_has_failed_does():
    model = ScriptedModel.by_turn([*calls(101, -50, 13, 88, 87), "done"])
    outcome = await agent(model).run("pay")
    assert PAID == [13, 87]
    assert [step.error is None for step in returned(outcome)] == [False, False, False, False, True]


async def test_a_summary_and_a_retry_do_not_begin_anew():
    journal = MemoryJournal()
    await agent(ScriptedModel([*calls(90), "done"])).run("pay", journal=journal)
    journal.steps[:] = journal.steps[:-2]  # before the last reply
    await journal.append(Summarised(upto=len(journal.steps), text="Nothing was paid."))
    await journal.append(RunRetried(of="before"))
    again = ScriptedModel([ToolCall(id="d", name="transfer", arguments={"amount": 11}), "done"])
    outcome = await agent(again).run(journal=journal)
    assert PAID == []
    assert returned(outcome)[-1].ruling is not None


@pytest.mark.parametrize("at", range(12))
async def test_a_run_that_dies_anywhere_pays_no_more(at):
    """Of an interrupted payment nobody knows whether it was made: it is one payment all the same, made again or not."""
    permissive = SecurityPolicy(rules=policy().rules, ask_interrupted=False)
    journal, model = CrashingJournal(at=at), ScriptedModel.by_turn([*calls(60, 50, 40, 1), "done"])
    running = agent(model, permissive)
    try:
        await running.run("pay", journal=journal)
    except Crash:
        outcome = await running.run("pay", journal=journal.revived())
        assert outcome.unwrap() == "done"
    assert set(PAID) == {60, 40}
    assert len(PAID) <= 3  # the one that was cut short is made again


async def test_a_person_may_let_more_through_and_that_counts_too():
    journal, script = MemoryJournal(), ScriptedModel.by_turn([*calls(90, 20, 5), "done"])
    running = agent(script, policy("ask"))
    waiting = await running.run("pay", journal=journal)
    assert isinstance(waiting, Waiting)
    assert waiting.on[0].reason.endswith("and it is 90 so far")
    await journal.append(
        ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True, arguments={"amount": 15})
    )
    waiting = await running.run(journal=journal)
    assert isinstance(waiting, Waiting)
    assert PAID == [90, 15]
    assert waiting.on[0].reason.endswith("and it is 105 so far")
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=False))
    assert (await running.run(journal=journal)).unwrap() == "done"
    assert PAID == [90, 15]


async def test_an_approval_does_not_permit_what_is_over_the_limit_when_the_call_is_made():
    rules = policy().rules
    journal = MemoryJournal()
    several = SecurityPolicy(rules=rules, ask=["pay"])
    running = agent(ScriptedModel.by_turn([calls(60, 50), "done"]), several)
    waiting = await running.run("pay", journal=journal)
    assert isinstance(waiting, Waiting)
    assert len(waiting.on) == 2  # each may be made as things stand
    for asked in waiting.on:
        await journal.append(ApprovalGiven(approval_id=asked.approval_id, approved=True))
    await running.run(journal=journal)
    assert PAID == [60]


async def test_of_an_amount_that_is_none_nobody_knows_the_sum():
    journal = MemoryJournal()
    words = [ToolCall(id="c", name="give", arguments={"amount": "ninety"}), *calls(1, name="give")]
    rule = Rule(tools=["give"], argument="amount", check=Between(most_per_run=100), otherwise="ask")
    running = agent(ScriptedModel.by_turn([*words, "done"]), SecurityPolicy(rules=[rule]))
    reasons = []
    for _question in range(2):
        waiting = await running.run("pay", journal=journal)
        assert isinstance(waiting, Waiting)
        reasons.append(waiting.on[0].reason)
        await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    assert reasons[0] == "amount must be a number"
    assert reasons[1].endswith("and nobody knows how much it is so far")


async def test_a_policy_of_ones_own_is_told_what_was_let_through():
    seen: list[list[str]] = []

    class Own:
        async def decide(self, question: Question):
            seen.append([call.id for call in question.under_way])
            await asyncio.sleep(0)
            return await SecurityPolicy(deny=["pay"]).decide(question)

    script = [*calls(1, 2, name="transfer"), ToolCall(id="p", name="pay", arguments={"amount": 1})]
    await Agent(ScriptedModel([script, "done"]), tools=[pay, transfer], policy=Own()).run("go")
    assert [len(ids) for ids in seen] == [0, 1, 2]
    assert isinstance(
        await SecurityPolicy(deny=["pay"]).decide(Question(call=script[-1], spec=pay.spec)), Deny
    )


@pytest.mark.parametrize(
    "code, denied, begun, counts",
    [
        ("tool_halted", True, False, False),  # by the kill switch, after the policy had let it through
        ("tool_halted", True, True, True),
        ("tool_denied", False, False, False),  # by a person
        ("tool_denied", False, True, True),  # who was asked whether a call that was cut short is repeated
        ("bad_arguments", False, True, False),
        ("tool_error", False, False, True),
    ],
)
def test_what_counts_of_a_call_that_was_let_through(code, denied, begun, counts):
    (made,) = calls(5)
    ruling = Ruling(decision="deny", reason="no") if denied else None
    steps: list[Step] = [
        ModelReplied(parts=(made,)),
        *([ToolStarted(call_id=made.id, tool="pay")] if begun else []),
        ToolReturned(call_id=made.id, tool="pay", error=RunError(code=code, message="no"), ruling=ruling),
    ]
    transcript = [Recorded(seq=seq, at=0.0, step=step) for seq, step in enumerate(steps)]
    assert list(calls_made(transcript, [made])) == ([made] if counts else [])


@pytest.mark.parametrize(
    "check, words",
    [
        ({"most_per_run": 0}, "positive"),
        ({"most_per_run": float("inf")}, "positive and finite"),
        ({"most_per_run": float("nan")}, "needs a least"),
        ({"least": 5, "most_per_run": 4}, "not above the most"),
    ],
)
def test_a_sum_that_makes_no_sense(check, words):
    with pytest.raises(UsageError, match=words):
        Between(**check)


def test_a_sum_needs_the_argument():
    with pytest.raises(UsageError, match="cannot be optional"):
        Rule(tools=["pay"], argument="amount", check=Between(most_per_run=1), optional=True)
