"""The final text: sentences for people, or JSON where a schema asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from agentkit.messages import JsonObject, JsonValue
from agentkit.models.offline.calls import Call, is_json_number, items, members
from agentkit.models.offline.plan import Failed, Known

SIGNATURE = "(offline model)"
MAX_SHOWN = 2_000
MAX_PLACES = 20
_BEGINNINGS = ("it is ", "today is ", "the text ", "this needs ", "the tool ")
_ENDS = (".", "?", "!", "\n")

CAPABILITIES = (
    "I am the offline model: deterministic, without a language model behind me. I understand arithmetic "
    "(add 3 and 4 and multiply the result by 5), dates (how many days between 2024-02-28 and 2024-03-01), and "
    "counting, finding and reading in texts and files (how many words are in README.md). "
    "For anything else choose a real model, for example --model openai:NAME."
)


def not_understood(rest: str) -> str:
    """What to say about a goal that is not understood."""
    where = f" (I was lost at: {rest})" if rest else ""
    return f"I did not understand this goal{where}. {CAPABILITIES}"


def in_words(answers: Sequence[tuple[Call, Known]], failures: Sequence[Failed]) -> str:
    """One sentence for each answer, and one for each failure."""
    said = [_sentence(call.tool, known, call.field) for call, known in answers]
    said += [failed.reason.rstrip(".") for failed in failures]
    text = "; ".join(dict.fromkeys(said))
    if text.startswith(_BEGINNINGS):
        text = text[0].upper() + text[1:]
    return f"{text}{'' if text.endswith(_ENDS) else '.'} {SIGNATURE}"


def _sentence(tool: str, known: Known, field: str | None) -> str:
    say = _SAY.get(tool)
    return say(known, field or "") if say is not None else f"{tool}: {_shown(known.value)}"


def _found(known: Known, field: str) -> str:  # noqa: ARG001  (one signature for all)
    text, pattern = _shown(known.arguments.get("text")), _shown(known.arguments.get("pattern"))
    begin = f"'{text}' occurs {_times(known.value)} in {pattern}"
    matches = items(members(known.output).get("matches"))
    if not matches:
        return begin
    places = [f"{members(match).get('path')}:{members(match).get('line')}" for match in matches]
    more = ", …" if len(places) > MAX_PLACES else ""
    return f"{begin} ({', '.join(places[:MAX_PLACES])}{more})"


def _listed(known: Known, field: str) -> str:  # noqa: ARG001
    output = members(known.output)
    names = [_shown(name) for name in items(output.get("files"))]
    names += [f"{_shown(name)}/" for name in items(output.get("folders"))]
    more = "" if output.get("complete", True) else ", …"
    return f"{_shown(known.arguments.get('pattern'))}: {', '.join(names) + more if names else 'no files'}"


def _read(known: Known, field: str) -> str:  # noqa: ARG001
    text = _shown(known.value)
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return f"{_shown(known.arguments.get('path'))} reads:\n{shown.strip()}\n"


def _counted(known: Known, unit: str) -> str:
    value = _shown(known.value)
    counted = unit.removesuffix("s") if value == "1" else unit
    return f"{_shown(known.arguments.get('path', 'the text'))} has {value} {counted}"


def _days(known: Known, field: str) -> str:  # noqa: ARG001
    ends = f"from {_shown(known.arguments.get('start'))} to {_shown(known.arguments.get('end'))}"
    value = _shown(known.value)
    return f"it is {value} {'day' if value in {'1', '-1'} else 'days'} {ends}"


def _later(known: Known, field: str) -> str:  # noqa: ARG001
    days, date = known.arguments.get("days"), _shown(known.arguments.get("date"))
    count = abs(days) if isinstance(days, int) else 0
    after = "before" if isinstance(days, int) and days < 0 else "after"
    return f"{count} {'day' if count == 1 else 'days'} {after} {date} is {_shown(known.value)}"


_SAY: Mapping[str, Callable[[Known, str], str]] = {
    "calculator": lambda known, _: f"{_shown(known.arguments.get('expression'))} = {_shown(known.value)}",
    "file_statistics": _counted,
    "text_statistics": _counted,
    "count_occurrences": lambda known, _: (
        f"'{_shown(known.arguments.get('wanted'))}' occurs {_times(known.value)} in the text"
    ),
    "find_in_files": _found,
    "list_files": _listed,
    "read_text": _read,
    "days_between": _days,
    "add_days": _later,
    "weekday": lambda known, _: f"{_shown(known.arguments.get('date'))} is a {_shown(known.value)}",
    "today": lambda known, _: f"today is {_shown(known.value)}",
    "now": lambda known, _: f"it is {_shown(known.value)}",
}


def _shown(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _times(value: JsonValue) -> str:
    return "once" if value == 1 else f"{_shown(value)} times"


# --- JSON --------------------------------------------------------------------------------------------------------


class Unfit(Exception):
    """The results do not fit the schema. Never leaves this package."""


def as_json(schema: JsonObject, values: Sequence[JsonValue], last: Sequence[JsonValue], sentence: str) -> str:
    """JSON that satisfies a simple schema.

    Args:
        schema: of a number, a text, a list of them, or an object with such members.
        values: all results in their order, intermediate ones included.
        last: the results that answer the goal.
        sentence: the answer in words, for members that are texts.

    Raises:
        Unfit: the schema is not so simple, or asks for other results.
    """
    return json.dumps(_Filler(values, last, sentence).value(schema), ensure_ascii=False)


class _Filler:
    def __init__(self, values: Sequence[JsonValue], last: Sequence[JsonValue], sentence: str) -> None:
        self._values = values
        self._last = last
        self._sentence = sentence

    def value(self, schema: JsonValue) -> JsonValue:
        plain = _plain(schema)
        match plain.get("type"):
            case "object":
                return self._object(plain)
            case "array":
                fitting = [value for value in self._last if _is_of(plain.get("items"), value)]
                if not fitting:
                    raise Unfit
                return fitting
            case _:
                return self._one(plain)

    def _object(self, schema: JsonObject) -> JsonValue:
        properties = members(schema.get("properties"))
        numbers = self._numbers(sum(map(_asks_number, properties.values())))
        filled: dict[str, JsonValue] = {}
        for name, member in properties.items():
            try:
                filled[name] = self._number(member, numbers) if _asks_number(member) else self.value(member)
            except Unfit:
                if name in items(schema.get("required")):
                    raise
        if not filled:
            raise Unfit
        return filled

    def _numbers(self, count: int) -> Iterator[JsonValue]:
        """So many numbers: those that answer the goal, or all of them, or the last; none where the count differs."""
        for values in (self._last, self._values, self._last[-1:]):
            numbers = [value for value in values if is_json_number(value)]
            if len(numbers) == count:
                return iter(numbers)
        return iter(())

    def _number(self, schema: JsonValue, numbers: Iterator[JsonValue]) -> JsonValue:
        number = next(numbers, None)
        if number is None or not _is_of(schema, number):
            raise Unfit
        return number

    def _one(self, schema: JsonObject) -> JsonValue:
        if "enum" in schema:
            raise Unfit
        for value in reversed(self._last):
            if _is_of(schema, value):
                return value
        if schema.get("type") == "string":
            return self._sentence
        raise Unfit


def _plain(schema: JsonValue) -> JsonObject:
    """The schema, or the first of its alternatives that is not ``null``."""
    given = members(schema)
    alternatives = (members(alternative) for alternative in items(given.get("anyOf")))
    return next((alternative for alternative in alternatives if alternative.get("type") != "null"), given)


def _asks_number(schema: JsonValue) -> bool:
    return _plain(schema).get("type") in {"integer", "number"}


def _is_of(schema: JsonValue, value: JsonValue) -> bool:
    match _plain(schema).get("type"):
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return is_json_number(value)
        case "string":
            return isinstance(value, str)
        case None:
            return schema is None or not members(schema)
        case _:
            return False
