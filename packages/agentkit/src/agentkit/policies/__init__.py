"""Policies: decisions about tool calls. A call is allowed, denied, or put before a person.

security     the standard policy: tools by name, by effect, and by rules about arguments
rules        one rule about one argument; a number is within bounds, a value is one of a few
paths        a path stays inside of these folders
hosts        a URL leads to one of these hosts
run_history  what kinds of data a run has seen, and which calls it has made
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.policies.hosts import Hosts
    from agentkit.policies.paths import Inside
    from agentkit.policies.rules import Between, Check, OneOf, Rule
    from agentkit.policies.run_history import Labels, labels_of
    from agentkit.policies.security import WEEK, SecurityPolicy
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.policies.hosts": ("Hosts",),
            "agentkit.policies.paths": ("Inside",),
            "agentkit.policies.rules": (
                "Between",
                "Check",
                "OneOf",
                "Rule",
            ),
            "agentkit.policies.run_history": (
                "Labels",
                "labels_of",
            ),
            "agentkit.policies.security": (
                "SecurityPolicy",
                "WEEK",
            ),
        },
    )

__all__ = [
    "WEEK",
    "Between",
    "Check",
    "Hosts",
    "Inside",
    "Labels",
    "OneOf",
    "Rule",
    "SecurityPolicy",
    "labels_of",
]
