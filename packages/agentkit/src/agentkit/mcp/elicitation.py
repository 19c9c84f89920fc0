"""Elicitation: a server's question to a person in the middle of a call.

This module imports the SDK; it is imported when a connection is opened.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from mcp.client import ClientRequestContext
from mcp.client.session import ElicitationFnT
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from agentkit.mcp.pool_context import Elicit
from agentkit.messages import JsonObject
from agentkit.untrusted.text import visible

log = logging.getLogger("agentkit.mcp")


def asking(server: str, elicit: Elicit | None) -> ElicitationFnT | None:
    """The SDK's callback; ``None``, so that servers are told that nobody is there, where nobody is."""
    if elicit is None:
        return None

    async def callback(
        context: ClientRequestContext,  # noqa: ARG001  (the SDK names it)
        params: ElicitRequestParams,
    ) -> ElicitResult:
        if not isinstance(
            params, ElicitRequestFormParams
        ):  # an address to go to: a server does not send people about
            return ElicitResult(action="decline")
        schema = cast("JsonObject", visible(params.requested_schema))
        try:
            filled = await elicit(server, str(visible(params.message)), schema)
        except Exception as error:  # noqa: BLE001  (the connection is not the one to suffer)
            log.warning("MCP server %s: what it asks was not answered: %s", server, type(error).__name__)
            return ElicitResult(action="cancel")
        if filled is None:
            return ElicitResult(action="decline")
        return ElicitResult(
            action="accept", content=cast("Any", {**_defaults(params.requested_schema), **filled})
        )

    return callback


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Of fields that were left out, as the protocol asks for."""
    fields = schema.get("properties")
    if not isinstance(fields, Mapping):
        return {}
    return {
        name: field["default"]
        for name, field in cast("Mapping[str, Any]", fields).items()
        if isinstance(field, Mapping)
        and "default" in field
        and isinstance(field["default"], str | int | float | bool)
    }
