"""Python types and signatures ↔ JSON schema ↔ validated values. Pydantic does the work and is imported on first use."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar, get_type_hints

from agentkit.errors import BadArguments, UsageError
from agentkit.messages import JsonObject, JsonValue

Value = TypeVar("Value")


class OutputSchema(Generic[Value]):
    """The type of an agent's output.

    Args:
        type_: ``str`` for free text, else anything that pydantic can validate: a model, a dataclass, a
            ``TypedDict``, ``int``, ``list[str]``, …
    """

    def __init__(self, type_: type[Value]) -> None:
        self.type = type_

    @property
    def free_text(self) -> bool:
        """The output is whatever the model says."""
        return self.type is str

    @cached_property
    def _adapter(self) -> Any:
        from pydantic import TypeAdapter

        return TypeAdapter(self.type)

    @cached_property
    def json_schema(self) -> JsonObject | None:
        """JSON schema of the output; ``None`` for free text."""
        if self.free_text:
            return None
        schema: JsonObject = self._adapter.json_schema()
        return schema

    def from_text(self, text: str) -> JsonValue:
        """The output as JSON, from a model's final text.

        Raises:
            BadArguments: the text does not satisfy the schema; the message names what is wrong, for the model.
        """
        if self.free_text:
            return text
        try:
            value = json.loads(_without_fence(text), parse_constant=_refuse_constant)
            json.dumps(value, allow_nan=False)  # a number that no float can hold was read as infinity
        except (ValueError, RecursionError) as error:
            message = f"The answer must be JSON that satisfies the schema, and nothing else: {error}"
            raise BadArguments(message) from None
        self.validate(value)
        return value  # type: ignore[no-any-return]

    def validate(self, value: JsonValue) -> Value:
        """The typed output, from its JSON form.

        Raises:
            BadArguments: ``value`` does not satisfy the schema.
        """
        if self.free_text and isinstance(value, str):
            return value  # type: ignore[return-value]
        from pydantic import ValidationError

        try:
            output: Value = self._adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise BadArguments(_explain("The answer does not satisfy the schema", error)) from None
        return output


class ArgumentsSchema:
    """The parameters of a function as a JSON schema, and the way back from JSON arguments to Python values.

    Args:
        function: its annotated parameters become properties; its docstring's ``Args:`` section describes them.
        skip: names of parameters that are not the model's to fill in.

    Raises:
        UsageError: a parameter has no annotation, or is ``*args`` or ``**kwargs``.
    """

    def __init__(self, function: Callable[..., Any], skip: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._skip = skip

    @cached_property
    def _model(self) -> Any:
        from pydantic import ConfigDict, Field, create_model

        described = _described_parameters(inspect.getdoc(self._function) or "")
        hints = type_hints_of(self._function)
        given: dict[str, Any] = {}
        for name, parameter in inspect.signature(self._function).parameters.items():
            if name in self._skip:
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name not in hints:
                message = f"tool {self._function.__name__}: parameter {name} needs a name and an annotation"
                raise UsageError(message)
            default = ... if parameter.default is parameter.empty else parameter.default
            given[name] = (hints[name], Field(default, description=described.get(name)))
        return create_model(self._function.__name__, __config__=ConfigDict(extra="forbid"), **given)

    @cached_property
    def json_schema(self) -> JsonObject:
        """JSON schema of an object with the parameters as properties."""
        schema: dict[str, Any] = self._model.model_json_schema()
        schema.pop("title", None)
        for prop in schema.get("properties", {}).values():
            prop.pop("title", None)
        schema.setdefault("properties", {})
        return schema

    def validate(self, arguments: JsonObject) -> dict[str, Any]:
        """Keyword arguments for the function.

        Raises:
            BadArguments: they do not fit; the message names each field, for the model.
        """
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError, to_json

        try:
            model = self._model.model_validate_json(to_json(arguments))
        except ValidationError as error:
            raise BadArguments(_explain(f"{self._function.__name__}: bad arguments", error)) from None
        except PydanticSerializationError:  # half a surrogate pair, for one
            what = "they hold what JSON cannot express"
            raise BadArguments(f"{self._function.__name__}: bad arguments: {what}") from None
        return {name: getattr(model, name) for name in self._model.model_fields}


def to_json_value(value: Any) -> JsonValue:
    """Whatever a tool returned as plain JSON: dataclasses, models, dates, paths, … become what they look like.

    Raises:
        UsageError: JSON cannot express it (this includes NaN and infinity).
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    from pydantic_core import PydanticSerializationError, to_json

    try:
        plain: JsonValue = json.loads(
            to_json(value, inf_nan_mode="constants"), parse_constant=_refuse_constant
        )
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        message = f"a {type(value).__name__} cannot be expressed as JSON: {error}"
        raise UsageError(message) from None
    return plain


def type_hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations of a tool's function.

    Raises:
        UsageError: one cannot be resolved.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        message = f"tool {function.__name__}: an annotation cannot be resolved: {error}"
        raise UsageError(message) from None


def summary_of(function: Callable[..., Any]) -> str:
    """A function's docstring up to its ``Args:`` section: what the model reads about a tool."""
    text = inspect.getdoc(function) or ""
    return re.split(r"^(?:Args|Returns|Raises|Yields):\s*$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _described_parameters(docstring: str) -> Mapping[str, str]:
    section = re.search(r"^Args:\s*\n((?:[ \t]+.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(
        r"^[ \t]{1,4}(\w+)(?: \([^)]*\))?:[ \t]*(.+(?:\n[ \t]{5,}.+)*)", section[1], re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}


def _explain(what: str, error: Any) -> str:
    """What is wrong, field by field; without the values, which may be private."""
    problems = [f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors()[:8]]
    return f"{what}: {'; '.join(problems)}"


def _without_fence(text: str) -> str:
    fenced = re.fullmatch(r"\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*", text, flags=re.DOTALL)
    return fenced[1] if fenced else text


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)
