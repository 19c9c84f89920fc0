"""Who may call which tool, with what: allow, deny, or ask a person.

security     the standard policy: tools by name, by effect, and by rules about arguments
rules        one rule about one argument
folders      a path stays inside of these folders
hosts        a URL leads to one of these hosts
labels       what kinds of data a run has seen
amounts      a number is within bounds, alone and in all; a value is one of a few
sums         which calls a run has made
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.policies.amounts import Between, OneOf
    from agentkit.policies.folders import Inside
    from agentkit.policies.hosts import Hosts
    from agentkit.policies.labels import Labels, labels_of
    from agentkit.policies.rules import Check, Rule
    from agentkit.policies.security import WEEK, Rules, SecurityPolicy
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.policies.amounts": ("Between", "OneOf"),
            "agentkit.policies.folders": ("Inside",),
            "agentkit.policies.hosts": ("Hosts",),
            "agentkit.policies.labels": ("Labels", "labels_of"),
            "agentkit.policies.rules": ("Check", "Rule"),
            "agentkit.policies.security": ("WEEK", "Rules", "SecurityPolicy"),
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
    "Rules",
    "SecurityPolicy",
    "labels_of",
]
