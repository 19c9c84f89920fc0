"""Provider state that all runs of a process share: rate limiter and circuit breaker of each provider."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.errors import ModelError, ModelResting
from agentkit.messages import ModelRequest
from agentkit.models.resilience.circuit_breaker import Circuit, CircuitSettings, CircuitState
from agentkit.models.resilience.rate_limiter import Limiter, RateLimits
from agentkit.models.resilience.retry import reaction_to
from agentkit.models.settings import SETTINGS

log = logging.getLogger("agentkit.models")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """How one call of a model went, for metrics.

    Attributes:
        model: ``provider:name``.
        seconds: how long it took.
        error: code of the error; ``None`` for a reply.
    """

    model: str
    seconds: float
    error: str | None = None


OnCall: TypeAlias = Callable[[CallEnded], None]


_WELL = Circuit()


class Breaker:
    """Remembers how the last calls of one model went."""

    def __init__(self, model: str, breaking: CircuitSettings) -> None:
        self._model = model
        self._breaking = breaking
        self._circuit = Circuit()

    @property
    def state(self) -> CircuitState:
        return self._circuit.state(_now())

    def ask(self) -> None:
        """A call is about to be made.

        Raises:
            ModelResting: it is not to be made.
        """
        if self._circuit.until is None:
            return
        seconds = self._circuit.seconds_left(_now(), self._breaking)
        if seconds is not None:
            raise ModelResting(
                f"{self._model} was not asked: its last {self._circuit.failures} calls have failed; "
                f"again in {seconds:.0f} s",
                retry_after=seconds,
            )
        self._circuit = self._circuit.asked(_now())

    def ended(self, error: ModelError | None) -> None:
        if error is not None and reaction_to(error).broken:
            self._circuit = self._circuit.failed(_now(), self._breaking)
        elif self._circuit != _WELL:
            self._circuit = self._circuit.answered()

    def abandoned(self) -> None:
        self._circuit = self._circuit.abandoned()


class ProviderState:
    """What all runs of a process share about each provider: how much it may be sent, and whether it works.

    Use it in one event loop at a time.

    Args:
        limits: by provider (``openai``, or the name of an endpoint) or by model (``openai:gpt-5``); for a model that
            has both, both count. A provider stands for one key: give another key another endpoint.
        breaking: when a model whose calls fail is left alone.
        on_call: told how each call went; must not block.
    """

    def __init__(
        self,
        limits: Mapping[str, RateLimits] | None = None,
        *,
        breaking: CircuitSettings | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._limits: Mapping[str, RateLimits] = {} if limits is None else limits
        self._breaking = CircuitSettings() if breaking is None else breaking
        self.on_call = on_call
        self._limiters: dict[str, Limiter] = {}
        self._breakers: dict[str, Breaker] = {}
        self._limiters_of: dict[str, tuple[Limiter, ...]] = {}
        self._refused: dict[tuple[str, str, object], int | None] = {}

    def limiters(self, model: str) -> tuple[Limiter, ...]:
        """That of the model, and that of its provider where it has a limit."""
        if model not in self._limiters_of:
            provider = model.partition(":")[0]
            names = (model, provider) if provider in self._limits and provider != model else (model,)
            self._limiters_of[model] = tuple(self._limiter(name) for name in names)
        return self._limiters_of[model]

    def _limiter(self, name: str) -> Limiter:
        if name not in self._limiters:
            self._limiters[name] = Limiter(self._limits.get(name) or RateLimits())
        return self._limiters[name]

    def refused_settings(self, model: str, request: ModelRequest) -> dict[str, int | None]:
        """Return the settings of ``request`` that a model has refused with these values, each with its bound."""
        if not self._refused:
            return {}
        given = {name: getattr(request, name) for name in SETTINGS}
        return {
            name: self._refused[model, name, value]
            for name, value in given.items()
            if (model, name, value) in self._refused
        }

    def refuses(self, model: str, setting: str, value: object, most: int | None) -> None:
        """Remember that a model refuses a setting with this value, so that it is not asked with it again."""
        self._refused[model, setting, value] = most
        how = f"is kept to {most}" if most is not None else "is left out"
        log.warning("%s does not take the setting %s as it is: as a fallback it %s", model, setting, how)

    def counts_tokens(self, model: str) -> bool:
        """Whether what a call reads has to be estimated."""
        if not self._limits:
            return False
        found = (self._limits.get(name) for name in (model, model.partition(":")[0]))
        return any(limits is not None and limits.tokens_per_minute is not None for limits in found)

    def breaker(self, model: str) -> Breaker:
        """That of the model."""
        if model not in self._breakers:
            self._breakers[model] = Breaker(model, self._breaking)
        return self._breakers[model]

    def circuits(self) -> Mapping[str, CircuitState]:
        """How each model stands that was asked."""
        return {model: breaker.state for model, breaker in self._breakers.items()}

    def queues(self) -> Mapping[str, tuple[int, int]]:
        """For each provider or model with a limit: calls under way, and calls that wait for their turn."""
        return {
            name: (limiter.under_way, limiter.waiting)
            for name, limiter in self._limiters.items()
            if name in self._limits
        }


def _now() -> float:
    return asyncio.get_running_loop().time()
