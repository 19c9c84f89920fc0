"""HTTP requests as tools: one operation each, declared with the agent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from agentkit.errors import BadArguments, ToolError, UnknownTool, UsageError
from agentkit.messages import Effect, JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.net.headers import header_problem
from agentkit.net.hosts import HostRule
from agentkit.ports import ToolContext
from agentkit.untrusted.json_bounds import MAX_VALUES, has_more_values
from agentkit.untrusted.json_schema import check_arguments
from agentkit.untrusted.secrets import Filling, Secrets
from agentkit.untrusted.text import hidden_in, legible, visible

if TYPE_CHECKING:
    from agentkit.net.http_client import Fetched, GuardedClient

Place: TypeAlias = Literal["path", "query", "header", "body"]
"""Where an argument goes."""

MAX_TOLD = 2000
"""Characters of a refusal's body that the model is told."""

_LARGE = 1 << 16
"""Bytes of a body that take a while to read."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_VARIABLE = re.compile(r"\{([^{}]+)\}")
_SEPARATORS = re.compile(r"[/\\]")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_IDEMPOTENT = frozenset({"PUT", "DELETE"})


def effect_of(method: str) -> Effect:
    """What repeating a request does, as RFC 9110, section 9.2, wants it of every server."""
    if method in _SAFE:
        return Effect.PURE
    return Effect.IDEMPOTENT if method in _IDEMPOTENT else Effect.UNSAFE


@dataclass(frozen=True)
class HttpTool:
    """One request as a tool.

    Attributes:
        name: for the model.
        method: of HTTP.
        url: of the request; ``{name}`` in its path stands for an argument.
        description: for the model.
        parameters: JSON schema of an object, shown to the model; of the arguments it is checked that none is missing,
            unknown or of another type.
        places: where arguments go. Those that are not named go into the path where the URL names them, else into the
            query for GET, HEAD and DELETE, and else into the body, as one JSON object. An argument at ``body`` is the
            whole body.
        effect: what repeating a call does; by the method, where not given.
        headers: that are sent along; they are not shown to the model, which cannot change them, and where the server
            repeats one of their values the model is told ``[secret NAME]``. A toolset with variables fills in
            ``${NAME}``.
        idempotency_header: the header in which the server takes a key for repeated requests, such as
            ``Idempotency-Key``; a call with it counts as ``idempotent``.
        timeout: seconds after which a call is given up.
        approval: a person must approve each call.
        reaches_out: data can leave with a call, of any method: its arguments reach the server. ``False`` for one that
            you trust with all that runs may have seen.

    Raises:
        UsageError: the name, the URL, a header or the schema is not usable.
    """

    name: str
    method: str
    url: str
    _: KW_ONLY
    description: str = ""
    parameters: JsonObject = field(default_factory=lambda: {"type": "object", "properties": {}})
    places: Mapping[str, Place] = field(default_factory=dict[str, "Place"])
    effect: Effect | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    idempotency_header: str | None = None
    timeout: float | None = 30.0
    approval: bool = False
    reaches_out: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            message = f"a tool cannot be called {self.name!r}: letters, digits, _ and -, at most 64"
            raise UsageError(message)
        parts = _parts_of(self.url)
        if parts is None or "{" in parts.netloc:
            message = f"tool {self.name}: the URL must be one of https or http, with a host that is fixed"
            raise UsageError(message)
        if parts.username is not None or parts.password is not None:
            message = f"tool {self.name}: the URL holds a user or a password; send a header instead"
            raise UsageError(message)
        if (problem := self._problem_with_headers()) is not None:
            message = f"tool {self.name}: {problem}"
            raise UsageError(message)
        if self.parameters.get("type") != "object":
            message = f"tool {self.name}: the schema of its parameters is not that of an object"
            raise UsageError(message)
        unknown = [name for name in _VARIABLE.findall(parts.path) if name not in self._known()]
        if unknown and self.parameters.get("additionalProperties") is False:
            message = f"tool {self.name}: {unknown[0]} stands in the URL, and is no parameter"
            raise UsageError(message)
        if (found := hidden_in([self.description, self.parameters])) is not None:
            message = f"tool {self.name}: its description or schema holds the invisible character {found}"
            raise UsageError(message)

    def _problem_with_headers(self) -> str | None:
        arguments = [name for name, place in self.places.items() if place == "header"]
        given = [
            *self.headers.items(),
            *((name, "") for name in (*arguments, self.idempotency_header) if name),
        ]
        return next((found for each in given if (found := header_problem(*each)) is not None), None)

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model and a policy see it."""
        effect = effect_of(self.method.upper()) if self.effect is None else self.effect
        if effect is Effect.UNSAFE and self.idempotency_header is not None:
            effect = Effect.IDEMPOTENT
        return ToolSpec(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            effect=effect,
            timeout_seconds=self.timeout,
            approval=self.approval,
            reaches_out=self.reaches_out,
        )

    def _known(self) -> Mapping[str, JsonValue]:
        return cast("Mapping[str, JsonValue]", self.parameters.get("properties") or {})

    def place_of(self, argument: str) -> Place:
        """Where an argument goes."""
        if argument in self.places:
            return self.places[argument]
        if argument in _VARIABLE.findall(self.url):
            return "path"
        return "query" if self.method.upper() in _SAFE | {"DELETE"} else "body"

    def request(self, arguments: JsonObject) -> tuple[str, dict[str, str], bytes | None]:
        """URL, headers and body of a call. Pure.

        Raises:
            BadArguments: they do not fit.
        """
        check_arguments(self.name, {"additionalProperties": False, **self.parameters}, arguments)
        sorted_out: dict[Place, dict[str, JsonValue]] = {"path": {}, "query": {}, "header": {}, "body": {}}
        for name, value in arguments.items():
            sorted_out[self.place_of(name)][name] = value
        url = _VARIABLE.sub(lambda found: _segment(found[1], sorted_out["path"]), self.url)
        pairs = self._query(sorted_out["query"])
        if pairs:
            url += ("&" if urlsplit(url).query else "?") + urlencode(pairs, quote_via=quote)
        headers = self._headers(sorted_out["header"])
        body = sorted_out["body"]
        if not body:
            return url, headers, None
        whole = next((value for name, value in body.items() if self.places.get(name) == "body"), body)
        if "content-type" not in map(str.lower, headers):
            headers["Content-Type"] = "application/json"
        return url, headers, json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()

    def _query(self, given: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
        """Nothing is said twice: a server may read the one, and whoever has bounded the arguments the other."""
        taken = {
            name.casefold() for name, _value in parse_qsl(urlsplit(self.url).query, keep_blank_values=True)
        }
        pairs: list[tuple[str, str]] = []
        for name in given:
            if name.casefold() in taken:
                raise BadArguments(f"{name}: it is fixed, and cannot be given")
        taken.update(name.casefold() for name in (*self._known(), *given))
        for name, value in given.items():
            if isinstance(value, dict):
                for key in value:
                    if key.casefold() in taken:
                        raise BadArguments(f"{name}: {key} cannot be given here, it has a place of its own")
                    taken.add(key.casefold())
            pairs += _pairs(name, value)
        return pairs

    def _headers(self, given: Mapping[str, JsonValue]) -> dict[str, str]:
        """What the developer says is not the model's to change, in whichever case it is written."""
        ours = {name.lower() for name in (*self.headers, self.idempotency_header or "")}
        theirs = {name: _header(name, value) for name, value in given.items()}
        return {name: value for name, value in theirs.items() if name.lower() not in ours} | dict(
            self.headers
        )


class HttpToolset:
    """Requests as a :class:`~agentkit.ports.Toolset`.

    Args:
        tools: the requests.
        client: sends them. Where not given, each may reach the host of its own URL, if its addresses are public; it
            follows no redirect to another one.
        private: these hosts may also be in a private network, or on this machine. For where no client is given.
        variables: what ``${NAME}`` in headers stands for, looked at in each call; nothing is filled in without them.

    Raises:
        UsageError: two tools have one name, or ``httpx2`` is not installed.
    """

    def __init__(
        self,
        tools: Iterable[HttpTool],
        client: GuardedClient | None = None,
        *,
        private: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._tools: dict[str, HttpTool] = {}
        for made in tools:
            if made.name in self._tools:
                message = f"two tools are called {made.name}"
                raise UsageError(message)
            self._tools[made.name] = made
        self._client = _client_for(self.tools, private=private) if client is None else client
        self._variables = variables

    @property
    def tools(self) -> Sequence[HttpTool]:
        """The requests, in the order in which they were given."""
        return tuple(self._tools.values())

    def check_variables(self) -> None:
        """See whether all variables are there.

        Raises:
            UsageError: one is missing; the message names it, the tool and the header.
        """
        for made in self._tools.values():
            _ = self._filled(made)

    def check(self, call: ToolCall) -> None:
        """Whether the arguments fit.

        Raises:
            UnknownTool: there is none of this name.
            BadArguments: they do not.
        """
        self._get(call.name).request(call.arguments)

    async def specs(self) -> Sequence[ToolSpec]:
        """The tools in the order in which they were given."""
        return [made.spec for made in self._tools.values()]

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Send the request.

        Raises:
            UnknownTool: there is none of this name.
            BadArguments: the arguments do not fit.
            AddressRefused, ToolTimeout: as :meth:`~agentkit.net.http_client.GuardedClient.send`.
            ToolError: the server cannot be reached, or refuses.
        """
        try:
            made, secrets = self._filled(self._get(call.name))
        except UsageError as error:
            raise ToolError(str(error)) from None
        url, headers, content = made.request(call.arguments)
        if made.idempotency_header is not None:
            headers[made.idempotency_header] = context.idempotency_key
        fetched = await self._client.send(
            made.method.upper(), url, headers=headers, content=content, seconds=context.seconds_left()
        )
        taking = partial(_output, made, fetched, secrets)
        # a large one is read beside the loop, which others wait for
        return await asyncio.to_thread(taking) if len(fetched.body) > _LARGE else taking()

    def _get(self, name: str) -> HttpTool:
        if name not in self._tools:
            message = f"there is no tool {name!r}; there are: {', '.join(self._tools) or 'none'}"
            raise UnknownTool(message)
        return self._tools[name]

    def _filled(self, made: HttpTool) -> tuple[HttpTool, Secrets]:
        if self._variables is None or not made.headers:
            return made, Secrets.of_headers(made.headers)
        fill = Filling(self._variables)
        headers = {
            name: fill(f"tool {made.name}: headers.{name}", value) for name, value in made.headers.items()
        }
        return replace(made, headers=headers), Secrets.of_headers(headers, fill.filled.items())


def _parts_of(url: str) -> SplitResult | None:
    """The parts of a URL of HTTP; ``None`` for what is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets that do not close, and ports that there cannot be
        return None
    return parts if usable else None


def _client_for(tools: Sequence[HttpTool], *, private: bool) -> GuardedClient:
    try:
        from agentkit.net.http_client import SECONDS, GuardedClient
    except ModuleNotFoundError as error:
        if error.name not in ("httpx2", "httpcore2"):
            raise
        raise UsageError("tools over HTTP need httpx2: pip install 'opspawn-agentkit[http]'") from None
    parts = [urlsplit(made.url) for made in tools]
    usual = {"https": 443, "http": 80}
    hosts = {(str(part.hostname), part.port or usual[part.scheme]) for part in parts}
    return GuardedClient(
        hosts=[HostRule(host=host, port=port, private=private) for host, port in sorted(hosts)],
        schemes=sorted({part.scheme for part in parts} or {"https"}),
        seconds=max([SECONDS, *(made.timeout for made in tools if made.timeout is not None)]),
    )


def _segment(name: str, given: Mapping[str, JsonValue]) -> str:
    if name not in given:
        raise BadArguments(f"{name}: it is required")
    value = given[name]
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    way = [part.strip() for part in _SEPARATORS.split(text)]  # some servers read %2F as what it stands for
    if not text.strip(". ") or "." in way or ".." in way:
        raise BadArguments(f"{name}: it cannot be part of a path")
    return quote(text, safe="")


def _pairs(name: str, value: JsonValue) -> list[tuple[str, str]]:
    """A query as OpenAPI writes it by default: lists name by name, objects by their own names."""
    if value is None:
        return []
    if isinstance(value, list):
        return [(name, _text(each)) for each in value]
    if isinstance(value, dict):
        return [(key, _text(each)) for key, each in value.items()]
    return [(name, _text(value))]


def _header(name: str, value: JsonValue) -> str:
    text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
    if (problem := header_problem(name, text)) is not None:
        raise BadArguments(f"{name}: {problem}")
    return text


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _output(made: HttpTool, fetched: Fetched, secrets: Secrets) -> JsonValue:
    kind = fetched.headers.get("content-type", "").partition(";")[0].strip().lower()
    if fetched.status >= HTTPStatus.BAD_REQUEST or 300 <= fetched.status < 400:
        later = fetched.headers.get("retry-after")
        again = "" if later is None else f" (to be tried again after {secrets.hidden(visible(later))[:40]})"
        told = secrets.hidden(legible(_as_text(fetched)))[:MAX_TOLD]
        raise ToolError(f"{made.name}: the server answered {_status(fetched.status)}{again}: {told}")
    if not fetched.body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        from pydantic_core import from_json

        if has_more_values(fetched.body):
            raise ToolError(
                f"{made.name}: the server answered with more than {MAX_VALUES} values: ask for less"
            )
        try:
            found: JsonValue = from_json(fetched.body, allow_inf_nan=False)
        except ValueError:
            raise ToolError(f"{made.name}: the server answered with JSON that cannot be read") from None
    elif kind.startswith("text/") or kind.endswith(("/xml", "+xml")):
        found = _as_text(fetched)
    else:
        found = {"content_type": kind or "unknown", "bytes": len(fetched.body)}
    return cast("JsonValue", secrets.hidden(legible(found)))


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _as_text(fetched: Fetched) -> str:
    return fetched.body.decode(errors="replace")
