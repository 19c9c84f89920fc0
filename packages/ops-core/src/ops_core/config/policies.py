"""Policies in ``[agents.NAME.policy]``: what an agent may do with its tools, as ``opspawn.toml`` declares it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from math import isinf
from pathlib import Path
from typing import Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from agentkit.errors import UsageError
from agentkit.messages import Effect, ToolSpec
from agentkit.policies import WEEK, Between, Check, Hosts, Inside, OneOf, Rule, SecurityPolicy
from ops_core.durations import SecondsOrEver

_KINDS = ("paths", "hosts", "at_least, at_most, at_most_per_run", "one_of")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class RuleTable(_Strict):
    """``[[agents.NAME.policy.rules]]``: see :class:`agentkit.policies.Rule`. It holds one kind of check.

    Attributes:
        tools: their names, or patterns.
        argument: its name; ``options.path`` is one inside of another, ``urls.*`` each item.
        paths: folders in which a path must stay; relative ones are relative to the folder of the file.
        but_not: excluded from ``paths``.
        base: what a relative path of a call is relative to; the folder of the file where not given.
        hosts: to which a URL must lead.
        schemes: of such URLs.
        at_least: not smaller.
        at_most: not greater.
        at_most_per_run: nor is the sum of the amounts of all calls of a run that the rule is about.
        one_of: these values.
        otherwise: ``deny`` or ``ask``.
        optional: a call without the argument passes.
        reason: told instead of what the check says.
    """

    tools: tuple[str, ...] = Field(min_length=1)
    argument: str = Field(min_length=1)
    paths: tuple[str, ...] | None = None
    but_not: tuple[str, ...] | None = None
    base: str | None = None
    hosts: tuple[str, ...] | None = None
    schemes: tuple[Literal["https", "http", "wss", "ws", "ftp"], ...] | None = None
    at_least: float | None = None
    at_most: float | None = None
    at_most_per_run: float | None = None
    one_of: tuple[JsonValue, ...] | None = None
    otherwise: Literal["deny", "ask"] = "deny"
    optional: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _one_check(self) -> Self:
        amounts = any(bound is not None for bound in (self.at_least, self.at_most, self.at_most_per_run))
        given = [self.paths is not None, self.hosts is not None, amounts, self.one_of is not None]
        if sum(given) != 1:
            message = f"a rule has exactly one of {'; '.join(_KINDS)}"
            raise ValueError(message)
        if self.paths is None and (self.but_not is not None or self.base is not None):
            message = "but_not and base belong to a rule with paths"
            raise ValueError(message)
        if self.hosts is None and self.schemes is not None:
            message = "schemes belongs to a rule with hosts"
            raise ValueError(message)
        return self

    def as_rule(self, folder: Path) -> Rule:
        """The rule.

        Args:
            folder: that of the file, an absolute path.

        Raises:
            UsageError: a value makes no sense.
        """
        return Rule(
            tools=self.tools,
            argument=self.argument,
            check=self._check(folder),
            otherwise=self.otherwise,
            optional=self.optional,
            reason=self.reason,
        )

    def _check(self, folder: Path) -> Check:
        if self.paths is not None:
            return Inside(
                folders=[str(folder / path) for path in self.paths],
                but_not=[str(folder / path) for path in self.but_not or ()],
                base=str(folder / (self.base or "")),
            )
        if self.hosts is not None:
            return Hosts(
                allowed=self.hosts, schemes=("https", "http") if self.schemes is None else self.schemes
            )
        if self.one_of is not None:
            return OneOf(values=self.one_of)
        return Between(least=self.at_least, most=self.at_most, most_per_run=self.at_most_per_run)


class PolicyTable(_Strict):
    """``[agents.NAME.policy]``: see :class:`agentkit.policies.SecurityPolicy`."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    ask_effects: tuple[Effect, ...] = ()
    ask_interrupted: bool = True
    approval_seconds: SecondsOrEver = WEEK
    rules: tuple[RuleTable, ...] = ()
    private: tuple[str, ...] = ()
    private_input: bool = False
    trusted: tuple[str, ...] = ()
    outside: tuple[str, ...] | None = None

    def as_policy(self, folder: Path, tools: Mapping[str, ToolSpec] | None) -> SecurityPolicy:
        """The policy.

        Args:
            folder: that of the file, an absolute path.
            tools: all tools that the agent has; ``None`` where that is known only when it runs.

        Raises:
            PolicyError: a value makes no sense, or names a tool or an argument that the agent does not have.
        """
        rules: list[Rule] = []
        for index, table in enumerate(self.rules):
            try:
                rules.append(table.as_rule(folder))
            except UsageError as error:
                raise PolicyError(f"rules.{index}", str(error)) from None
        if tools is not None:
            for field, problem in self._unknown(tools):
                raise PolicyError(field, problem)
        return SecurityPolicy(
            allow=self.allow,
            deny=self.deny,
            ask=self.ask,
            ask_effects=self.ask_effects,
            ask_interrupted=self.ask_interrupted,
            approval_seconds=None if isinf(self.approval_seconds) else self.approval_seconds,
            rules=tuple(rules),
            private=self.private,
            private_input=self.private_input,
            trusted=self.trusted,
            outside=self.outside,
        )

    def _unknown(self, tools: Mapping[str, ToolSpec]) -> Iterator[tuple[str, str]]:
        """What names nothing: a rule with a slip of the pen would hold nobody back."""
        there_are = ", ".join(tools) or "none"
        named = [("allow", self.allow), ("deny", self.deny), ("ask", self.ask)]
        named += [("private", self.private), ("trusted", self.trusted), ("outside", self.outside or ())]
        named += [(f"rules.{index}.tools", rule.tools) for index, rule in enumerate(self.rules)]
        for field, patterns in named:
            for index, pattern in enumerate(patterns):
                in_general = not field.startswith("rules") and ("*" in pattern or "?" in pattern)
                if not in_general and not any(fnmatchcase(tool, pattern) for tool in tools):
                    yield f"{field}.{index}", f"the agent has no tool {pattern!r}; it has: {there_are}"
        for index, rule in enumerate(self.rules):
            first = rule.argument.partition(".")[0]
            for tool, spec in tools.items():
                if first != "*" and any(fnmatchcase(tool, pattern) for pattern in rule.tools):
                    known = cast("Mapping[str, JsonValue]", spec.parameters.get("properties", {}))
                    if first not in known:
                        has = ", ".join(known) or "none"
                        yield f"rules.{index}.argument", f"{tool} has no argument {first!r}; it has: {has}"


class PolicyError(Exception):
    """A declared policy makes no sense.

    Attributes:
        field: below the policy.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
