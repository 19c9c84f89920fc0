"""Docstrings in the styles of Google, NumPy and Sphinx: what is said of each parameter, and all the rest.

The rest is what a model reads about a tool: nothing is left out of it but the entries of parameters, which the model
reads where it fills them in. An entry whose name is not that of a parameter is text like any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_TITLES = r"(?:keyword |other )?(?:args|arguments|parameters|params)|keywords"
_GOOGLE = re.compile(rf"\s*(?:{_TITLES})\s*:\s*", re.IGNORECASE)
_NUMPY = re.compile(rf"\s*(?:{_TITLES})\s*", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*(?:-{3,}|={3,})\s*")
_FIELD = re.compile(
    r"\s*[:@](?:param|parameter|arg|argument|key|keyword|kwarg)\s+(?:[^:]*?\s)??\*{0,2}(\w+)\s*:(.*)"
)
_TYPE_FIELD = re.compile(r"\s*[:@]type\s+(\w+)\s*:.*")
_NAMES = re.compile(r"(?:[-•]\s+)?[*`]{0,3}(\w+)[*`]{0,3}((?:\s*,\s*[*`]{0,3}\w+[*`]{0,3})*)\s*")
_SEPARATOR = re.compile(r"\s*(?::(?!:)|--?(?=\s)|[–—])\s*")
_BRACKETS = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Docstring:
    """What a docstring says.

    Attributes:
        description: all but the entries of parameters.
        parameters: the descriptions of parameters, by name, in one line each.
    """

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def read_docstring(text: str, names: Collection[str]) -> Docstring:
    """Read a docstring.

    Args:
        text: without its indentation, as :func:`inspect.getdoc` returns it.
        names: of all parameters of the function.
    """
    reader = _Reader(text.splitlines(), names)
    reader.read()
    description = re.sub(r"\n{3,}", "\n\n", "\n".join(reader.rest)).strip()
    return Docstring(description=description, parameters=reader.found)


class _Reader:
    """Sorts the lines of a docstring."""

    def __init__(self, lines: Sequence[str], names: Collection[str]) -> None:
        self._lines = lines
        self._names = names
        self.found: dict[str, str] = {}
        self.rest: list[str] = []

    def read(self) -> None:
        place = 0
        while place < len(self._lines):
            line = self._lines[place]
            following = self._lines[place + 1] if place + 1 < len(self._lines) else ""
            if _GOOGLE.fullmatch(line):
                place = self._section([line], place, self._end_of_google(place))
            elif _NUMPY.fullmatch(line) and _UNDERLINE.fullmatch(following):
                place = self._section([line, following], place, self._end_of_numpy(place + 2))
            elif (found := _FIELD.fullmatch(line)) and found[1] in self._names:
                place = self._field(found, place)
            elif (found := _TYPE_FIELD.fullmatch(line)) and found[1] in self._names:
                place += 1  # the schema says it
            else:
                self.rest.append(line)
                place += 1

    def _section(self, header: list[str], begin: int, end: int) -> int:
        """Entries of parameters are taken out; what is left keeps its header."""
        left: list[str] = []
        numpy = len(header) > 1
        for entry in _entries(self._lines[begin + len(header) : end]):
            names, text = _parsed(entry, numpy=numpy)
            known = [name for name in names if name in self._names]
            if not known or len(known) < len(names):
                left += entry
                continue
            for name in known if text else ():
                self.found.setdefault(name, text)
        if any(line.strip() for line in left):
            self.rest += [*header, *left]
        return end

    def _field(self, found: re.Match[str], place: int) -> int:
        end = place + 1
        while end < len(self._lines) and _indent(self._lines[end]) > _indent(self._lines[place]):
            end += 1
        self.found.setdefault(found[1], _joined([found[2], *self._lines[place + 1 : end]]))
        return end

    def _end_of_google(self, header: int) -> int:
        """The line behind a section: lines that are indented further, or where there are none, those of entries."""
        depth, place = _indent(self._lines[header]), header + 1
        flat = place < len(self._lines) and 0 <= _indent(self._lines[place]) <= depth
        while place < len(self._lines):
            line = self._lines[place]
            if line.strip() and _indent(line) <= depth and not (flat and self._is_entry(line)):
                break
            if flat and not line.strip():
                break
            place += 1
        return place

    def _end_of_numpy(self, place: int) -> int:
        """The line at which the next section begins: one with a line of dashes below it."""
        while place < len(self._lines):
            following = self._lines[place + 1] if place + 1 < len(self._lines) else ""
            if self._lines[place].strip() and _UNDERLINE.fullmatch(following):
                break
            place += 1
        return place

    def _is_entry(self, line: str) -> bool:
        names, _text = _parsed([line])
        return bool(names) and all(name in self._names for name in names)


def _entries(lines: Sequence[str]) -> Iterator[list[str]]:
    """The lines of a section by entry: each begins at the least indentation."""
    depths = [_indent(line) for line in lines if line.strip()]
    if not depths:
        return
    least, entry = min(depths), list[str]()
    for line in lines:
        if line.strip() and _indent(line) == least and entry:
            yield entry
            entry = []
        entry.append(line)
    yield entry


def _parsed(entry: Sequence[str], *, numpy: bool = False) -> tuple[list[str], str]:
    """The names that an entry describes, and its text; no names for what is none."""
    begin = next((index for index, line in enumerate(entry) if line.strip()), 0)
    first, more = entry[begin].strip(), entry[begin + 1 :]
    found = _NAMES.match(first)
    if found is None:
        return [], ""
    names = [found[1], *re.findall(r"\w+", found[2])]
    behind = _without_type(first[found.end() :])
    separator = _SEPARATOR.match(behind)
    if separator is not None:  # in NumPy's style the type stands there
        return names, _joined(more if numpy else [behind[separator.end() :], *more])
    stands_alone = not behind and (numpy or any(line.strip() for line in more))
    return (names, _joined(more)) if stands_alone else ([], "")


def _without_type(text: str) -> str:
    """What follows a type in brackets, which may hold brackets itself."""
    if not text or text[0] not in _BRACKETS:
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return text[place + 1 :].lstrip()
    return text


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())


def _indent(line: str) -> int:
    """How far a line is indented; -1 for an empty one."""
    return len(line) - len(line.lstrip()) if line.strip() else -1
