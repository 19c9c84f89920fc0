"""Grants of a deployment: no tool may write a path of another tool, or a path that is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentkit.errors import UsageError
from agentkit.sandbox import Grants, Trusted, check_grants
from agentkit.tools import Tool
from ops_core.config.catalog import Catalog
from ops_core.errors import ConfigError


def check_catalog_grants(catalog: Catalog, trusted: Iterable[Trusted] = ()) -> None:
    """See whether the grants of all tools and MCP servers of a deployment leave each other alone.

    Args:
        catalog: the agents.
        trusted: what no tool may write, or where it is secret read, beside the code and the tokens of MCP servers.

    Raises:
        ConfigError: they do not; the message names both.
    """
    tokens = Trusted("the folder of tokens of MCP servers", catalog.mcp.tokens.path, secret=True)
    try:
        check_grants(_granted(catalog), [tokens, *trusted])
    except UsageError as error:
        raise ConfigError(str(error), field="sandbox") from None


def _granted(catalog: Catalog) -> dict[str, Grants]:
    """All grants, each by the name of its table in ``opspawn.toml``."""
    granted = {f"sandbox.tools.{name}": told.grants for name, told in catalog.sandboxing.tools.items()}
    for name in catalog.names:
        for tool in catalog.get(name).agent.tools:
            if isinstance(tool, Tool) and tool.name not in catalog.sandboxing.tools:
                granted[f"the tool {tool.name} of agent {name}"] = tool.confinement.grants
    granted |= {f"mcp.servers.{name}": grants for name, grants in catalog.mcp.granted.items()}
    return granted


def store_files(url: str) -> list[Trusted]:
    """The files of a store on SQLite, by its URL; none for another one."""
    scheme, found, path = url.partition(":///")
    path = path.partition("?")[0]
    if not scheme.startswith("sqlite") or not found or path in {"", ":memory:"}:
        return []
    return [Trusted("the store", Path(path + suffix), secret=True) for suffix in ("", "-wal", "-shm")]
