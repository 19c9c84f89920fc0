"""Submitting, for every surface: what must hold before a task is accepted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentkit.errors import ToolError
from agentkit.messages import ToolCall
from agentkit.tracing import Trace
from ops_core.catalog import Catalog
from ops_core.closing import unless_closing
from ops_core.engine import Engine
from ops_core.errors import AgentNotFound, IdempotencyConflict, InvalidRequest, OpsError
from ops_core.memory import missing_label
from ops_core.ports import Inserted
from ops_core.problems import Problem, is_ours, problem_of
from ops_core.task import DEFAULT_TENANT, Task
from ops_core.wire import ApprovalRequest, BatchItem, BatchResult, TaskRequest

MOST_WAIT_SECONDS = 60
"""Nobody may wait longer for the answer to one request."""

log = logging.getLogger("ops_core.intake")


async def accept(
    engine: Engine,
    catalog: Catalog,
    request: TaskRequest,
    idempotency_key: str | None,
    trace: Trace | None = None,
    fingerprint: str | None = None,
) -> Inserted:
    """Accept a task that can be run here; it is durable when this returns.

    Args:
        engine: takes it.
        catalog: what can be run here.
        request: what is submitted.
        idempotency_key: the same key with the same request is the same task.
        trace: the trace of whoever submits it.
        fingerprint: of the request with this key; its own where not given.

    Raises:
        AgentNotFound: it cannot.
        InvalidRequest: the agent needs a label that it does not have.
        IdempotencyConflict: the key was used for another request.
    """
    new = request.as_new_task(idempotency_key, trace=trace)
    if fingerprint is not None:
        new = replace(new, fingerprint=fingerprint)
    try:
        _check_agent(catalog, request)
    except (AgentNotFound, InvalidRequest):  # not for a task that was accepted before the catalog changed
        repeated = await engine.repeated(new)
        if repeated is None:
            raise
        return repeated
    return await engine.submit(new)


def _check_agent(catalog: Catalog, request: TaskRequest) -> None:
    missing = missing_label(catalog.get(request.agent).agent.memory, request.labels)
    if missing is not None:
        raise InvalidRequest(missing, field="labels")


async def answer(
    engine: Engine, catalog: Catalog, task_id: str, approval_id: str, request: ApprovalRequest
) -> Task:
    """Record a person's answer; changed arguments must fit the tool and its agent's policy.

    Raises:
        AgentNotFound: the arguments were changed, and the agent is not known here.
        InvalidRequest: they do not fit.
        TaskNotFound, ApprovalNotFound, ApprovalConflict, ApprovalExpired, TransitionRefused: as the engine.
    """
    given = request.as_step(approval_id)
    if given.arguments is not None:
        task = await engine.get(DEFAULT_TENANT, task_id)
        found = [each.asked for each in task.approvals if each.asked.approval_id == approval_id]
        for asked in found:  # where there is none, the engine says why
            call = ToolCall(id=asked.call_id, name=asked.tool, arguments=given.arguments)
            try:
                steps = await engine.steps(DEFAULT_TENANT, task_id)
                await catalog.get(task.agent).agent.examine(call, steps)
            except ToolError as error:
                raise InvalidRequest(str(error), field="arguments") from None
    return await engine.answer(DEFAULT_TENANT, task_id, given)


async def accept_many(
    engine: Engine,
    catalog: Catalog,
    items: Sequence[BatchItem | Problem],
    trace: Trace | None = None,
    *,
    idempotency_key: str | None = None,
) -> list[Inserted | Problem]:
    """Accept each of these tasks, or say what is wrong with it; what was a problem before stays one.

    Args:
        engine: takes them.
        catalog: what can be run here.
        items: what is submitted.
        trace: the trace of whoever submits them.
        idempotency_key: the same key with the same batch is the same tasks.

    Raises:
        OpsError: not one could be accepted, and the fault is on this side: the whole may be sent again.
        IdempotencyConflict: the key was used for another request.
        InvalidRequest: the batch has a key, and a task in it has another one.
    """
    keys = _batch_keys(items, idempotency_key)
    first: dict[int, Inserted] = {}
    if idempotency_key is not None:
        of_batch = [replace(key, key=idempotency_key) for key in keys]
        first = await _first_accepted(engine, catalog, items, trace, of_batch)
    others = [at for at in range(len(items)) if at not in first]
    accepted = await asyncio.gather(
        *(_accepted(engine, catalog, items[at], trace, keys[at]) for at in others)
    )
    found = {**first, **dict(zip(others, accepted, strict=True))}
    results = [found[at] for at in range(len(items))]
    errors = [result for result in results if isinstance(result, OpsError) and is_ours(result)]
    if errors and len(errors) == len(results):
        raise errors[0]
    for error in errors:
        log.error("%s: %s", error.code, error)
    return [_problem_of(result) if isinstance(result, OpsError) else result for result in results]


def batch_result(result: Inserted | Problem) -> BatchResult:
    """What became of a task of a batch, as it is told."""
    if isinstance(result, Inserted):
        return BatchResult(status=202 if result.created else 200, task_id=result.task.id)
    return BatchResult(status=result.status, problem=result)


@dataclass(frozen=True, slots=True)
class _Key:
    """Under which a task of a batch is accepted; without a fingerprint, that of the task itself counts."""

    key: str | None
    fingerprint: str | None = None


def _batch_keys(items: Sequence[BatchItem | Problem], idempotency_key: str | None) -> list[_Key]:
    """The keys of the tasks of a batch: their own, or made from the key of the batch, for this very batch.

    Raises:
        InvalidRequest: the batch has a key, and a task in it has another one.
    """
    if idempotency_key is None:
        return [_Key(None if isinstance(item, Problem) else item.idempotency_key) for item in items]
    if any(isinstance(item, BatchItem) and item.idempotency_key is not None for item in items):
        message = "give the batch an Idempotency-Key, or its tasks an idempotency_key each, not both"
        raise InvalidRequest(message, field="Idempotency-Key")
    told = [item.model_dump_json() if isinstance(item, Problem) else item.fingerprint() for item in items]
    whole = json.dumps(told)
    return [
        _Key(_digest("batch", idempotency_key, str(at)), _digest("batch", whole, str(at)))
        for at in range(len(items))
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _first_accepted(
    engine: Engine,
    catalog: Catalog,
    items: Sequence[BatchItem | Problem],
    trace: Trace | None,
    keys: Sequence[_Key],
) -> dict[int, Inserted]:
    """The first task of a batch that can be accepted, by its place: it holds the key of the batch.

    Raises:
        IdempotencyConflict: the key was used for another request.
    """
    conflict: IdempotencyConflict | None = None
    for at, (item, key) in enumerate(zip(items, keys, strict=True)):
        result = await _accepted(engine, catalog, item, trace, key)
        if isinstance(result, Inserted):
            return {at: result}
        if isinstance(result, IdempotencyConflict):  # or another task of this batch holds it
            conflict = result
    if conflict is not None:
        raise conflict
    return {}


async def _accepted(
    engine: Engine, catalog: Catalog, item: BatchItem | Problem, trace: Trace | None, key: _Key
) -> Inserted | Problem | OpsError:
    if isinstance(item, Problem):
        return item
    try:
        return await accept(engine, catalog, item, key.key, trace, key.fingerprint)
    except OpsError as error:
        return error


def _problem_of(error: OpsError) -> Problem:
    problem = problem_of(error)
    if problem.field == "Idempotency-Key":  # a header where a task comes alone
        return problem.model_copy(update={"field": "idempotency_key"})
    return problem


async def ended_or_not(engine: Engine, task: Task, seconds: float, closing: asyncio.Event) -> Task:
    """The task when it has ended; as it is after ``seconds`` (at most 60), or when ``closing`` is set."""
    waiting = engine.until_ended(DEFAULT_TENANT, task.id, min(seconds, MOST_WAIT_SECONDS))
    return await unless_closing(closing, waiting) or await engine.get(DEFAULT_TENANT, task.id)
