"""Python types and signatures ↔ JSON schema ↔ validated values. Pydantic does the work and is imported on first use."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, cached_property
from itertools import islice
from operator import is_
from typing import Annotated, Any, Generic, Literal, TypeVar, cast, get_args, get_origin

from agentkit.errors import AgentkitError, BadArguments, TranscriptError, UsageError
from agentkit.messages import JsonObject, JsonValue
from agentkit.signatures import Signature, UnresolvedAnnotation
from agentkit.transcript.codec import to_json_text
from agentkit.untrusted.lenient_json import only_value

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
        value = self.parsed(text)
        self.validate(value)
        return value

    def parsed(self, text: str) -> JsonValue:
        """As :meth:`from_text`, without the validators of the type: for a text that has passed them.

        Raises:
            BadArguments: the text is not JSON.
        """
        if self.free_text:
            return text
        return self._read(text)

    def _read(self, text: str) -> JsonValue:
        """The JSON value in a text, also where it is written as models write it."""
        try:
            value: JsonValue = json.loads(_without_fence(text), parse_constant=_refuse_constant)
            json.dumps(value, allow_nan=False)  # a number that no float can hold was read as infinity
        except (ValueError, RecursionError) as error:
            found = only_value(text)
            if found is not None:
                return found[0]
            choices: Any = (self.json_schema or {}).get("enum")
            if isinstance(choices, list) and text.strip() in choices:
                return text.strip()
            message = f"The answer must be JSON that satisfies the schema, and nothing else: {error}"
            raise BadArguments(message) from None
        return value

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
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a validator of the type; its text may hold what is private
            message = (
                f"The answer does not satisfy the schema: its validation failed with {type(error).__name__}"
            )
            raise BadArguments(message) from error
        return output


class ArgumentsSchema:
    """The parameters of a function as a JSON schema, and the way back from JSON arguments to Python values.

    A parameter is described by ``Field(description=…)``, by a text in its ``Annotated``, or by the docstring; the first
    of these that is there counts.

    Args:
        signature: each parameter becomes a property.
        tool: what errors call the function.
        skip: names of parameters that are not the model's to fill in.
    """

    def __init__(self, signature: Signature, tool: str, skip: Collection[str] = ()) -> None:
        self._signature = signature
        self._tool = tool
        self._parameters = [each for each in signature.parameters if each.name not in skip]

    @cached_property
    def _compiled(self) -> tuple[Any, JsonObject]:
        """The model that validates arguments, and its schema."""
        for parameter in self._parameters:
            self._check(parameter)
        try:
            return self._compile(self._parameters)
        except Exception as error:  # noqa: BLE001  (pydantic has many ways to say that a type will not do)
            for parameter in self._parameters:  # which one is it?
                try:
                    self._compile([parameter])
                except Exception as cause:  # noqa: BLE001  (as above)
                    raise self._refused(parameter, cause) from None
            message = f"tool {self._tool}: its parameters cannot be declared together: {_first_line(error)}"
            raise UsageError(message) from None

    def _check(self, parameter: inspect.Parameter) -> None:
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            message = f"tool {self._tool}: parameter {name} is declared as {stars}{name}, which a model "
            message += "cannot fill in: declare each parameter by its name"
            raise UsageError(message)
        if name not in self._signature.hints:
            message = f"tool {self._tool}: parameter {name} needs an annotation that says its type"
            raise UsageError(message)
        if (reason := _never_valid(self._signature.hints[name])) is not None:
            raise self._refused(parameter, TypeError(reason))

    def _refused(self, parameter: inspect.Parameter, cause: Exception) -> UsageError:
        kind = UnresolvedAnnotation if getattr(cause, "code", "") in _UNRESOLVED else UsageError
        hint = self._signature.hints[parameter.name]
        shown = getattr(hint, "__qualname__", None) or str(hint)
        return kind(
            f"tool {self._tool}: parameter {parameter.name} cannot be filled in by a model as {shown[:200]}: "
            f"{_first_line(cause)}"
        )

    def _compile(self, parameters: Sequence[inspect.Parameter]) -> tuple[Any, JsonObject]:
        """Fields have names of our own: that of a parameter may be an attribute of a model, or begin with _."""
        from pydantic import ConfigDict, create_model

        described = self._signature.doc.parameters
        given: dict[str, Any] = {}
        for index, parameter in enumerate(parameters):
            default = ... if parameter.default is parameter.empty else parameter.default
            given[f"p{index}"] = (self._hint(parameter.name, described.get(parameter.name)), default)
        model: Any = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **given)
        schema: dict[str, Any] = model.model_json_schema(schema_generator=_schema_generator())
        json.dumps(schema, allow_nan=False)
        schema.pop("title", None)
        for prop in schema.get("properties", {}).values():
            prop.pop("title", None)
        schema.setdefault("properties", {})
        return model, schema

    def _hint(self, name: str, described: str | None) -> Any:
        """The annotation with what is known besides; what it says itself comes later, and so goes before that."""
        from pydantic import Field

        hint = self._signature.hints[name]
        said: tuple[Any, ...] = ()
        if get_origin(hint) is Annotated:
            hint, said = get_args(hint)[0], get_args(hint)[1:]
        texts = [each if isinstance(each, str) else getattr(each, "documentation", None) for each in said]
        description = next((text for text in texts if isinstance(text, str)), described)
        return Annotated[hint, Field(alias=name, description=description), *said]

    @property
    def json_schema(self) -> JsonObject:
        """JSON schema of an object with the parameters as properties.

        Raises:
            UsageError: a parameter has no annotation, one that JSON cannot express, or is ``*args`` or ``**kwargs``.
        """
        return self._compiled[1]

    def validate(self, arguments: JsonObject) -> dict[str, Any]:
        """The arguments of the function, by the names of its parameters.

        Raises:
            BadArguments: they do not fit; the message names each field, for the model.
        """
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError, to_json

        try:
            model = self._compiled[0].model_validate_json(to_json(arguments))
        except ValidationError as error:
            raise BadArguments(_explain(f"{self._tool}: bad arguments", error)) from None
        except PydanticSerializationError:  # half a surrogate pair, for one
            what = "they hold what JSON cannot express"
            raise BadArguments(f"{self._tool}: bad arguments: {what}") from None
        return {each.name: getattr(model, f"p{index}") for index, each in enumerate(self._parameters)}


_UNRESOLVED = frozenset({"class-not-fully-defined", "undefined-annotation"})
"""Codes of pydantic's errors for a class that names one that is defined later."""


