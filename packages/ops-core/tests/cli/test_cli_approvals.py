"""What a person reads before a yes: the whole call on a terminal of any width. And what a person types as JSON."""

import asyncio

import pytest

from agentkit.messages import JsonObject
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, Recorded
from ops_core.cli.inputs import json_or_file
from ops_core.cli.terminal.screen import Screen
from ops_core.cli.terminal.step_lines import Narrator
from ops_core.cli.terminal.text import as_call
from ops_core.errors import InvalidRequest
from ops_core.testing import open_test_store
from ops_core.testing.store_contract.examples import reported_late

from .conftest import Program


def told(steps: list[ApprovalAsked | ApprovalGiven], capsys: pytest.CaptureFixture[str], **how: int) -> str:
    """The steps as a run that is followed shows them, without what the lines are broken by."""
    narrator, screen = Narrator(), Screen()
    for seq, step in enumerate(steps, 1):
        line = narrator.tell(Recorded(seq=seq, at=0.0, step=step))
        assert line is not None
        screen.step(line, **how)
    return "".join(capsys.readouterr().out.split())


def asked(arguments: JsonObject) -> ApprovalAsked:
    return ApprovalAsked(approval_id="c.1", call_id="c", tool="pay", arguments=arguments, reason="why not")


@pytest.mark.parametrize("columns", ["20", "40", "80", "400"])
def test_the_whole_call_is_shown(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", columns)
    arguments: JsonObject = {"note": "word " * 200, "to": "\u3164kim\u202e", "amount": 5000}
    shown = told([asked(arguments)], capsys)
    assert shown.startswith("1askspay{")
    assert ("word" * 200) in shown
    assert r'"to":"\u3164kim\u202e","amount":5000}whynotapprovalc.1' in shown


def test_other_arguments_of_a_person_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    answer = ApprovalGiven(approval_id="c.1", approved=True, arguments={"amount": 1}, by="kim", reason="less")
    assert told([asked({"amount": 9}), answer], capsys).endswith('bykimwithotherarguments:{"amount":1}less')


@pytest.mark.parametrize(
    "arguments, call",
    [
        ({"a": 1, "b-c": "x  y"}, 'pay(a=1, b-c="x  y")'),
        ({'to="kim"), ok(amount': 1}, 'pay("to=\\"kim\\"), ok(amount"=1)'),
        ({"to": "a\u202e\n"}, r'pay(to="a\u202e\n")'),
        ("not an object\n  at all", "pay(not an object at all)"),
    ],
)
def test_a_call_is_told_on_one_line_that_cannot_be_taken_for_another(arguments: object, call: str):
    assert as_call("pay", arguments) == call


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"amount": 1, "amount": 100}', "--arguments: amount is there twice; it must be an object"),
        ('{"amount": NaN}', "--arguments: amount holds NaN"),
        ("[" * 1000, "--arguments is nested deeper than 64 levels"),
        ("{", "--arguments is not JSON"),
        ('{"to": "\udcff"}', "--arguments is not UTF-8"),
        ("@no-such-file", "--arguments: no-such-file: No such file"),
    ],
)
def test_json_on_the_command_line_is_read_as_everybody_reads_it(text: str, problem: str):
    with pytest.raises(InvalidRequest) as refused:
        json_or_file(text, "--arguments", "it must be an object")
    assert str(refused.value).startswith(problem)


def test_what_was_reported_late_is_taken_with_one_command(opspawn: Program):
    async def seed() -> str:
        async with open_test_store(f"sqlite:///{opspawn.directory}/opspawn.db") as store:
            return await reported_late(store, worker="lost")

    task_id = asyncio.run(seed())
    (approval,) = opspawn.json("approvals")
    assert [late["shown"] for late in approval["late_results"]] == ["[1,2,3]"]
    assert "settled" in opspawn("settle", task_id[:13], "call_1", "--late").stdout
    given = next(step for step in opspawn.json("show", task_id) if step.get("kind") == "approval_given")
    assert given["settlement"]["output"] == [1, 2, 3]
    assert "it was settled" in opspawn("settle", task_id, "call_1", "--failed", "no", code=7).stderr
