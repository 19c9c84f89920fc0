"""What an agent may do with its tools: every call goes through the loop, with a model that wants the worst."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import (
    Agent,
    Between,
    Hosts,
    Inside,
    MemoryJournal,
    OneOf,
    Rule,
    SecurityPolicy,
    ToolCall,
    UsageError,
    Waiting,
    tool,
)
from agentkit.ports import Allow, Deny, Question
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ApprovalGiven, Ruling, ToolReturned, ToolStarted


@tool(effect="pure")
def read(path: str) -> str:
    """Read a file."""
    return f"read {path}"


@tool(effect="unsafe")
def pay(amount: float, to: str = "shop") -> str:
    """Pay."""
    return f"paid {amount:g} to {to}"


@tool(effect="unsafe")
def shell(command: str) -> str:
    """Run a command."""
    raise AssertionError(command)


def call(name: str, id_: str = "c1", **arguments) -> ToolCall:
    return ToolCall(id=id_, name=name, arguments=arguments)


def of(transcript, kind):
    return [recorded.step for recorded in transcript if isinstance(recorded.step, kind)]


# --- what the model sees and names -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [SecurityPolicy(allow=["read"]), SecurityPolicy(deny=["sh*", "pay"])])
async def test_a_tool_that_is_not_allowed_is_not_shown_and_cannot_be_named(policy):
    model = ScriptedModel([call("shell", command="rm -rf /"), "I may not."])
    outcome = await Agent(model, tools=[read, pay, shell], policy=policy).run("go")
    assert outcome.unwrap() == "I may not."
    assert [[spec.name for spec in request.tools] for request in model.requests] == [["read"]] * 2
    (returned,) = of(outcome.transcript, ToolReturned)
    assert returned.error is not None
    assert returned.error.code == "tool_denied"
    assert returned.ruling == Ruling(decision="deny", reason="the policy does not allow shell")
    assert of(outcome.transcript, ToolStarted) == []


async def test_a_made_up_tool_is_answered_with_those_that_are_shown():
    model = ScriptedModel([call("sudo"), "No."])
    outcome = await Agent(model, tools=[read, shell], policy=SecurityPolicy(deny=["shell"])).run("go")
    (returned,) = of(outcome.transcript, ToolReturned)
    assert returned.error is not None
    assert returned.error.message == "there is no tool 'sudo'; there are: read"


# --- every decision is recorded, at no cost of its own -----------------------------------------------------------


class CountingJournal(MemoryJournal):
    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    async def append(self, step):
        self.commits += 1
        return await super().append(step)

    async def append_all(self, steps):
        self.commits -= len(steps) - 1  # one commit for all of them
        return await super().append_all(steps)


BOUNDED = SecurityPolicy(rules=[Rule(tools=["pay"], argument="amount", check=Between(most=100))])


@pytest.mark.parametrize("policy", [SecurityPolicy(), BOUNDED])
async def test_a_decision_costs_no_write_of_its_own(policy):
    journal = CountingJournal()
    model = ScriptedModel([call("pay", amount=5), call("read", "c2", path="x"), "done"])
    outcome = await Agent(model, tools=[read, pay], policy=policy).run("go", journal=journal)
    assert outcome.unwrap() == "done"
    assert journal.commits == 7  # begun; replied, started, returned; replied, returned; replied and ended


async def test_why_a_call_was_allowed_is_known_before_it_is_made():
    model = ScriptedModel([call("pay", amount=5), "done"])
    outcome = await Agent(model, tools=[pay], policy=BOUNDED).run("go")
    (started,) = of(outcome.transcript, ToolStarted)
    assert started.ruling == Ruling(decision="allow", reason="the rules about amount hold")
    assert of(outcome.transcript, ToolReturned)[0].ruling is None  # told once


async def test_the_model_is_told_why_a_call_was_refused_and_goes_on():
    model = ScriptedModel([call("pay", amount=1e6), call("pay", "c2", amount=99), "paid"])
    outcome = await Agent(model, tools=[pay], policy=BOUNDED).run("go")
    assert outcome.unwrap() == "paid"
    refused, paid = of(outcome.transcript, ToolReturned)
    assert refused.error is not None
    assert refused.error.message == "not allowed: amount must be at most 100"
    assert "must be at most 100" in str(model.requests[1].messages)
    assert paid.output == "paid 99 to shop"


async def test_a_rule_may_ask_a_person_instead():
    policy = SecurityPolicy(
        rules=[Rule(tools=["pay"], argument="amount", check=Between(most=100), otherwise="ask")]
    )
    journal = MemoryJournal()
    agent = Agent(ScriptedModel([call("pay", amount=5000), "done"]), tools=[pay], policy=policy)
    waiting = await agent.run("go", journal=journal)
    assert isinstance(waiting, Waiting)
    assert waiting.on[0].reason == "amount must be at most 100"
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    assert (await agent.run(journal=journal)).unwrap() == "done"


async def test_what_the_policy_forbids_by_now_no_approval_permits():
    journal = MemoryJournal()
    model = ScriptedModel([call("pay", amount=5), "no"])
    waiting = await Agent(model, tools=[pay], policy=SecurityPolicy(ask=["pay"])).run("go", journal=journal)
    assert isinstance(waiting, Waiting)
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    stricter = SecurityPolicy(ask=["pay"], deny=["pay"])
    outcome = await Agent(model, tools=[pay], policy=stricter).run(journal=journal)
    assert of(outcome.transcript, ToolStarted) == []
    assert of(outcome.transcript, ToolReturned)[0].ruling == Ruling(
        decision="deny", reason="the policy does not allow pay"
    )


# --- arguments ---------------------------------------------------------------------------------------------------


async def verdict(rule: Rule, **arguments) -> str | None:
    """Why a call is refused; ``None`` where it is not."""
    name = next(iter(rule.tools))
    spec = {"read": read, "pay": pay}[name].spec
    decided = await SecurityPolicy(rules=[rule]).decide(Question(call=call(name, **arguments), spec=spec))
    assert isinstance(decided, Allow | Deny)
    return decided.reason if isinstance(decided, Deny) else None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("data/keys", "database", "data/Übung", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/way_out").symlink_to(tmp_path / "secret")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data/loop")
    (tmp_path / "data/deep").mkdir()
    (tmp_path / "secret/inner").mkdir()
    (tmp_path / "data/deep/down").symlink_to(tmp_path / "secret/inner")
    (tmp_path / "also_data").symlink_to(tmp_path / "data")
    return tmp_path


def paths(tree: Path) -> Rule:
    check = Inside(folders=[str(tree / "data")], but_not=[str(tree / "data/keys")])
    return Rule(tools=["read"], argument="path", check=check)


@pytest.mark.parametrize(
    "path",
    [
        *("a.txt", "./a.txt", "deep/../a.txt", "deep//a.txt", "{}/data/a.txt", "{}/also_data/a.txt", "."),
        *("Übung/ü.txt", unicodedata.normalize("NFD", "Übung/ü.txt"), "100%.txt", "a b.txt", "keyside"),
    ],
)
async def test_paths_inside_of_the_folder_pass(tree: Path, path: str):
    assert await verdict(paths(tree), path=path.format(tree)) is None


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../secret/a",
            "deep/../../secret",
            "..",
            "/etc/passwd",
            "{}/database/a",
            "{}/data/../secret",
            "{}",
        ),
        *("way_out/a", "./way_out", "loop/../../secret", "/proc/self/cwd/../../../etc", "/proc/self/cwd"),
        "deep/down/../a",  # the kernel lands in secret/, a program that tidies up first does not
        *("..\\secret\\a", "%2e%2e/secret", "%252e%252e%252fsecret", "..%2fsecret"),
        *("\uff0e\uff0e/secret", "\u2025/secret", "..\uff0fsecret", "\u2024\u2024/secret"),
        *(
            "~/a",
            "~root/a",
            "file:///etc/passwd",
            "file:a",
            "C:\\a",
            "http://x/a",
            "a\x00.txt",
            "a\n",
            "\ud800",
        ),
        *("keys", "keys/a", "deep/../keys/a", "KEYS/a", "Keys", "\uff4beys/a", "\u212aeys/a", ""),
    ],
)
async def test_paths_that_lead_out_of_the_folder_are_refused(tree: Path, path: str):
    assert await verdict(paths(tree), path=path.format(tree)) is not None


@given(st.lists(st.sampled_from(["..", ".", "deep", "way_out", "down", "a", "keys", "", "loop"]), max_size=7))
async def test_whatever_passes_is_truly_inside(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "whatever"
    if not root.exists():
        (root / "data/deep").mkdir(parents=True)
        (root / "data/keys").mkdir()
        (root / "secret/inner").mkdir(parents=True)
        (root / "data/way_out").symlink_to(root / "secret")
        (root / "data/deep/down").symlink_to(root / "secret/inner")
    path = "/".join(parts)
    if await verdict(paths(root), path=path) is None:
        for form in (path, os.path.normpath(path)):
            found = Path(os.path.realpath(root / "data" / form))
            assert found.is_relative_to(root / "data")
            assert not found.is_relative_to(root / "data/keys")


HOSTS = Hosts(
    allowed=[
        "example.com",
        "*.example.org",
        "api.example.net:8443",
        "10.0.0.7",
        "[2001:db8::1]:*",
        "xn--bcher-kva.example",
    ]
)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://example.com",
            "http://example.com/",
            "HTTPS://EXAMPLE.COM/a?b=c#d",
            "https://example.com:443/x",
        ),
        *("https://example.com./a", "https://a.example.org", "https://a.b.example.org/@x", "example.com"),
        *("https://api.example.net:8443/v1", "http://10.0.0.7", "http://[2001:db8:0:0::1]:99/", "10.0.0.7"),
        *(
            "https://xn--bcher-kva.example/",
            "https://example.com/?next=http://evil.test/",
            "api.example.net:8443",
        ),
    ],
)
async def test_urls_to_known_hosts_pass(url: str):
    assert await verdict(Rule(tools=["read"], argument="path", check=HOSTS), path=url) is None


@pytest.mark.parametrize(
    "url",
    [
        *("https://evil.test", "https://example.com.evil.test", "https://evilexample.com", "https://example.org"),
        *("https://example.com@evil.test/", "https://user:example.com@evil.test", "https://example.com:x@evil.test"),
        *("https://example.com\\@evil.test", "https://evil.test\\.example.com", "https://evil.test#@example.com"),
        *("https://example.com?@evil.test/", "https://example.com#@evil.test/"),
        *("https://evil.test?@example.com", "https://evil.test/example.com", "https:/example.com", "https:example.com"),
        *("//example.com", "https:///example.com", " https://example.com", "https://example.com\n", "https://exa\tmple.com"),
        *("https://example.com:8443", "https://api.example.net", "ftp://example.com", "file://example.com/etc/passwd"),
        *("https://bücher.example", "https://example。com", "https://ｅxample.com", "https://exam\u00adple.com", "https://%65xample.com"),
        *("http://167772167", "http://0xa000007", "http://10.7", "http://012.0.0.7", "http://0xa.0.0.7", "http://10.0.0.07"),
        *("http://[::ffff:127.0.0.1]", "http://127.1", "http://2130706433", "http://[::1%25eth0]", "http://0", "http://[::]"),
        *("https://example.com..", "https://.example.org", "https://example.com:", "https://example.com:99999999"),
        "javascript:1",
    ],
)  # fmt: skip
async def test_urls_that_lead_elsewhere_or_can_be_read_in_two_ways_are_refused(url: str):
    assert await verdict(Rule(tools=["read"], argument="path", check=HOSTS), path=url) is not None


async def test_an_address_is_one_address_however_it_is_wrapped():
    rule = Rule(tools=["read"], argument="path", check=HOSTS)
    assert await verdict(rule, path="http://[::ffff:10.0.0.7]/") is None
    assert await verdict(rule, path="http://[::ffff:10.0.0.8]/") is not None


@pytest.mark.parametrize("amount", [0.5, 1, 99.9, 100])
async def test_amounts_within_bounds_pass(amount):
    assert (
        await verdict(
            Rule(tools=["pay"], argument="amount", check=Between(least=0.5, most=100)), amount=amount
        )
        is None
    )


@pytest.mark.parametrize(
    "amount", [0, -1, 100.01, 1e300, 10**400, True, "5", "1e1", None, [5], {"value": 5}, float("inf"), float("nan")]
)  # fmt: skip
async def test_what_is_no_amount_within_bounds_is_refused(amount):
    rule = Rule(tools=["pay"], argument="amount", check=Between(least=0.5, most=100))
    assert await verdict(rule, amount=amount) is not None


@pytest.mark.parametrize(
    "value, passes", [("shop", True), (1, True), (True, False), (1.0, False), ("1", False), ("Shop", False)]
)
async def test_one_of_a_few_values(value, passes):
    rule = Rule(tools=["pay"], argument="to", check=OneOf(values=["shop", 1]))
    assert (await verdict(rule, amount=1, to=value) is None) is passes


@pytest.mark.parametrize(
    "arguments, passes",
    [
        *(
            ({"to": {"urls": ["https://example.com", "https://a.example.org"]}}, True),
            ({"to": {"urls": []}}, False),
        ),
        *(
            ({"to": {"urls": ["https://example.com", "https://evil.test"]}}, False),
            ({"to": {"urls": [3]}}, False),
        ),
        *(
            ({"to": {"urls": {"a": "https://example.com"}}}, True),
            ({"to": {}}, False),
            ({"to": 3}, False),
            ({}, False),
        ),
        ({"to": {"urls": ["https://example.com"], "URLs": ["https://evil.test"]}}, False),
        ({"to": {"urls": ["https://example.com"]}, "ＴＯ": {"urls": ["https://evil.test"]}}, False),
    ],
)
async def test_arguments_inside_of_others(arguments, passes):
    rule = Rule(tools=["pay"], argument="to.urls.*", check=HOSTS)
    assert (await verdict(rule, **arguments) is None) is passes


async def test_an_optional_argument_may_be_left_out_and_is_looked_at_where_it_is_not():
    rule = Rule(tools=["pay"], argument="to", check=OneOf(values=["shop"]), optional=True, reason="shop only")
    assert await verdict(rule, amount=1) is None
    assert await verdict(rule, amount=1, to="me") == "shop only"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Inside(folders=["data"]), "absolute"),
        (lambda: Inside(folders="/data"), "list"),
        (lambda: Inside(folders=["/data"], base="x"), "absolute"),
        (lambda: Hosts(allowed=["*"]), "'\\*' is no host"),
        (lambda: Hosts(allowed=["https://example.com"]), "is no host"),
        (lambda: Hosts(allowed=["bücher.example"]), "xn--"),
        (lambda: Hosts(allowed=["*.10.0.0.1"]), "is no host"),
        (lambda: Hosts(allowed=["10.1"]), "is no host"),
        (Between, "least"),
        (lambda: Between(least=3, most=2), "least"),
        (lambda: OneOf(values=[]), "list"),
        (lambda: Rule(tools="pay", argument="amount", check=Between(most=1)), "list of tools"),
        (lambda: Rule(tools=["pay"], argument="a..b", check=Between(most=1)), "names no argument"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_where_it_is_written(make, words):
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize(
    "name", ["Amount", "AMOUNT", "amount ", "a_mount", "a-mount", "\uff41mount", "amount\u200b", "amount\x00"]
)
def test_an_argument_that_a_lax_tool_would_take_for_another_is_refused(name: str):
    rule = Rule(tools=["pay"], argument="amount", check=Between(most=100))
    assert rule.problem({"amount": 5, name: 500}) == "amount must be spelled as the tool does"
    assert rule.problem({"amount": 5, "amounts": 500}) is None