@cache
def _schema_generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import PydanticSerializationError

    class Generator(GenerateJsonSchema):
        """A default that JSON cannot express is left out of the schema; the function receives it all the same."""

        def encode_default(self, dft: Any) -> Any:
            encoded = super().encode_default(dft)
            try:
                json.dumps(encoded, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise PydanticSerializationError(str(error)) from None
            return encoded

        def emit_warning(self, kind: Any, detail: str) -> None:
            """It would only say what is said above."""

    return Generator


# --- values as JSON ----------------------------------------------------------------------------------------------

MAX_ITEMS = 1_000_000
"""Of an iterable: one that never ends is given up there."""


def to_json_value(value: Any) -> JsonValue:
    """``value`` as plain JSON: dataclasses, models, dates, paths, iterables, attachments … become what they look like.

    Halves of surrogate pairs, which no text may hold, become ``?``. Reading a value may take long, and may run code of
    whoever has made it.

    Raises:
        UsageError: JSON cannot express it (this includes NaN and infinity); the text says why. Where reading it raised,
            that is its cause.
    """
    if value is None or type(value) is bool or (type(value) is str and value.isascii()):
        return value
    from pydantic_core import to_jsonable_python

    lists = _Lists()
    try:
        try:
            value = lists.of(value)
            plain = to_jsonable_python(value, inf_nan_mode="constants", fallback=lists.expanded)
        except UnicodeEncodeError:  # in a key: those it does not leave as they are
            plain = to_jsonable_python(_whole(value), inf_nan_mode="constants", fallback=lists.expanded)
        return _checked(plain)
    except MemoryError:
        raise
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(_why_not(value, error)) from error


def _checked(plain: Any) -> JsonValue:
    """What is left of an attempt to convert a value, where it is JSON."""
    try:
        to_json_text(plain)
    except TranscriptError:
        plain = _whole(plain)
        try:
            json.dumps(plain, allow_nan=False)
        except ValueError as error:
            message = "it holds NaN or infinity, which JSON cannot express"
            if "integer string conversion" in str(error):
                message = f"it holds a whole number of more than {sys.get_int_max_str_digits()} digits"
            raise UsageError(message) from None
    return plain  # type: ignore[no-any-return]


class _Lists:
    """Lists in the place of iterators, with an end.

    pydantic reads an iterator without one for ever, and lets no other thread run where that iterator is of C.
    """

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def of(self, value: Any, depth: int = 0) -> Any:
        """The same, with lists for the iterators in lists, tuples, dicts and dataclasses."""
        kind = type(cast("object", value))
        if kind in _PLAIN or depth > _DEEPEST:
            return value
        if kind is dict:
            fields = cast("dict[Any, Any]", value)
            made = {name: self.of(field, depth + 1) for name, field in fields.items()}
            return value if all(made[name] is field for name, field in fields.items()) else made
        if kind in (list, tuple, set, frozenset):
            items = [self.of(item, depth + 1) for item in value]
            return value if all(map(is_, items, value)) else items
        if is_dataclass(value) and not isinstance(value, type):
            parts = {field.name: getattr(value, field.name, None) for field in fields_of(value)}
            changed = self.of(parts, depth + 1)
            return value if changed is parts else changed
        if isinstance(value, Iterator):
            return self._read(cast("Iterator[object]", value), depth)
        return value

    def _read(self, items: Iterable[Any], depth: int = 0) -> list[Any]:
        found = [self.of(item, depth + 1) for item in islice(items, self._left + 1)]
        self._left -= len(found)
        if self._left < 0:
            message = f"it goes on for more than {MAX_ITEMS} items"
            raise UsageError(message)
        return found

    def expanded(self, value: Any) -> Any:
        """What pydantic does not know: mappings and iterables of other kinds."""
        return _expanded(value, self._read)


_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_DEEPEST = 200
"""Levels; pydantic gives up on what is nested deeper than some more."""


def _expanded(value: Any, read: Callable[[Iterable[Any]], list[Any]]) -> Any:
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, Iterable) and not isinstance(value, memoryview):
        return read(cast("Iterable[object]", value))
    message = f"a {kind} cannot be expressed as JSON"
    raise UsageError(message)


