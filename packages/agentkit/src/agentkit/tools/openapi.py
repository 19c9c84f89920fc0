"""Operations of an API that an OpenAPI document describes, as tools. Pure, but for reading the document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote

from agentkit.errors import UsageError
from agentkit.messages import Effect, JsonObject
from agentkit.net.headers import header_problem
from agentkit.tools.http import HttpTool, HttpToolset, Place, effect_of
from agentkit.untrusted.json_schema import depth
from agentkit.untrusted.text import visible

if TYPE_CHECKING:
    from agentkit.net.http_client import GuardedClient

Found: TypeAlias = Mapping[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MAX_DESCRIPTION = 1000
MAX_DEFINITION = 100_000
"""Characters of JSON of the schema of one operation."""
MAX_DEPTH = 40
MAX_SCHEMAS = 10_000
"""Of one operation, with all that its references lead to: each may lead to two others, and these to four."""
MAX_LEVELS = 200
MAX_VALUES = 2_000_000
"""Of a document; what YAML repeats by a word counts each time."""
BODY = "body"
"""The argument that is the whole body of a request."""

_NOT_PARAMETERS = frozenset({"accept", "authorization", "content-type"})
"""Headers that OpenAPI itself says are to be ignored where they are described as parameters."""

_PATH = re.compile(r"[^\s\\#\x00-\x1f\x7f]+")

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
        headers: sent with each request, such as ``Authorization``; neither the model nor a log sees them. A parameter
            of the same name is not the model's to give.
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
        parameters, places = _Arguments(read, operation, headers or {}).gathered()
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
        tags = [f"tag:{tag}" for tag in _list(self.told.get("tags")) if isinstance(tag, str)]
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
        url = _text(first.get("url"))
        for name, variable in _object(first.get("variables")).items():
            url = url.replace(f"{{{name}}}", str(_object(variable).get("default", "")))
        if not url.startswith(("https://", "http://")):
            message = "the OpenAPI document does not say where its API is: give a base_url"
            raise UsageError(message)
        return url

    def operations(self) -> Iterator[_Operation]:
        """In the document's order."""
        for path, item in _object(self._told.get("paths")).items():
            told = self.followed(item)
            for method in METHODS:
                if method in told and not str(path).startswith("x-"):
                    shared = tuple(_list(told.get("parameters")))
                    yield _Operation(str(path), method, _object(told[method]), shared)

    def followed(self, told: Any) -> Found:
        """What a reference stands for; anything else as it is."""
        found, seen = _object(told), 0
        while isinstance(found.get("$ref"), str):
            found, seen = _object(self.found_at(found["$ref"])), seen + 1
            if seen > MAX_DEPTH:
                message = "the OpenAPI document has a reference that leads to itself"
                raise UsageError(message)
        return found

    def found_at(self, reference: str) -> Any:
        """What stands where a reference points to.

        Raises:
            UsageError: it points out of the document, or at nothing.
        """
        if not reference.startswith("#/"):
            message = (
                f"the OpenAPI document refers to {reference[:200]!r}: only references within it are followed"
            )
            raise UsageError(message)
        found: Any = self._told
        for part in unquote(reference[2:]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            items = _list(found)
            if items:
                found = items[int(name)] if name.isdecimal() and int(name) < len(items) else None
            else:
                found = _object(found).get(name)
        if found is None:
            message = f"the OpenAPI document refers to {reference[:200]!r}, which is not in it"
            raise UsageError(message)
        return found


class _Arguments:
    """What an operation is called with: its parameters and its body.

    Args:
        document: that describes it.
        operation: this one.
        ours: headers that are sent with each request; they are nobody else's to give.
    """

    def __init__(self, document: _Document, operation: _Operation, ours: Collection[str]) -> None:
        self._document = document
        self._operation = operation
        self._not_theirs = _NOT_PARAMETERS | {name.lower() for name in ours}
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self._places: dict[str, Place] = {}
        self._left = MAX_SCHEMAS

    def gathered(self) -> tuple[JsonObject, dict[str, Place]]:
        """The schema of the arguments, and where each of them goes.

        Raises:
            UsageError: the operation needs something that cannot be given.
        """
        for parameter in self._parameters():
            self._add(parameter)
        self._add_body(self._document.followed(self._operation.told.get("requestBody") or {}))
        whole: dict[str, Any] = {
            "type": "object",
            "properties": self._properties,
            "additionalProperties": False,
        }
        if self._required:
            whole["required"] = [*self._required]
        if depth(whole, MAX_DEPTH) > MAX_DEPTH or len(json.dumps(whole)) > MAX_DEFINITION:
            raise self._too_large()
        return whole, self._places

    def _parameters(self) -> Iterable[Found]:
        told = (*self._operation.shared, *_list(self._operation.told.get("parameters")))
        followed = [self._document.followed(each) for each in told]
        # an operation's own comes before the path's
        return {(_text(each.get("name")), _text(each.get("in"))): each for each in followed}.values()

    def _add(self, parameter: Found) -> None:
        name, where = _text(parameter.get("name")), _text(parameter.get("in"))
        if where == "header" and name.lower() in self._not_theirs:
            return
        needed = bool(parameter.get("required")) or where == "path"
        if where not in ("path", "query", "header"):
            if needed:
                raise self._unusable(f"the parameter {name} goes into a {where}, which cannot be given")
            return
        if where == "header" and (problem := header_problem(name)) is not None:
            if needed:
                raise self._unusable(problem)
            return
        if name in self._properties:
            raise self._unusable(f"two parameters are called {name}")
        content = next(iter(_object(parameter.get("content")).values()), None)
        schema = self._shown(parameter.get("schema") or _object(content).get("schema") or {})
        text = _text(parameter.get("description"))
        if text:
            schema["description"] = _cut(text)
        self._put(name, cast("Place", where), schema, needed=needed)

    def _add_body(self, body: Found) -> None:
        contents = _object(body.get("content"))
        kinds = [
            kind
            for kind in contents
            if _text(kind).partition(";")[0].strip().lower().endswith(("/json", "+json"))
        ]
        if kinds:
            if BODY in self._properties:
                raise self._unusable("a parameter has the name of the body")
            schema = self._shown(_object(contents[kinds[0]]).get("schema") or {})
            self._put(BODY, "body", schema, needed=bool(body.get("required")))
        elif contents and body.get("required"):
            raise self._unusable(f"its body is {', '.join(map(str, contents))}, and only JSON can be sent")

    def _put(self, name: str, where: Place, schema: dict[str, Any], *, needed: bool) -> None:
        self._properties[name], self._places[name] = schema, where
        self._required += [name] if needed else []

    # --- schemas --------------------------------------------------------------------------------------------------

    def _shown(self, schema: Any, within: tuple[str, ...] = (), level: int = 0) -> dict[str, Any]:
        """A schema without references and without what is of no use to a model; what holds itself is left open."""
        self._left -= 1
        if self._left < 0 or level > MAX_DEPTH:
            raise self._too_large()
        given = _object(schema)
        reference = given.get("$ref")
        if isinstance(reference, str):
            if reference in within:
                return {}
            return {
                **self._shown(self._document.found_at(reference), (*within, reference), level + 1),
                **{name: _cut(_text(given[name])) for name in ("description",) if name in given},
            }
        shown: dict[str, Any] = {}
        for name in _KEPT:
            if name in given:
                shown[name] = self._kept(name, given[name], within, level + 1)
        if given.get("nullable") is True and isinstance(shown.get("type"), str):  # of version 3.0
            shown["type"] = [shown["type"], "null"]
        for name in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(shown.get(name), bool):  # of version 3.0
                del shown[name]
        return shown

    def _kept(self, name: str, value: Any, within: tuple[str, ...], level: int) -> Any:
        if name == "properties":
            given = _object(value)
            return {visible(_text(key)): self._shown(each, within, level) for key, each in given.items()}
        if name in ("items", "not") or (name == "additionalProperties" and isinstance(value, Mapping)):
            return self._shown(value, within, level)
        if name in ("oneOf", "anyOf", "allOf"):
            return [self._shown(each, within, level) for each in _list(value)]
        return _cut(value) if name == "description" and isinstance(value, str) else visible(value)

    def _too_large(self) -> UsageError:
        return self._unusable("the schema of its arguments is too large")

    def _unusable(self, why: str) -> UsageError:
        return UsageError(f"{self._operation.name}: {why}")


def _read(document: Found | Path | str) -> Found:
    told = document if isinstance(document, Mapping) else _object(_read_file(document))
    if depth(told, MAX_LEVELS, MAX_VALUES) > MAX_LEVELS:
        raise UsageError("the OpenAPI document is too large, or nested too deep")
    return told


def _read_file(document: Path | str) -> Any:
    path = Path(document)
    try:
        text = path.read_text(encoding="utf-8")
        return _yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except RecursionError:
        why = "it is nested too deep"
    except (OSError, ValueError) as error:
        why = str(error)
    message = f"the OpenAPI document {path} cannot be read: {why}"
    raise UsageError(message)


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
    """The path below the base: whoever wrote the document does not choose where the headers are sent."""
    if "?" in base or "#" in base:
        message = "the base_url of an API has no query and no fragment"
        raise UsageError(message)
    way = re.split(r"[/\\?]", path)
    if not path.startswith("/") or not _PATH.fullmatch(path) or "." in way or ".." in way:
        message = f"the OpenAPI document has the path {path[:200]!r}, which is none below the API's own"
        raise UsageError(message)
    return base.rstrip("/") + path


def _description(told: Found) -> str:
    texts = [told.get("summary"), told.get("description")]
    said = list(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
    deprecated = ["Deprecated."] if told.get("deprecated") is True else []
    return _cut("\n\n".join([*deprecated, *said]))


def _cut(text: str) -> str:
    shown: str = visible(text)
    return shown if len(shown) <= MAX_DESCRIPTION else shown[: MAX_DESCRIPTION - 1] + "…"


def _object(value: Any) -> Found:
    return cast("Found", value) if isinstance(value, Mapping) else _NOTHING


_NOTHING: Found = {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
