"""Model settings of an agent: bounds and choices that most models support, under one name each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, Literal, TypeAlias, TypeGuard, cast, get_args

from agentkit.errors import UnsupportedSetting, UsageError
from agentkit.messages import ModelRequest, ToolSpec

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model thinks before it answers; each knows some of them."""

SETTINGS = ("temperature", "top_p", "seed", "reasoning_effort", "tool_choice", "stop", "max_tokens")
"""Fields of a request that come from the settings of an agent."""

_MAX_STOPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What is asked of the model with each request of an agent. What is ``None`` is left to the provider.

    They go before the fields of an endpoint's ``body``. A setting that the agent's model is known not to take is
    refused when the agent is declared or its model is opened; one that its provider refuses fails the run. A model that
    is asked as a fallback is asked without the settings that it does not take: a warning is logged, and the step of its
    reply names them.

    Attributes:
        max_tokens: the longest reply, its reasoning included. Where money is limited, and less of it is left, a reply
            may be shorter.
        temperature: randomness, from 0 to 2.
        top_p: only the likeliest tokens that are together as likely as this are drawn from, above 0 and up to 1.
        seed: for replies that can be had again, as far as the provider goes.
        reasoning_effort: how much the model thinks before it answers.
        tool_choice: ``auto``; ``none``, no tool may be called; ``required``, or the name of a tool, for the first reply
            of a run, which must call one: what is done with the result is for the model to say.
        stop: the model stops before it writes any of these.

    Raises:
        UsageError: a value cannot be right; the text names the field.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    tool_choice: str | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if value is not None and (problem := _problem(name, value)) is not None:
                raise UsageError(f"settings: {name} {problem}, not {value!r}"[:300])

    def of(self, request: ModelRequest, *, has_called: bool) -> ModelRequest:
        """``request`` with these settings.

        Args:
            request: as the planning has made it; its own stops are kept.
            has_called: a tool was called in the run.
        """
        if self == _NONE:
            return request
        choice = self.tool_choice
        if has_called and choice not in {None, "auto", "none"}:
            choice = None
        return replace(
            request,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            reasoning_effort=self.reasoning_effort,
            tool_choice=choice,
            stop=(*request.stop, *(each for each in self.stop if each not in request.stop)),
        )


def checked(settings: ModelSettings, check: Callable[[ModelRequest], None], agent: str) -> None:
    """Check the settings of an agent against its model, before anything is sent.

    Args:
        settings: of the agent.
        check: of the model: raises where it does not take a setting of the request.
        agent: the name of the agent.

    Raises:
        UsageError: the model does not take one of them.
    """
    if settings == _NONE:
        return
    tool = ToolSpec(name=settings.tool_choice or "tool", description="", parameters={})
    try:
        check(settings.of(ModelRequest(messages=(), tools=(tool,)), has_called=False))
    except UnsupportedSetting as error:
        raise UsageError(f"agent {agent}: settings: {error.setting}: {error}") from None


def without(request: ModelRequest, refused: Mapping[str, int | None]) -> ModelRequest:
    """Return ``request`` without these settings; one with a bound is kept up to it."""
    if not refused:
        return request
    empty = ModelRequest(messages=())
    changes = {name: getattr(empty, name) if bound is None else bound for name, bound in refused.items()}
    return replace(request, **cast("dict[str, Any]", changes))


def is_set(request: ModelRequest, setting: str) -> bool:
    """Whether the request has a value for a setting."""
    return setting in SETTINGS and getattr(request, setting) not in (None, ())


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _problem(name: str, value: object) -> str | None:
    match name:
        case "max_tokens":
            return None if _is_whole(value) and value > 0 else "must be a whole number above zero"
        case "seed":
            return None if _is_whole(value) and abs(value) < 2**63 else "must be a whole number of 64 bits"
        case "temperature":
            return None if _is_number(value) and 0 <= value <= 2 else "must be a number from 0 to 2"
        case "top_p":
            return None if _is_number(value) and 0 < value <= 1 else "must be a number above 0 and up to 1"
        case "reasoning_effort":
            return None if value in get_args(Effort) else f"must be one of {', '.join(get_args(Effort))}"
        case "tool_choice":
            told = isinstance(value, str) and value.strip()
            return None if told else "must be auto, none, required or the name of a tool"
        case _:
            texts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
            fits = len(texts) <= _MAX_STOPS and all(isinstance(each, str) and each for each in texts)
            return None if fits else f"must be at most {_MAX_STOPS} texts"


_NONE = ModelSettings()
