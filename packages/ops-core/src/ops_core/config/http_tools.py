"""HTTP APIs as tools: ``[tools.NAME]`` in ``opspawn.toml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from agentkit.errors import UsageError
from agentkit.messages import Effect
from agentkit.tools import HttpTool, HttpToolset, openapi_tools
from agentkit.tools.http import Place
from ops_core.durations import Seconds

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_OF_A_DOCUMENT = frozenset({"base_url", "operations", "prefix", "effects"})
_OF_A_REQUEST = frozenset({"method", "description", "parameters", "places", "effect", "idempotency_header"})
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_IN_PATH = re.compile(r"\{([^{}]+)\}")


class ApiTable(BaseModel):
    """``[tools.NAME]``: one request, or the operations of an OpenAPI document, as tools of the agents that name them.

    Attributes:
        openapi: file of a document of OpenAPI 3.0 or 3.1, JSON or YAML, from the folder of this file. Each operation
            is a tool of the name of its ``operationId``.
        base_url: where the API is; the first of the document's ``servers`` where not given.
        operations: patterns of names, ``tag:NAME`` or ``GET /items*`` of those that become tools; ``!`` excludes.
        prefix: put before the name of each.
        effects: what repeating a call does, by pattern of the tool's name; otherwise the method says it.
        url: of one request, a tool called NAME; ``{argument}`` in its path stands for an argument.
        method: of HTTP.
        description: for the model.
        parameters: JSON schema of an object; where not given, the arguments in the path, as texts.
        places: where arguments go: ``path``, ``query``, ``header`` or ``body``; as the method has it where not said.
        effect: what repeating the call does; otherwise the method says it.
        idempotency_header: in which the server takes a key for repeated requests; the tool is ``idempotent`` then.
        reaches_out: data can leave with a call, whatever its method.
        headers: sent with each request, never shown. ``${NAME}`` stands for a variable of the worker's environment.
        private: the host may be in a private network, or on this machine.
        call_seconds: so long a call may take.
        enabled: otherwise it is as if agents did not name it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    openapi: str | None = Field(default=None, min_length=1)
    base_url: str | None = None
    operations: tuple[str, ...] = ("*",)
    prefix: str = ""
    effects: Mapping[str, Effect] = Field(default_factory=dict)
    url: str | None = None
    method: Method = "GET"
    description: str = ""
    parameters: Mapping[str, JsonValue] | None = None
    places: Mapping[str, Place] = Field(default_factory=dict)
    effect: Effect | None = None
    idempotency_header: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    reaches_out: bool = True
    private: bool = False
    call_seconds: Seconds = 30.0
    enabled: bool = True

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.openapi is None) == (self.url is None):
            raise ValueError("it has either openapi or url")
        kind, foreign = ("openapi", _OF_A_REQUEST) if self.url is None else ("url", _OF_A_DOCUMENT)
        if wrong := sorted(foreign & self.model_fields_set):
            message = f"{', '.join(wrong)}: not for one with {kind}"
            raise ValueError(message)
        if "${" in f"{self.url}{self.base_url}":
            raise ValueError("only headers take ${NAME}: which host is reached stands in this file")
        if self.openapi is not None and "://" in self.openapi:
            raise ValueError("openapi: a file, not a URL: fetch it, read it, and keep it beside this file")
        return self

    def toolset(self, name: str, folder: Path, variables: Mapping[str, str]) -> HttpToolset:
        """The tools.

        Args:
            name: of the table.
            folder: that of ``opspawn.toml``.
            variables: what ``${NAME}`` stands for, looked at in each call.

        Raises:
            UsageError: it cannot be a tool.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("a tool's name is made of letters, digits, _ and -, at most 64")
        tools = [self._request(name)] if self.openapi is None else self._operations(folder / self.openapi)
        return HttpToolset(tools, private=self.private, variables=variables)

    def _operations(self, document: Path) -> list[HttpTool]:
        made = openapi_tools(
            document,
            base_url=self.base_url,
            include=self.operations,
            prefix=self.prefix,
            headers=self.headers,
            effects=self.effects,
        )
        return [replace(tool, timeout=self.call_seconds, reaches_out=self.reaches_out) for tool in made]

    def _request(self, name: str) -> HttpTool:
        url = self.url or ""
        in_path = _IN_PATH.findall(url)
        usual: dict[str, JsonValue] = {
            "type": "object",
            "properties": {argument: {"type": "string"} for argument in in_path},
            "required": list(in_path),
            "additionalProperties": False,
        }
        return HttpTool(
            name,
            self.method,
            url,
            description=self.description,
            parameters=usual if self.parameters is None else dict(self.parameters),
            places=self.places,
            effect=self.effect,
            headers=self.headers,
            idempotency_header=self.idempotency_header,
            timeout=self.call_seconds,
            reaches_out=self.reaches_out,
        )


def check_apis(tools: Iterable[object]) -> None:
    """See whether the variables of the HTTP tools of an agent are there.

    Raises:
        UsageError: one is missing; the message names it and the tool.
    """
    for tool in tools:
        if isinstance(tool, HttpToolset):
            tool.check_variables()
