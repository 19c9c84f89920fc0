"""Resilient model: one or several models, called until one of them replies. No other module retries model calls.

:class:`ResilientModel` is a :class:`~agentkit.ports.Model`. What is remembered of providers between calls is in a
:class:`~agentkit.models.resilience.provider_state.ProviderState`, which all models of a process share.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

from agentkit.budget.token_estimates import likely_input_tokens
from agentkit.errors import (
    ModelBadResponse,
    ModelError,
    ModelMistaken,
    ModelRateLimited,
    ModelResting,
    ModelUnreachable,
    UnsupportedSetting,
)
from agentkit.messages import (
    BegunAnew,
    Delta,
    ModelReply,
    ModelRequest,
    Part,
    StopReason,
    Usage,
)
from agentkit.models import NO_ENDPOINTS, NamedEndpoint, opened
from agentkit.models.resilience.provider_state import Breaker, CallEnded, ProviderState
from agentkit.models.resilience.rate_limiter import Limiter
from agentkit.models.resilience.retry import (
    Again,
    GiveUp,
    Next,
    NextModel,
    Retries,
    Situation,
    most_hopeful,
    what_next,
)
from agentkit.models.settings import is_set, without
from agentkit.ports import Model, OnDelta
from agentkit.untrusted.boundary import is_meant_for, task_here

Result = TypeVar("Result")

ONCE = Retries(tries=1)
"""No call is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """A call that gave no usable reply, and what is done about it.

    Attributes:
        model: ``provider:name``.
        error: why.
        seconds: how long it took.
        next: what is done about it.
        made: it was really made; otherwise nothing was sent.
        billed: input and output tokens that are billed for it; ``None`` where nobody knows.
    """

    model: str
    error: ModelError
    seconds: float
    next: Next
    made: bool
    billed: tuple[int, int] | None


class CallObserver(Protocol):
    """Stands before the calls for one reply: it permits each one, and is told of those that fail."""

    @property
    def failures(self) -> int:
        """Calls that have failed in an earlier attempt at the same reply."""
        ...

    def seconds_left(self) -> float | None:
        """Seconds until the reply is of no use any more; ``None`` for no limit."""
        ...

    async def calling(self, model: str, request: ModelRequest) -> ModelRequest:
        """A call is about to be made; what is sent is the request that this returns.

        Raises:
            LimitReached: it may not be made.
        """
        ...

    async def failed(self, call: CallFailed) -> None:
        """A call has failed."""
        ...


class _NoGuard:
    """Anything is permitted, and nothing written down."""

    failures = 0

    def seconds_left(self) -> float | None:
        return None

    async def calling(self, model: str, request: ModelRequest) -> ModelRequest:
        del model
        return request

    async def failed(self, call: CallFailed) -> None:
        pass


class OutOfTime(Exception):
    """The turn's time was up before there was a reply."""


class ResilientModel:
    """A chain of models; the first one is asked until it replies, and the next ones where it cannot.

    What is retried, and after what another model is asked, is the table in :mod:`agentkit.models.resilience.retry`.

    Args:
        models: open, the preferred one first.
        retries: how often and how long.
        traffic: what is known of the providers; of its own where not given.
        chance: random numbers in [0, 1].
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        retries: Retries | None = None,
        traffic: ProviderState | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.models = tuple(models)
        self.retries = Retries() if retries is None else retries
        self.traffic = ProviderState() if traffic is None else traffic
        self.chance = chance

    @property
    def name(self) -> str:
        """``provider:name`` of the first model."""
        return self.models[0].name

    def __repr__(self) -> str:
        return f"ResilientModel({', '.join(model.name for model in self.models)})"

    def each(self, change: Callable[[Model], Model]) -> ResilientModel:
        """The same chain, with each model changed: what is put around a model sees every call."""
        return ResilientModel(
            [change(model) for model in self.models],
            retries=self.retries,
            traffic=self.traffic,
            chance=self.chance,
        )

    def check_settings(self, request: ModelRequest) -> None:
        """Check that the first model takes the settings of ``request``; those after it are asked without the others.

        Raises:
            UnsupportedSetting: it does not take one.
        """
        check = getattr(self.models[0], "check_settings", None)
        if check is not None:
            check(request)

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One reply to ``request``. A :class:`~agentkit.messages.BegunAnew` voids what was shown of a failed call.

        Raises:
            ModelError: no model has replied; of several errors the one after which it helps soonest to try again.
        """
        return await self.answer(request, on_delta, _NoGuard())

    async def answer(
        self, request: ModelRequest, on_delta: OnDelta | None, guard: CallObserver
    ) -> ModelReply:
        """One reply to ``request`` within what ``guard`` permits.

        Raises:
            ModelError: as in :meth:`reply`.
            LimitReached: a call was not permitted.
            OutOfTime: the turn's time is up.
        """
        return await _Answering(chain=self, request=request, shown=_Shown(on_delta), guard=guard).answer()


