"""Operations of an API that an OpenAPI document describes, as tools. Pure, but for reading the document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urljoin, urlsplit

from agentkit.characters import visible
from agentkit.errors import UsageError
from agentkit.foreign import depth
from agentkit.messages import Effect, JsonObject
from agentkit.tools.http import HttpTool, HttpToolset, Place, effect_of

if TYPE_CHECKING:
    from agentkit.guarded import GuardedClient

Found: TypeAlias = Mapping[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MOST_DESCRIPTION = 1000
MOST_DEFINITION = 100_000
"""Characters of JSON of the schema of one operation."""
MOST_DEPTH = 40
BODY = "body"
"""The argument that is the whole body of a request."""

_KEPT = (
    *("type", "format", "enum", "const", "default", "description", "properties", "required", "items"),
    *(
        "additionalProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
    ),
    *("uniqueItems", "oneOf", "anyOf", "allOf", "not", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
"""What a model is told of a schema; the rest (examples, XML, links …) only costs tokens."""


def from_openapi(
    document: Found | Path | str,
    *,
    base_url: str | None = None,
    include: Collection[str] = ("*",),
    prefix: str = "",
    headers: Mapping[str, str] | None = None,
    effects: Mapping[str, Effect | str] | None = None,
    client: GuardedClient | None = None,
) -> HttpToolset:
    """The operations of an OpenAPI document (3.0 or 3.1) as tools.

    Each operation is a tool of the name of its ``operationId``; its parameters and its body (JSON only, as the argument
    ``body``) are the tool's arguments. What a document says is shown to the model, and its schemas are never run.

    Args:
        document: parsed, or the path of a file of JSON (or YAML, where PyYAML is installed).
        base_url: where the API is; the first of the document's ``servers`` where not given.
        include: patterns of the names, tags (``tag:NAME``) or paths (``GET /items*``) of operations that become tools;
            those that a pattern with ``!`` before it fits do not, whatever the others say.
        prefix: put before each name.
        headers: sent with each request, such as ``Authorization``; neither the model nor a log sees them.
        effects: what repeating a call does, by pattern of the tool's name; the first that fits counts, and otherwise
            the method: GET and HEAD are ``pure``, PUT and DELETE ``idempotent``, the rest ``unsafe``.
        client: sends the requests; as in :class:`~agentkit.tools.http.HttpToolset`.

    Raises:
        UsageError: it is no such document, an operation that is included cannot be a tool, or none is included.
    """
    tools = openapi_tools(
        document, base_url=base_url, include=include, prefix=prefix, headers=headers, effects=effects
    )
    return HttpToolset(tools, client)


def openapi_tools(
    document: Found | Path | str,
    *,
    base_url: str | None = None,
    include: Collection[str] = ("*",),
    prefix: str = "",
    headers: Mapping[str, str] | None = None,
    effects: Mapping[str, Effect | str] | None = None,
) -> list[HttpTool]:
    """The requests of which :func:`from_openapi` makes a toolset.

    Raises:
        UsageError: as there.
    """
    read = _Document(_read(document))
    base = read.base_url(base_url)
    tools: list[HttpTool] = []
    for operation in read.operations():
        name = prefix + operation.name
        if not operation.is_included(include):
            continue
        parameters, places = read.arguments_of(operation)
        tools.append(
            HttpTool(
                name,
                operation.method.upper(),
                _joined(base, operation.path),
                description=_description(operation.told),
                parameters=parameters,
                places=places,
                effect=_effect(name, operation.method, effects or {}),
                headers=headers or {},
            )
        )
    if not tools:
        raise UsageError("the OpenAPI document has no operation that is included")
    return tools


@dataclass(frozen=True, slots=True)
class _Operation:
    path: str
    method: str
    told: Found
    shared: tuple[Any, ...] = field(default=())

    @property
    def name(self) -> str:
        given = self.told.get("operationId")
        if not isinstance(given, str) or not given:
            given = re.sub(r"[^A-Za-z0-9-]+", "_", f"{self.method}_{self.path}").strip("_")
        return re.sub(r"[^A-Za-z0-9_-]+", "_", given)[:64]

    def is_included(self, patterns: Collection[str]) -> bool:
        tags = [f"tag:{tag}" for tag in _list(self.told.get("tags"))]
        names = [self.name, f"{self.method.upper()} {self.path}", *tags]
        fitting = [
            pattern
            for pattern in patterns
            if any(fnmatchcase(name, pattern.removeprefix("!")) for name in names)
        ]
        return bool(fitting) and not any(pattern.startswith("!") for pattern in fitting)


class _Document:
    def __init__(self, told: Found) -> None:
        version = told.get("openapi")
        if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
            found = f"swagger {told['swagger']}" if "swagger" in told else repr(version)
            message = f"an OpenAPI document of version 3.0 or 3.1 is needed, not {found}"
            raise UsageError(message)
        self._told = told

    def base_url(self, given: str | None) -> str:
        """Where the API is, with the default of each variable."""
        if given is not None:
            return given
        servers = _list(self._told.get("servers"))
        first = _object(servers[0] if servers else None)
        url = str(first.get("url", ""))
        for name, variable in _object(first.get("variables")).items():
            url = url.replace("{" + name + "}", str(_object(variable).get("default", "")))
        if urlsplit(url).scheme not in ("https", "http"):
            message = "the OpenAPI document does not say where its API is: give a base_url"
            raise UsageError(message)
        return url

    def operations(self) -> Iterator[_Operation]:
        """In the document's order."""
        for path, item in _object(self._told.get("paths")).items():
            told = self._followed(item)
            for method in METHODS:
                if method in told:
                    yield _Operation(
                        path, method, _object(told[method]), tuple(_list(told.get("parameters")))
                    )

    def arguments_of(self, operation: _Operation) -> tuple[JsonObject, dict[str, Place]]:
        """The schema of an operation's arguments, and where each of them goes.

        Raises:
            UsageError: it needs something that cannot be given.
        """
        properties: dict[str, Any] = {}
        required: list[str] = []
        places: dict[str, Place] = {}
        given: dict[tuple[Any, Any], Found] = {}
        for each in (*operation.shared, *_list(operation.told.get("parameters"))):
            parameter = self._followed(each)
            given[parameter.get("name"), parameter.get("in")] = (
                parameter  # an operation's own comes before the path's
            )
        for parameter in given.values():
            self._add(operation, parameter, properties, required, places)
        body = self._followed(operation.told.get("requestBody") or {})
        schema = self._body_schema(operation, body)
        if schema is not None:
            if BODY in properties:
                message = f"{operation.name}: a parameter has the name of the body"
                raise UsageError(message)
            properties[BODY], places[BODY] = schema, "body"
            required += [BODY] if body.get("required") else []
        whole: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            whole["required"] = [*required]
        if len(json.dumps(whole)) > MOST_DEFINITION or depth(whole, MOST_DEPTH) > MOST_DEPTH:
            message = f"{operation.name}: the schema of its arguments is too large"
            raise UsageError(message)
        return whole, places

    def _add(
        self,
        operation: _Operation,
        parameter: Found,
        properties: dict[str, Any],
        required: list[str],
        places: dict[str, Place],
    ) -> None:
        name, where = str(parameter.get("name", "")), parameter.get("in")
        needed = bool(parameter.get("required")) or where == "path"
        if where not in ("path", "query", "header"):
            if needed:
                message = f"{operation.name}: the parameter {name} goes into a {where}, which cannot be given"
                raise UsageError(message)
            return
        if name in properties:
            message = f"{operation.name}: two parameters are called {name}"
            raise UsageError(message)
        content = next(iter(_object(parameter.get("content")).values()), None)
        schema = self._shown(parameter.get("schema") or _object(content).get("schema") or {})
        text = parameter.get("description")
        if isinstance(text, str) and text:
            schema["description"] = _cut(text)
        properties[name], places[name] = schema, cast("Place", where)
        required += [name] if needed else []

    def _body_schema(self, operation: _Operation, body: Found) -> dict[str, Any] | None:
        contents = _object(body.get("content"))
        kinds = [
            kind for kind in contents if kind.partition(";")[0].strip().lower().endswith(("/json", "+json"))
        ]
        if not kinds:
            if contents and body.get("required"):
                message = f"{operation.name}: its body is {', '.join(contents)}, and only JSON can be sent"
                raise UsageError(message)
            return None
        return self._shown(_object(contents[kinds[0]]).get("schema") or {})

    # --- schemas --------------------------------------------------------------------------------------------------

    def _shown(self, schema: Any, within: tuple[str, ...] = ()) -> dict[str, Any]:
        """A schema without references and without what is of no use to a model; what holds itself is left open."""
        given = _object(schema)
        reference = given.get("$ref")
        if isinstance(reference, str):
            if reference in within or len(within) > MOST_DEPTH:
                return {}
            return {
                **self._shown(self._found(reference), (*within, reference)),
                **{name: given[name] for name in ("description",) if name in given},
            }
        shown: dict[str, Any] = {}
        for name in _KEPT:
            if name in given:
                shown[name] = self._kept(name, given[name], within)
        if given.get("nullable") is True and isinstance(shown.get("type"), str):  # of version 3.0
            shown["type"] = [shown["type"], "null"]
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(shown.get(name), bool):  # of version 3.0
                del shown[name]
        return shown

    def _kept(self, name: str, value: Any, within: tuple[str, ...]) -> Any:
        if name == "properties":
            return {visible(key): self._shown(each, within) for key, each in _object(value).items()}
        if name in ("items", "not") or (name == "additionalProperties" and isinstance(value, Mapping)):
            return self._shown(value, within)
        if name in ("oneOf", "anyOf", "allOf"):
            return [self._shown(each, within) for each in _list(value)]
        return _cut(value) if name == "description" and isinstance(value, str) else visible(value)

    def _followed(self, told: Any) -> Found:
        """What a reference stands for; anything else as it is."""
        found, seen = _object(told), 0
        while isinstance(found.get("$ref"), str):
            found, seen = _object(self._found(found["$ref"])), seen + 1
            if seen > MOST_DEPTH:
                message = "the OpenAPI document has a reference that leads to itself"
                raise UsageError(message)
        return found

    def _found(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            message = (
                f"the OpenAPI document refers to {reference[:200]!r}: only references within it are followed"
            )
            raise UsageError(message)
        found: Any = self._told
        for part in reference[2:].split("/"):
            found = _object(found).get(part.replace("~1", "/").replace("~0", "~"))
        if found is None:
            message = f"the OpenAPI document refers to {reference[:200]!r}, which is not in it"
            raise UsageError(message)
        return found


def _read(document: Found | Path | str) -> Found:
    if isinstance(document, Mapping):
        return document
    path = Path(document)
    try:
        text = path.read_text(encoding="utf-8")
        told: Any = _yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (OSError, ValueError) as error:
        message = f"the OpenAPI document {path} cannot be read: {error}"
        raise UsageError(message) from None
    return _object(told)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise UsageError("an OpenAPI document of YAML needs PyYAML: pip install pyyaml") from None
    load: Callable[[str], Any] = yaml.safe_load
    try:
        return load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _effect(name: str, method: str, effects: Mapping[str, Effect | str]) -> Effect:
    said = next((effect for pattern, effect in effects.items() if fnmatchcase(name, pattern)), None)
    return effect_of(method.upper()) if said is None else Effect(said)


def _joined(base: str, path: str) -> str:
    parts = urlsplit(base)
    if parts.query or parts.fragment:
        message = "the base_url of an API has no query and no fragment"
        raise UsageError(message)
    return urljoin(base.rstrip("/") + "/", path.lstrip("/")) if path.strip("/") else base


def _description(told: Found) -> str:
    texts = [told.get("summary"), told.get("description")]
    said = list(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
    deprecated = ["Deprecated."] if told.get("deprecated") is True else []
    return _cut("\n\n".join([*deprecated, *said]))


def _cut(text: str) -> str:
    shown: str = visible(text)
    return shown if len(shown) <= MOST_DESCRIPTION else shown[: MOST_DESCRIPTION - 1] + "…"


def _object(value: Any) -> Found:
    return cast("Found", value) if isinstance(value, Mapping) else _NOTHING


_NOTHING: Found = {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
