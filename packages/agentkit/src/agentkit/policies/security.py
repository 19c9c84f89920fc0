"""Standard security policy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from agentkit.errors import UsageError
from agentkit.messages import Effect, ToolCall, ToolSpec
from agentkit.policies.rules import Rule
from agentkit.policies.run_history import calls_made, labels_of
from agentkit.ports import Allow, Ask, Behind, Decision, Deny, Question

WEEK = 7 * 24 * 3600.0
"""So many seconds a person has to answer, unless the policy says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityPolicy:
    """What an agent may do with its tools. The strictest answer wins: deny, then ask, then allow.

    Names may be patterns (``*`` and ``?``). A tool whose name is denied is not shown to the model. Where one tool only
    passes calls on to others, as ``mcp_proxy`` does, all that is said of these holds for such a call, too; only
    ``allow`` is about the tools that the model is shown.

    Attributes:
        allow: only these tools may be called.
        deny: these may not, whatever ``allow`` says.
        ask: a person decides about these.
        ask_effects: a person decides about tools with these effects.
        ask_interrupted: a person decides whether a call that was cut short, and may have taken effect, is repeated;
            otherwise it is repeated without asking.
        approval_seconds: a person has so long to answer, then the call is refused; ``None`` for ever.
        rules: what arguments must be like.
        private: tools whose results are private data, by name or pattern.
        private_input: so is the input of each run.
        trusted: tools whose results are our own words; those of all others may have been written by anybody.
        outside: tools with whose calls data can leave; where not given, all that reach out
            (``reaches_out`` of a tool).

    A run that has seen untrusted words and holds private data needs a person for each call with which data can leave:
    whoever wrote the words may be asking for the data. Without private data nothing of this applies.

    Raises:
        UsageError: ``approval_seconds`` is not positive.
    """

    allow: Collection[str] = ("*",)
    deny: Collection[str] = ()
    ask: Collection[str] = ()
    ask_effects: Collection[Effect] = ()
    ask_interrupted: bool = True
    approval_seconds: float | None = WEEK
    rules: Collection[Rule] = ()
    private: Collection[str] = ()
    private_input: bool = False
    trusted: Collection[str] = ()
    outside: Collection[str] | None = None

    def __post_init__(self) -> None:
        if self.approval_seconds is not None and not self.approval_seconds > 0:
            message = "approval_seconds must be positive seconds"
            raise UsageError(message)

    def offers(self, spec: ToolSpec) -> bool:
        """Whether the model is shown the tool at all."""
        return _matches(spec.name, self.allow) and not _matches(spec.name, self.deny)

    async def decide(self, question: Question) -> Decision:
        """Apply the rules. Looks at the disk where a rule is about paths, else pure."""
        calls = _with_behind(question.call, question.behind)
        if not self.offers(question.spec) or any(_matches(call.name, self.deny) for call in calls):
            return Deny(reason=f"the policy does not allow {calls[-1].name}")
        held = [(rule, call) for call in calls for rule in self.rules if rule.concerns(call.name)]
        broken = [
            (rule, problem) for rule, call in held if (problem := _problem(rule, call, question)) is not None
        ]
        for rule, problem in broken:
            if rule.otherwise == "deny":
                return Deny(reason=problem)
        why = [
            *self._why_ask(question, [call.name for call in calls]),
            *(problem for _rule, problem in broken),
        ]
        if why:
            return Ask(reason="; ".join(why), expires_seconds=self.approval_seconds)
        return Allow(reason=self._why_allow([rule for rule, _call in held]))

    def _why_ask(self, question: Question, names: Sequence[str]) -> Iterator[str]:
        name, spec = names[-1], question.spec
        if question.interrupted and self.ask_interrupted:
            yield f"{name} was started, but its result was not recorded: it may have taken effect"
        if spec.approval or any(_matches(each, self.ask) for each in names):
            yield f"{name} needs approval"
        elif spec.effect in self.ask_effects:
            yield f"tools with the effect {spec.effect} need approval"
        if (self.private or self.private_input) and self._writes_outside(spec, names):
            seen = labels_of(
                question.transcript,
                is_trusted=lambda tool: _matches(tool, self.trusted),
                is_private=lambda tool: _matches(tool, self.private),
                behind=question.behind,
            )
            if seen.untrusted and (seen.private or self.private_input):
                yield f"{name} reaches out; the run holds private data and has read what strangers may have written"

    def _writes_outside(self, spec: ToolSpec, names: Sequence[str]) -> bool:
        if self.outside is None:
            return spec.lets_data_leave
        return any(_matches(name, self.outside) for name in names)

    def _why_allow(self, rules: Collection[Rule]) -> str:
        """Empty where the policy says nothing about the tool."""
        held = dict.fromkeys(rule.argument for rule in rules)
        return f"the rules about {', '.join(held)} hold" if held else ""


def _with_behind(call: ToolCall, behind: Behind) -> list[ToolCall]:
    """A call, and the one that it passes on."""
    passed_on = behind(call)
    return [call] if passed_on is None else [call, passed_on]


def _problem(rule: Rule, call: ToolCall, question: Question) -> str | None:
    if not rule.adds_up:
        return rule.problem(call.arguments)
    made = [each for each in calls_made(question.transcript, question.under_way) if each.id != call.id]
    meant = [each for one in made for each in _with_behind(one, question.behind)]
    return rule.problem(call.arguments, (each.arguments for each in meant if rule.concerns(each.name)))


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
