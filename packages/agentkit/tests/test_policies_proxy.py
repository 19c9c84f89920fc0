"""What a policy says about a tool holds where a model reaches it through another one."""

from typing import Any

import pytest

from agentkit import Agent, Between, OneOf, Rule, SecurityPolicy, ToolCall
from agentkit.mcp import McpPool, McpServer
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ToolReturned


def through_the_proxy(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall(
        id="c", name="mcp_proxy", arguments={"server": "tickets", "tool": tool, "arguments": arguments}
    )


async def behind_a_proxy(policy: SecurityPolicy, *calls: ToolCall) -> Any:
    """What comes of these calls. The server is not there: what is let through fails, and was let through."""
    pool = McpPool([McpServer(name="tickets", command="there-is-no-such-program")])
    async with pool:
        agent = Agent(ScriptedModel.by_turn([*calls, "done"]), tools=[pool.proxy(["tickets"])], policy=policy)
        return await agent.run("go")


@pytest.mark.parametrize(
    "policy, reason",
    [
        (SecurityPolicy(deny=["tickets__delete*"]), "the policy does not allow tickets__delete_all"),
        (
            SecurityPolicy(rules=[Rule(tools=["tickets__*"], argument="count", check=Between(most=3))]),
            "count must be at most 3",
        ),
        (
            SecurityPolicy(rules=[Rule(tools=["tickets__*"], argument="queue", check=OneOf(values=["a"]))]),
            "queue must be given",
        ),
    ],
)
async def test_what_a_policy_denies_is_denied_behind_a_proxy_too(policy: SecurityPolicy, reason: str):
    outcome = await behind_a_proxy(policy, through_the_proxy("delete_all", count=4))
    (returned,) = [each.step for each in outcome.transcript if isinstance(each.step, ToolReturned)]
    assert (returned.ruling.decision, returned.ruling.reason) == ("deny", reason)


@pytest.mark.parametrize(
    "policy, reason",
    [
        (SecurityPolicy(ask=["tickets__delete*"]), "tickets__delete_all needs approval"),
        (
            SecurityPolicy(private=["tickets__customer*"], outside=["tickets__delete*"]),
            "tickets__delete_all reaches out",
        ),
        (
            SecurityPolicy(
                rules=[
                    Rule(
                        tools=["tickets__*"], argument="count", check=Between(most_per_run=5), otherwise="ask"
                    )
                ]
            ),
            "in all calls of a run together",
        ),
    ],
)
async def test_a_person_is_asked_about_what_is_behind_a_proxy(policy: SecurityPolicy, reason: str):
    outcome = await behind_a_proxy(
        policy, through_the_proxy("customers", count=3), through_the_proxy("delete_all", count=3)
    )
    (asked,) = outcome.on
    assert reason in asked.reason
    assert asked.arguments["tool"] == "delete_all"


async def test_what_is_trusted_behind_a_proxy_is_no_strangers_word():
    policy = SecurityPolicy(private=["tickets__customers"], trusted=["tickets__*"], outside=["mcp_proxy"])
    outcome = await behind_a_proxy(policy, through_the_proxy("customers"), through_the_proxy("delete_all"))
    assert outcome.unwrap() == "done"
