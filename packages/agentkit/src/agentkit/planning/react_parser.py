"""ReAct parser: a model's text, parsed into its action or answer. The reading half of :mod:`agentkit.planning.react`.

The text is cut at its labels into sections, and the sections are read one after the other. Labels are found by one
pattern that is anchored at the beginning of a line and never goes back over what it has read, so a hostile text takes
linear time as well.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentkit.messages import Part, Reasoning, Text, ToolSpec
from agentkit.planning.conversation import Brief
from agentkit.planning.react_calls import Action, NoAction, Unclear, actions_of, blob_of, calls_a_tool
from agentkit.planning.thinking_tags import FULL_WIDTH, Line
from agentkit.untrusted.lenient_json import is_unicode, value_at, whole_value

MAX_CALLS = 32
"""More actions than this in one reply are a model that repeats itself."""

_LABEL = r"""
    (?:(?:[-*+•]|\d{1,3}[.)])[ \t]++|(?P<heading>\#{1,6}[ \t]*+))?+
    (?P<mark>\*{1,3}|_{1,3}|`)?+
    (?:
        (?P<input>(?:action|tool)[ _-]?(?:\d{1,3}[ _-])?(?:inputs?|arguments?|args|parameters?|params))
        |(?P<loose>inputs?|arguments?|args|parameters?|params)
        |(?P<action>action(?:[ _-]name)?|tool(?:[ _-]name)?)
        |(?P<answer>(?:final[ _-]?)?answer)
        |(?P<thought>thoughts?)
        |(?P<observation>observations?)
    )
    (?:[ \t]*+\#?\d{1,4})?
    (?P=mark)?[ \t]*+
    (?:
        [::](?P=mark)?
        |(?(heading)|(?(mark)|(?!)))\r?$  # a decorated line of its own needs no colon
    )
"""
_FLAGS = re.VERBOSE | re.MULTILINE | re.IGNORECASE
_LABEL_LINE = re.compile(r"^[ \t]*+" + _LABEL, _FLAGS)
_BARE_LABEL = re.compile(r"^([ \t]*+)(\\*+)(?=" + _LABEL + ")", _FLAGS)
_ESCAPED_LABEL = re.compile(r"^([ \t]*+)\\(\\*+)(?=" + _LABEL + ")", _FLAGS)
_OPENING = re.compile(r"\s*+(?P<fence>(?:`{3,}|~{3,})[^\n`{\[]*+\n?\s*+)?+(?P<bracket>[{\[])?")
_CLOSING_FENCE = re.compile(r"^[ \t]*+(?:`{3,}|~{3,})[ \t]*+\r?$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*+(`{3,}|~{3,})([^\n]*+)$", re.MULTILINE)
_INLINE_FENCE = re.compile(r"[ \t]*+(`{3,}|~{3,})")
_LONE_FENCE = re.compile(r"\s*+(?:`{3,}|~{3,})\w*+\s*+")
_BLOB = re.compile(r"^[ \t]*+(?:`{3,}\w*+\s*+)?+(?=[{\[])", re.MULTILINE)
_TAG = re.compile(
    r"""
    (?<![`"'\\])(?:
        <(?P<slash>/?)(?P<name>[^\s<>/!?="'|`]{1,40})(?:\s[^<>\n]{0,200})?>
        |\[(?P<slash2>/?)(?P<name2>[^\W\d][\w\-]{0,40})\](?!\()
        |(?P<comment><!--)|(?P<over>-->)
        |^[ \t]*here(?:['’]s|[ ]is)[ ]my[ ](?:(?P<process>thought[ ]process)|response)\b
    )(?![`"'\\])
    """,
    _FLAGS,
)
_HOLDS_CALLS = re.compile(  # tags around a turn or a call; every other tag around a call makes it a thought
    r"(?:.*[:_\-.])?(?:re(?:ply|sponse|act|sult)|outputs?|(?:final_?)?answer|assistant|turn|message|step|pre|code|xml|root"
    r"|actions?|tools?|calls?|functions?|invoke|parameters?)(?:[:_\-.=].*)?",
    re.IGNORECASE,
)


class Label(StrEnum):
    """What a section is."""

    THOUGHT = "thought"
    ACTION = "action"
    INPUT = "input"
    ANSWER = "answer"
    OBSERVATION = "observation"


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between a label and the next."""

    label: Label
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a text means.

    Attributes:
        parts: reasoning, then calls or the answer; empty where there is a problem.
        problem: what is wrong with the text, as the end of a sentence that begins with "it".
        believed: the text up to the first observation that the model made up.
        is_cut: there was such an observation.
    """

    parts: tuple[Part, ...]
    problem: str | None
    believed: str
    is_cut: bool


def parse(text: str, brief: Brief, *, has_thoughts: bool = False) -> Parsed:
    """What ``text`` means. Never raises.

    Args:
        text: what was said.
        brief: what the model was told.
        has_thoughts: the model's thinking stood beside it; a text without labels is then what it says.
    """
    specs = {spec.name: spec for spec in brief.tools}
    text = text if is_unicode(text) else text.encode(errors="replace").decode()
    splitter = _Splitter(text, specs)
    interpreter = _Interpreter(specs)
    interpreter.read(splitter.sections())
    believed = text[: splitter.cut]
    is_cut = splitter.cut is not None
    if interpreter.is_empty:
        interpreter.read_unlabelled(splitter.outside(believed))
    if (
        interpreter.is_empty
        and not splitter.has_labels
        and _is_an_answer(text, brief, has_thoughts=has_thoughts)
    ):
        return Parsed(parts=(Text(text=text.strip()),), problem=None, believed=believed, is_cut=False)
    problem = interpreter.problem(is_cut=is_cut)
    if problem is not None and splitter.has_enclosed:
        problem += "; what stands between tags is taken for your thinking"
    if has_thoughts and not text.strip():
        problem = "it holds your thinking and nothing else"
    parts = interpreter.parts()
    return Parsed(parts=() if problem else parts, problem=problem, believed=believed, is_cut=is_cut)


def _is_an_answer(text: str, brief: Brief, *, has_thoughts: bool) -> bool:
    """Whether a text without labels can only be the answer: it stands behind the thinking, or is what was asked for."""
    if not text.strip():
        return False
    if brief.output_schema is not None:
        found = whole_value(text)
        return found is not None and isinstance(found[0], dict | list)
    return has_thoughts and not any(spec.name in text for spec in brief.tools)


def read_line(line: str) -> Line | None:
    """Whether a line begins an answer, or what a tool is given."""
    label = _LABEL_LINE.match(line.translate(FULL_WIDTH))
    kind = None if label is None else _kind(label)
    if kind is Label.ANSWER:
        return Line.ANSWER
    return Line.VALUE if kind in (Label.INPUT, Label.ACTION) else None


def escaped(text: str) -> str:
    """``text`` with a backslash before whatever looks like a label at the beginning of a line."""
    return _BARE_LABEL.sub(r"\1\2\\", text)


def unescaped(text: str) -> str:
    """The inverse of :func:`escaped`."""
    return _ESCAPED_LABEL.sub(r"\1\2", text)


class _Splitter:
    """Cuts a text into its sections.

    Attributes:
        cut: where the first made-up observation begins; known after the sections were read.
        has_enclosed: labels stand between tags that hold no calls; known after the sections were read.
    """

    def __init__(self, text: str, specs: Mapping[str, ToolSpec]) -> None:
        self.cut: int | None = None
        self.has_enclosed = False
        self._text = text
        self._elements = _elements(text)
        self._specs = specs
        self._labels = list(_LABEL_LINE.finditer(text if text.isascii() else text.translate(FULL_WIDTH)))
        self._looks_ahead = (
            4  # failed ones may each read to the end of the text: a fixed number keeps it linear
        )

    @property
    def has_labels(self) -> bool:
        """Some line looks like a label, however common its word is."""
        return bool(self._labels)

    def sections(self) -> Iterator[Section]:
        """The sections in their order; what stands before the first label is a thought."""
        labels, index = self._labels, self._outside(0, self._next_label(-1))
        preface = self._text[: self._start(index)]
        is_wrapped = len(_FENCE.findall(preface)) % 2 == 1  # the whole reply is in a code block
        if not _LONE_FENCE.fullmatch(preface):
            yield Section(Label.THOUGHT, preface)
        while index < len(labels):
            label = labels[index]
            kind = _kind(label)
            if kind is Label.OBSERVATION:
                self.cut = label.start()
                return
            after = self._end_of_answer(index) if kind is Label.ANSWER else self._end_of_section(index, kind)
            text = _without_mark(label, self._text[label.end() : self._start(after)])
            yield Section(kind, _without_last_fence(text) if is_wrapped and kind is Label.ANSWER else text)
            index = after

    def outside(self, text: str) -> str:
        """A beginning of the text without what stands between tags that hold no calls."""
        kept: list[str] = []
        at = 0
        for start, end in self._elements:
            if start >= at:
                kept.append(text[at:start])
                at = end
        return "".join([*kept, text[at:]])

    def _outside(self, start: int, index: int) -> int:
        """The first label from this one on that no element encloses which begins between ``start`` and the label."""
        at = bisect_left(self._elements, (start, 0))
        while index < len(self._labels) and at < len(self._elements):
            begin, end = self._elements[at]
            if begin >= self._start(index):
                break
            while self._start(index) < end and index < len(self._labels):
                self.has_enclosed = True
                index = self._next_label(index)
            at += 1
        return index

    def _start(self, index: int) -> int:
        return self._labels[index].start() if index < len(self._labels) else len(self._text)

    def _next_label(self, index: int, *, loose: bool = False) -> int:
        """The label after this one. ``Input:`` and the like are common words: they count only after an action."""
        index += 1
        while index < len(self._labels) and self._labels[index]["loose"] and not loose:
            index += 1
        return index

    def _end_of_section(self, index: int, kind: Label) -> int:
        after = self._next_label(index, loose=kind is Label.ACTION)
        if kind is Label.THOUGHT:
            return self._outside(self._labels[index].end(), after)
        start = self._labels[index].end()
        end = self._end_of_value(start, self._start(after))
        if kind is Label.INPUT and end == start:
            value = value_at(self._text[: self._start(after)], start)
            return after if value is None else self._outside(value[1], after)
        while after < len(self._labels) and self._start(after) < end:
            after = self._next_label(after)
        return after

    def _end_of_value(self, start: int, near: int) -> int:
        """Where the JSON or the code block ends that begins here and holds lines that look like labels."""
        opening = _OPENING.match(self._text, start, near)
        if opening is None or not (opening["fence"] or opening["bracket"]):
            return start
        begin = opening.start("bracket") if opening["bracket"] else opening.end()
        if opening["bracket"] and value_at(self._text[begin:near]) is not None:
            return start
        if self._looks_ahead <= 0:
            return start
        self._looks_ahead -= 1
        if opening["bracket"] and (found := value_at(self._text, begin)) is not None:
            return found[1]
        if opening["fence"] and (closing := _CLOSING_FENCE.search(self._text, begin)) is not None:
            return closing.end()
        self._looks_ahead -= MAX_CALLS // 4
        return start

    def _end_of_answer(self, index: int) -> int:
        """An answer goes on to the end, unless the model calls a tool after all, outside a code block."""
        blocks = _code_blocks(self._text, self._labels[index].end())
        block = next(blocks, None)
        at, hidden = bisect_left(self._elements, (self._labels[index].end(), 0)), 0
        for after in range(index + 1, len(self._labels)):
            start = self._start(after)
            while at < len(self._elements) and self._elements[at][0] < start:
                hidden, at = max(hidden, self._elements[at][1]), at + 1
            while block is not None and block[1] <= start:
                block = next(blocks, None)
            is_call = (block is None or start < block[0]) and start >= hidden and self._is_call(after)
            if is_call and not self._is_quoted(index, after):
                return after
        return len(self._labels)

    def _is_call(self, index: int) -> bool:
        label = self._labels[index]
        if not label["action"]:
            return False
        line = self._text[label.end() : label.end() + 200].lstrip(" \t").split("\n", maxsplit=1)[0]
        return calls_a_tool(line, self._specs)

    def _is_quoted(self, answer: int, index: int) -> bool:
        """Whether an answer shows a call as an example: it is announced by a colon, or the answer goes on behind it."""
        if self._text[self._labels[answer].end() : self._start(index)].rstrip().endswith((":", "\uff1a")):
            return True
        if index + 1 >= len(self._labels) or not self._labels[index + 1]["input"] or self._looks_ahead <= 0:
            return False
        self._looks_ahead -= 1
        value = value_at(self._text, self._labels[index + 1].end())
        return value is not None and bool(self._text[value[1] : self._start(index + 2)].strip(" \t\r\n`~"))


def _kind(label: re.Match[str]) -> Label:
    kinds = (Label.INPUT, Label.ACTION, Label.ANSWER, Label.THOUGHT, Label.OBSERVATION)
    return next((kind for kind in kinds if label[kind.value]), Label.INPUT)


def _without_mark(label: re.Match[str], text: str) -> str:
    """``**Final Answer: 42**`` is 42: the mark that the label opened closes on its line."""
    mark = label["mark"]
    if not mark or label[0].count(mark) > 1:
        return text
    line, newline, rest = text.partition("\n")
    return line.rstrip().removesuffix(mark) + newline + rest


def _elements(text: str) -> list[tuple[int, int]]:
    """Where tags that hold no calls open, and where they are closed, in their order."""
    if not ("</" in text or "[/" in text or "-->" in text or "y response" in text):
        return []
    opened: dict[str, list[int]] = {}
    found: list[tuple[int, int]] = []
    for tag in _TAG.finditer(text):
        name = (tag["name"] or tag["name2"] or "").lower()
        if name and _HOLDS_CALLS.fullmatch(name):
            continue
        is_opening = not (tag["slash"] or tag["slash2"]) if name else bool(tag["comment"] or tag["process"])
        name = name or ("-->" if tag["comment"] or tag["over"] else "response")
        if is_opening:
            opened.setdefault(name, []).append(tag.start())
        elif opened.get(name) and _has_line_end(text, tag):
            found.append((opened[name].pop(), tag.end()))
    return sorted(found)


def _has_line_end(text: str, tag: re.Match[str]) -> bool:
    """The tag begins or ends its line: one in the middle of a line may stand in what a tool is given."""
    before, after = text[max(0, tag.start() - 80) : tag.start()], text[tag.end() : tag.end() + 80]
    is_first = not before.rpartition("\n")[2].strip() and ("\n" in before or tag.start() <= 80)
    return is_first or after.lstrip(" \t\r")[:1] in ("", "\n")


def _without_last_fence(text: str) -> str:
    body, _, last = text.rstrip().rpartition("\n")
    return body if _LONE_FENCE.fullmatch(last) else text


def _code_blocks(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Where fenced blocks begin and end, from ``start`` on; one that is not closed ends with the text."""
    opened: tuple[int, str] | None = None
    first = _INLINE_FENCE.match(text, start)
    if first is not None:
        opened, start = (first.start(), first[1]), first.end()
    for fence in _FENCE.finditer(text, start):
        if opened is None:
            opened = fence.start(), fence[1]
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            yield opened[0], fence.end()
            opened = None
    if opened is not None:
        yield opened[0], len(text)


class _Interpreter:
    """Reads sections: what is wanted, and what is wrong."""

    def __init__(self, specs: Mapping[str, ToolSpec]) -> None:
        self._specs = specs
        self._thoughts_and_calls: list[Part] = []
        self._calls = 0
        self._answer: str | None = None
        self._problem: str | None = None

    def read(self, sections: Iterator[Section]) -> None:
        """Read all sections; an action is read together with the input that follows it."""
        action: str | None = None
        for section in sections:
            if action is not None:
                given = section.text if section.label is Label.INPUT else None
                self._act(action, given)
                action = None
                if given is not None:
                    continue
            if section.label is Label.ACTION:
                action = section.text
            else:
                self._take(section)
        if action is not None:
            self._act(action, None)

    def read_unlabelled(self, text: str) -> None:
        """Look for ``{"action": …}`` in a text that has no labels."""
        for tried, beginning in enumerate(_BLOB.finditer(text)):
            found = value_at(text, beginning.end())
            blob = None if found is None else blob_of(found[0], self._specs)
            if blob is not None:
                self._thoughts_and_calls.clear()
                self._take(Section(Label.THOUGHT, _LABEL_LINE.sub("", text[: beginning.start()])))
                self._perform(actions_of(blob, None, self._specs))
            if blob is not None or tried == 4:
                return

    @property
    def is_empty(self) -> bool:
        """Nothing is wanted and nothing is wrong: the labels were not used."""
        return not self._calls and self._answer is None and self._problem is None

    def problem(self, *, is_cut: bool) -> str | None:
        """What is wrong with the whole, as the end of a sentence."""
        if self._problem is not None:
            return self._problem
        if self._calls > MAX_CALLS:
            return f"it holds {self._calls} actions; at most {MAX_CALLS} are taken at once"
        if self._calls:
            return None
        if self._answer is not None:
            return None if self._answer else "its `Final Answer:` is empty"
        if is_cut:
            return (
                "it holds an `Observation:` but neither an `Action:` nor a `Final Answer:` before it "
                "(observations come from the tools, never from you)"
            )
        if not self._thoughts_and_calls:
            return "it is empty"
        wanted = "neither an `Action:` nor a `Final Answer:`" if self._specs else "no `Final Answer:`"
        return f"it holds {wanted}"

    def parts(self) -> tuple[Part, ...]:
        """Reasoning and calls, or reasoning and the answer. An answer beside calls was written too early."""
        if self._calls or not self._answer:
            return tuple(self._thoughts_and_calls)
        return (*self._thoughts_and_calls, Text(text=self._answer))

    def _take(self, section: Section) -> None:
        text = unescaped(section.text.strip())
        if section.label is Label.ANSWER:
            self._answer = text
        elif section.label is Label.INPUT:
            self._fail(
                "it holds an `Action Input:` without an `Action:` on the line before, which names the tool"
            )
        elif text:
            self._thoughts_and_calls.append(Reasoning(text=text))

    def _act(self, head: str, given: str | None) -> None:
        found = value_at(head, opening.start("bracket")) if (opening := _opened(head)) else None
        blob = None if found is None else blob_of(found[0], self._specs)
        self._perform(actions_of(blob if blob is not None else head, given, self._specs))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Unclear(problem):
                    self._fail(problem)
                case Text(text=answer):
                    self._answer = answer.strip()
                case NoAction():
                    pass
                case call:
                    self._calls += 1
                    self._thoughts_and_calls.append(call)

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem


def _opened(head: str) -> re.Match[str] | None:
    opening = _OPENING.match(head)
    return opening if opening is not None and opening["bracket"] else None
