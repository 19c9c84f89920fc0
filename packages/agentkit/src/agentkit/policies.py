"""Who may call which tool: allow, deny, or ask a person."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agentkit.messages import Effect
from agentkit.ports import Allow, Ask, Decision, Deny, Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The standard policy. The strictest rule that fits wins: deny, then ask, then allow.

    Names may be patterns (``*`` and ``?``).

    Attributes:
        allow: only these tools may be called.
        deny: these may not, whatever ``allow`` says.
        ask: a person decides about these.
        ask_effects: a person decides about tools with these effects.
        ask_interrupted: a person decides whether a call that was cut short, and may have taken effect, is repeated;
            otherwise it is repeated without asking.
    """

    allow: Collection[str] = ("*",)
    deny: Collection[str] = ()
    ask: Collection[str] = ()
    ask_effects: Collection[Effect] = ()
    ask_interrupted: bool = True

    async def decide(self, question: Question) -> Decision:
        """Apply the rules; pure."""
        name, spec = question.call.name, question.spec
        if _matches(name, self.deny) or not _matches(name, self.allow):
            return Deny(reason=f"the policy does not allow {name}")
        if question.interrupted and self.ask_interrupted:
            return Ask(
                reason=f"{name} was started, but its result was not recorded: it may have taken effect"
            )
        if spec.approval or _matches(name, self.ask):
            return Ask(reason=f"{name} needs approval")
        if spec.effect in self.ask_effects:
            return Ask(reason=f"tools with the effect {spec.effect} need approval")
        return Allow()


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