@dataclass(slots=True)
class _Shown:
    """Passes deltas on, and remembers whether there were any of the call that is under way."""

    on_delta: OnDelta | None
    some: bool = False

    def listener(self, model: str) -> OnDelta | None:
        """For a call that begins; the watcher is told to forget what it was shown of the call before."""
        if self.on_delta is None:
            return None
        if self.some:
            self.on_delta(BegunAnew(model=model))
            self.some = False
        return self._show

    def _show(self, delta: Delta) -> None:
        if self.on_delta is not None:
            self.some = True
            self.on_delta(delta)


@dataclass(slots=True)
class _Link:
    """One model of a chain, while its reply is wanted.

    Attributes:
        model: that is asked.
        limiters: that let its calls through.
        breaker: that knows whether it works.
        tokens: that a call reads, roughly; where somebody counts them.
        is_fallback: it is not the first one.
        has_another: there is another model behind it.
        without: settings of the agent that it does not take, each with the bound up to which it does.
        failed: calls that have failed.
        made: a call was begun, that is to say something was sent.
    """

    model: Model
    limiters: tuple[Limiter, ...]
    breaker: Breaker
    tokens: int
    is_fallback: bool
    has_another: bool
    without: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    failed: int = 0
    made: bool = False

    async def enter(self) -> None:
        """Wait for a turn of each limiter."""
        entered: list[Limiter] = []
        try:
            for limiter in self.limiters:
                await limiter.enter(self.tokens)
                entered.append(limiter)
        except BaseException:
            for limiter in entered:
                limiter.leave(self.tokens, 0)
            raise

    def leave(self, used: int | None) -> None:
        for limiter in self.limiters:
            limiter.leave(self.tokens, used)

    def paused_for(self) -> float:
        return max(limiter.paused_for for limiter in self.limiters)


@dataclass(slots=True, kw_only=True)
class _Answering:
    """The way to one reply."""

    chain: ResilientModel
    request: ModelRequest
    shown: _Shown
    guard: CallObserver
    errors: list[ModelError] = field(default_factory=list[ModelError])

    async def answer(self) -> ModelReply:
        models = self.chain.models
        # before the first call: the calls that fail from here on count for each model by itself
        tries = max(1, self.chain.retries.tries - self.guard.failures)
        for place, model in enumerate(models):
            reply = await self._ask(self._link(model, place), tries)
            if isinstance(reply, ModelReply):
                return reply
            if isinstance(reply, GiveUp):
                break
        raise most_hopeful(self.errors)

    def _link(self, model: Model, place: int) -> _Link:
        traffic = self.chain.traffic
        tokens = likely_input_tokens(self.request) if traffic.counts_tokens(model.name) else 0
        limiters, breaker = traffic.limiters(model.name), traffic.breaker(model.name)
        link = _Link(model, limiters, breaker, tokens, place > 0, place + 1 < len(self.chain.models))
        if link.is_fallback:
            link.without = traffic.refused_settings(model.name, self.request)
        return link

    async def _ask(self, link: _Link, tries: int) -> ModelReply | NextModel | GiveUp:
        """Ask one model, until it replies or there is no more sense in it."""
        while True:
            began, link.made = _now(), False
            try:
                return await self._call(link)
            except ModelError as error:
                following = await self._failed(link, error, tries, _now() - began)
            if not isinstance(following, Again):
                return following
            await _in_time(self.guard, asyncio.sleep(following.seconds))

    async def _failed(self, link: _Link, error: ModelError, tries: int, seconds: float) -> Next:
        if self._does_without(link, error):
            following: Next = Again(0.0)
        else:
            self.errors.append(error)
            link.failed += 1
            situation = Situation(
                failed=link.failed,
                tries=tries,
                has_another=link.has_another,
                seconds_left=self.guard.seconds_left(),
            )
            following = what_next(error, situation, self.chain.retries, self.chain.chance())
        billed = error.billed if link.made else (0, 0)
        if self.shown.some and billed == (0, 0):
            billed = None  # it had begun to answer
        failed = CallFailed(
            model=link.model.name, error=error, seconds=seconds, next=following, made=link.made, billed=billed
        )
        await self.guard.failed(failed)
        return following

    def _does_without(self, link: _Link, error: ModelError) -> bool:
        """Whether a fallback is asked once more, without the setting that it refuses: a run must not end for that."""
        if not (link.is_fallback and isinstance(error, UnsupportedSetting)):
            return False
        setting, tried = error.setting, link.without
        if not is_set(self.request, setting) or tried.get(setting, 0) is None:
            return False
        tried[setting] = (
            None if setting in tried else error.most
        )  # a bound that is refused as well is left out
        value = getattr(self.request, setting)
        self.chain.traffic.refuses(link.model.name, setting, value, tried[setting])
        return True

    async def _call(self, link: _Link) -> ModelReply:
        self._look_whether_it_rests(link)
        used: int | None = 0
        await _in_time(self.guard, link.enter())
        try:
            link.breaker.ask()
            try:
                request = await self.guard.calling(link.model.name, without(self.request, link.without))
                used, link.made = None, True
                reply = await self._reply(link, request)
            except ModelError as error:
                link.breaker.ended(error)
                raise
            except BaseException:
                link.breaker.abandoned()
                raise
            link.breaker.ended(None)
            used = None if reply.usage.partial else reply.usage.tokens
            return replace(reply, left_out=tuple(link.without)) if link.without else reply
        finally:
            link.leave(used)

    def _look_whether_it_rests(self, link: _Link) -> None:
        """Nobody waits in a queue that stands still for longer than a run would wait."""
        paused = link.paused_for()
        if paused > self.chain.retries.longest_wait:
            raise ModelResting(
                f"{link.model.name} was not asked: its provider wants {paused:.0f} s of rest",
                retry_after=paused,
            )

    async def _reply(self, link: _Link, request: ModelRequest) -> ModelReply:
        began, model, task = _now(), link.model, task_here()
        error: ModelError | None = None
        try:
            return checked(
                await _in_time(self.guard, model.reply(request, self.shown.listener(model.name))), model.name
            )
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            error = ModelUnreachable(f"{model.name}: the connection was cancelled from within")
            raise error from None
        except ModelMistaken as found:
            mistaken: ModelReply = found.reply
            return mistaken
        except ModelError as found:
            error = found
            if isinstance(found, ModelRateLimited) and found.retry_after is not None:
                link.limiters[0].pause(found.retry_after)
            raise
        except BaseException as found:
            if isinstance(found, Exception) or is_meant_for(task, found):
                raise
            message = f"the model {model.name} raised {type(found).__name__}"
            raise RuntimeError(message) from found
        finally:
            if self.chain.traffic.on_call is not None:
                code = None if error is None else error.code
                self.chain.traffic.on_call(CallEnded(model=model.name, seconds=_now() - began, error=code))


