"""Budgets and rules, as values."""

import pytest

from agentkit import Effect, Limits, SecurityPolicy, UsageError
from agentkit.messages import ToolCall, ToolSpec
from agentkit.ports import Allow, Ask, Deny, Question


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"tokens": -1}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_limits_must_be_positive(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Limits(**wrong)


def test_tightened_takes_the_smaller_of_each():
    own = Limits(steps=10, tokens=None, seconds=5)
    assert own.tightened(Limits(steps=20, tokens=7, seconds=1)) == Limits(steps=10, tokens=7, seconds=1)
    assert own.tightened(Limits(steps=None)) == own
    assert own.tightened(None) is own


def question(name="send", effect=Effect.UNSAFE, approval=False, interrupted=False) -> Question:
    spec = ToolSpec(name=name, description="", parameters={}, effect=effect, approval=approval)
    return Question(call=ToolCall(id="c", name=name), spec=spec, interrupted=interrupted)


@pytest.mark.parametrize(
    "rules, asked, decision",
    [
        (SecurityPolicy(), question(), Allow),
        (SecurityPolicy(), question(approval=True), Ask),
        (SecurityPolicy(), question(interrupted=True), Ask),
        (SecurityPolicy(ask_interrupted=False), question(interrupted=True), Allow),
        (SecurityPolicy(allow=["read_*"]), question("read_file"), Allow),
        (SecurityPolicy(allow=["read_*"]), question("send"), Deny),
        (SecurityPolicy(deny=["send"]), question(approval=True), Deny),
        (SecurityPolicy(ask=["s?nd"]), question(), Ask),
        (SecurityPolicy(ask_effects=[Effect.UNSAFE]), question(), Ask),
        (SecurityPolicy(ask_effects=[Effect.UNSAFE]), question(effect=Effect.PURE), Allow),
    ],
)
async def test_the_strictest_rule_wins(rules, asked, decision):
    assert isinstance(await rules.decide(asked), decision)
