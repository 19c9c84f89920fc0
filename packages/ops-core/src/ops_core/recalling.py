"""Recalling, for every surface: what an agent would be told."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.errors import AgentkitError
from agentkit.ports import Scope
from agentkit.transcript.steps import Note
from ops_core.catalog import Catalog
from ops_core.engine import Engine
from ops_core.errors import InvalidRequest, RecallUnavailable
from ops_core.memory import opened_memory
from ops_core.task import DEFAULT_TENANT
from ops_core.wire import RecallRequest


async def recall(engine: Engine, catalog: Catalog, asked: RecallRequest) -> Sequence[Note]:
    """The notes of an agent that are most similar to a text, with their scores.

    Raises:
        AgentNotFound: there is no such agent here.
        InvalidRequest: it remembers nothing, or the key is missing.
        RecallUnavailable: its embeddings cannot be made here, or its memory does not answer.
    """
    declared = catalog.get(asked.agent).agent.memory
    if declared is None:
        message = f"the agent {asked.agent} remembers nothing"
        raise InvalidRequest(message, field="agent")
    if declared.per is not None and not asked.key:
        message = f"a key is needed: the agent remembers for each value of the label {declared.per}"
        raise InvalidRequest(message, field="key")
    scope = Scope(tenant=DEFAULT_TENANT, agent=asked.agent, key=asked.key)
    try:
        async with opened_memory(declared, engine.store, catalog.endpoints) as memory:
            return await memory.recall(scope, asked.query, asked.limit)
    except AgentkitError as error:
        raise RecallUnavailable(str(error)) from None
