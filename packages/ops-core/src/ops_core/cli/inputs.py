"""Inputs as they are typed: files, JSON, and the choice of an agent and a model."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.attachments import checked_input, read_attachment
from agentkit.errors import UsageError
from ops_core.errors import AgentNotFound, InvalidRequest
from ops_core.strict_json import NotStrict, parse

if TYPE_CHECKING:
    from ops_core.config.catalog import Catalog, CatalogEntry


def with_attachments(goal: str, files: Sequence[Path]) -> Any:
    """The input of a task: the goal, with the files where there are some.

    Raises:
        InvalidRequest: there is nothing to do, or a file cannot be read, or not be attached.
    """
    if not goal.strip():
        raise InvalidRequest("GOAL is empty: say what the agent is to do", field="goal")
    if not files:
        return goal
    try:
        return checked_input({"goal": goal, "attachments": [read_attachment(file) for file in files]})
    except OSError as error:
        message = f"--attach: {error.filename}: {error.strerror}"
    except UsageError as error:
        message = f"--attach: {error}"
    raise InvalidRequest(message, field="attach")


def chosen_agent(names: Sequence[str], wanted: str | None) -> str:
    """The agent that is named, or the one that is meant where none is.

    Raises:
        AgentNotFound: there is none of this name.
        InvalidRequest: there are several, and none was named.
    """
    if wanted is not None:
        if wanted not in names:
            message = f"there is no agent {wanted!r}; there are: {', '.join(names) or 'none'}"
            raise AgentNotFound(message, field="agent")
        return wanted
    from ops_core.config.catalog import DEFAULT_AGENT

    if len(names) == 1:
        return names[0]
    if DEFAULT_AGENT in names:
        return DEFAULT_AGENT
    message = f"which agent? name one with --agent: {', '.join(names) or 'there is none'}"
    raise InvalidRequest(message, field="agent")


def with_model(served: CatalogEntry, model: str | None) -> CatalogEntry:
    """The agent with another model. Its name then says so, so that no worker takes its tasks for the agent's own."""
    if model is None:
        return served
    return replace(served, agent=replace(served.agent, model=model, name=f"{served.agent.name}@{model}"))


def serving(catalog: Catalog, task_agent: str, model: str | None) -> CatalogEntry:
    """The agent that carries on a task, under the name that the task has.

    Raises:
        AgentNotFound: it is not declared here.
    """
    name, _at, earlier = (task_agent, "", "") if task_agent in catalog.names else task_agent.partition("@")
    served = catalog.get(name)
    agent = replace(served.agent, model=model or earlier or served.agent.model, name=task_agent)
    return replace(served, agent=agent)


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""Seconds."""

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_in(text: str, option: str) -> float:
    """The seconds of a duration such as ``90s``, ``45m``, ``12h``, ``30d`` or ``1h30m``.

    Raises:
        InvalidRequest: it is none; ``field`` names the option.
    """
    if len(text) > 100 or not text.isascii() or not _DURATION.fullmatch(text):
        message = f"--{option} takes a number and a unit: 30d, 12h, 45m or 90s"
        raise InvalidRequest(message, field=option.replace("-", "_"))
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))


def json_or_file(text: str, option: str, hint: str) -> Any:
    """What an option holds that is JSON, or ``@`` and the name of a file with JSON.

    Raises:
        InvalidRequest: it is not, or the file cannot be read.
    """
    field = option.removeprefix("--")
    try:
        from_file = text.startswith("@")
        if not from_file:
            return parse(text.encode(errors="surrogateescape"))
        return parse(Path(text[1:]).read_bytes().removeprefix(BOM_UTF8))  # PowerShell writes one
    except OSError as error:
        message = f"{option}: {text[1:]}: {error.strerror}"
    except NotStrict as error:
        message = f"{option}: {error}; {hint}" if error.place else f"{option} {error}; {hint}"
    raise InvalidRequest(message, field=field)