def _why_not(value: Any, error: Exception) -> str:
    """Why it is no JSON; without the texts of others' exceptions, which may hold anything."""
    text, cause = str(error), error.__cause__
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no text cannot be expressed as JSON: a picture or a file is an Attachment"
    if text.startswith("Circular reference"):
        return "it refers to itself, which JSON cannot express"
    if isinstance(error, RecursionError) or text.startswith("Maximum serialization depth"):
        return "it is nested too deeply to be expressed as JSON"
    if isinstance(cause, AgentkitError):
        return str(cause)
    what = type(error if cause is None else cause).__name__
    return f"a {type(value).__name__} cannot be expressed as JSON: reading it raised {what}"


def _whole(value: Any) -> Any:
    """Containers and texts without halves of surrogate pairs: names of files may hold them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {_whole(name): _whole(field) for name, field in fields.items()}
    if type(value) in (list, tuple):
        return [_whole(item) for item in value]
    return value


def _explain(what: str, error: Any) -> str:
    """What is wrong, field by field; without the values, which may be private."""
    problems = [f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors()[:8]]
    return f"{what}: {'; '.join(problems)}"


def _never_valid(hint: Any) -> str | None:
    """Return why no JSON is a value of a type although pydantic makes a schema of it; ``None`` where some is."""
    origin = get_origin(hint)
    if hint is type or origin is type:
        return "a class cannot be written in JSON, take its name as a str"
    if origin is Literal:
        has_members = any(
            isinstance(each, Enum) and not isinstance(each, str | int) for each in get_args(hint)
        )
        return (
            "members of an Enum in a Literal match no JSON, name the Enum or the values"
            if has_members
            else None
        )
    inner = get_args(hint)[:1] if origin is Annotated else get_args(hint)
    return next((reason for each in inner if (reason := _never_valid(each)) is not None), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _without_fence(text: str) -> str:
    fenced = re.fullmatch(r"\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*", text, flags=re.DOTALL)
    return fenced[1] if fenced else text


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)