def checked(reply: object, model: str) -> ModelReply:
    """What a model has returned, where it is a reply: one that cannot be recorded is of no use to a run.

    Raises:
        ModelBadResponse: it is none.
    """
    if not isinstance(reply, ModelReply):
        raise ModelBadResponse(f"{model} returned a {type(reply).__name__}, not a ModelReply")
    parts: object = reply.parts
    if not isinstance(parts, tuple | Sequence) or any(
        not isinstance(part, Part) for part in cast("Sequence[object]", parts)
    ):
        raise ModelBadResponse(f"{model} returned parts that are no parts of a reply")
    if not isinstance(cast("object", reply.usage), Usage):
        raise ModelBadResponse(f"{model} returned a usage that is none")
    if reply.stop_reason not in _STOP_REASONS:
        raise ModelBadResponse(f"{model} returned the stop reason {reply.stop_reason!r}, which is none")
    return reply


_STOP_REASONS = tuple(StopReason)


async def _in_time(guard: CallObserver, work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` comes to, which may not take longer than the turn.

    Raises:
        OutOfTime: it did.
    """
    seconds_left = guard.seconds_left()
    if seconds_left is None:
        return await work
    deadline = asyncio.timeout(seconds_left)
    try:
        async with deadline:
            return await work
    except TimeoutError:
        if not deadline.expired():
            raise
        raise OutOfTime from None


def open_chain(
    models: Sequence[str | Model],
    *,
    retries: Retries | None = None,
    traffic: ProviderState | None = None,
    endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS,
) -> AbstractAsyncContextManager[ResilientModel]:
    """A chain of models, each given by name or open; what is opened here is closed again.

    Args:
        models: the preferred one first.
        retries: where not given, calls are retried where there is a name or more than one model; a single open model
            is used as it is.
        traffic: as in :class:`ResilientModel`.
        endpoints: servers of your own, by name.

    Raises:
        UsageError, ModelAuthError: as :func:`agentkit.models.open_model`.
    """
    if len(models) == 1 and isinstance(models[0], ResilientModel):  # as each run of a worker has it
        return nullcontext(models[0])
    return _opened_chain(models, retries, traffic, endpoints)


@asynccontextmanager
async def _opened_chain(
    models: Sequence[str | Model],
    retries: Retries | None,
    traffic: ProviderState | None,
    endpoints: Mapping[str, NamedEndpoint],
) -> AsyncGenerator[ResilientModel]:
    async with AsyncExitStack() as stack:
        are_open = [await stack.enter_async_context(opened(model, endpoints)) for model in models]
        yield chain_of(are_open, given=models, retries=retries, traffic=traffic)


def chain_of(
    models: Sequence[Model],
    *,
    given: Sequence[str | Model],
    retries: Retries | None = None,
    traffic: ProviderState | None = None,
) -> ResilientModel:
    """A chain of open models.

    Args:
        models: open, the preferred one first.
        given: what they were declared as: a single open model is used as it is, unless ``retries`` are given.
        retries: how often and how long.
        traffic: as in :class:`ResilientModel`.
    """
    if len(models) == 1 and not isinstance(given[0], str):
        if isinstance(models[0], ResilientModel):
            return models[0]
        retries = ONCE if retries is None else retries
    return ResilientModel(models, retries=retries, traffic=traffic)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_being_cancelled() -> bool:
    """Whether a CancelledError is meant for us; some libraries let one escape when a connection of theirs dies."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
