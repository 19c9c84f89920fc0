"""Thinking tags: the reasoning in the text of a reply, separated from the answer. Pure.

Where a provider does not mark reasoning itself, it stands in the text, between tags that every model family writes in
its own way. One rule serves every planning, streams and typed output:

- What stands between an opening tag and its closing tag is thought. So is what follows an opening tag that is not
  closed, and all text before a closing tag that nothing opened: some chat templates open it in the prompt.
- A tag counts wherever it stands, except in code (a fenced block, or between backticks) and in a quoted string of its
  line. A text that speaks of such tags must write them in that way.
- A reply that is one JSON value as a whole holds no thinking.
- A bare fence at the very beginning of a reply protects nothing, unless it holds the whole reply.

In doubt a text is thought: what was only thought must not be carried out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from agentkit.messages import BegunAnew, Delta, Part, Reasoning, ReasoningDelta, Text, TextDelta
from agentkit.planning.thinking_names import CORE, FLAGS, MAY_HOLD_A_TAG, NAME, thinking_tag, unfinished_tag
from agentkit.ports import OnDelta
from agentkit.untrusted.lenient_json import is_unicode, whole_value

TAG_KEY = "thinking_tag"
"""The key in ``Reasoning.data`` of what stood between tags: what kind of tag it was."""

MAX_HELD = 4096
"""Maximum number of characters that a stream holds back until it is known what they are."""

ONLY_THOUGHT = "Your reply holds your thinking and no answer. Give the answer outside of your thinking."
UNCLOSED = "Your reply ends within your thinking. Close its tag, or write tags that you speak of in code."

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""Full-width letters and signs as plain ones, for ``str.translate``; each character keeps its place."""

_SPECIAL = re.compile(r"[<◁⟨〈\[\n]")
_PLAIN = re.compile(r"[^<◁⟨〈\[\n\"`“”\\\uff01-\uff5e\u3000]++")
_FENCE = re.compile(r"[ \t]*(?P<run>`{3,}|~{3,})[ \t]*(?P<info>[\w+.#:\- ]{0,60})(?P<end>\r?\n|\Z)")
_MAY_BECOME_A_FENCE = re.compile(r"[ \t]*(?:`{0,2}|~{0,2}|(?:`{3,}|~{3,})[ \t]*[\w+.#:\- ]{0,60}\r?)")
_RUN = re.compile(r"`{3,}|~{3,}")
_THINKING_INFO = re.compile(NAME, FLAGS)
_IS_CLOSING = re.compile(r"(?:end|stop)[:_\-]|.*[_\-](?:end|stop)\Z", re.IGNORECASE)
_BLANK = "\ufeff \t\r\n"
_QUOTED = {'""', "''", "``", "“”", "‘’", "«»", "„“", "「」"}
_DOUBLE = re.compile(r'(?<!\\)"')
_TICKS = re.compile(r"`+")
_CHANNEL, _BLOCK = "channel", "block"


class Line(Enum):
    """What a line of a labelled text begins."""

    ANSWER = "answer"
    VALUE = "value"


ReadLine = Callable[[str], "Line | None"]
"""Tells what a line of a labelled text begins; ``None`` for anything else."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text as it was written.

    Attributes:
        text: not empty.
        tag: kind of the tag that makes it a thought; ``None`` where it is said.
    """

    text: str
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """The parts of a reply, its thinking told apart.

    Attributes:
        parts: as they were, with what was thought as reasoning.
        has_thoughts: some of the text was thought.
        is_unclosed: the text ends within its thinking.
    """

    parts: tuple[Part, ...]
    has_thoughts: bool = False
    is_unclosed: bool = False

    @property
    def text(self) -> str:
        """What is said."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


def split_thinking(parts: Sequence[Part], read_line: ReadLine | None = None) -> Spoken:
    """Return the parts of a reply with what was thought in its text as reasoning.

    Args:
        parts: of the reply.
        read_line: for a labelled text, in which code protects a tag only within an answer and a value.
    """
    texts = "".join(part.text for part in parts if isinstance(part, Text))
    if not (texts.isascii() or is_unicode(texts)):  # halves of characters, which no text may hold
        parts = [replace(part, text=_mended(part.text)) if isinstance(part, Text) else part for part in parts]
        texts = "".join(part.text for part in parts if isinstance(part, Text))
    if not MAY_HOLD_A_TAG.search(_narrow(texts)):
        return Spoken(parts=tuple(parts))
    splitter = Splitter(read_line)
    ends: list[int] = []
    for part in parts:
        if isinstance(part, Text):
            splitter.feed(part.text)
        ends.append(len(splitter.pieces))
    splitter.close()
    pieces, is_unclosed = splitter.pieces, splitter.is_thinking
    if "".join(piece.text for piece in pieces if piece.tag is None) == texts:
        return Spoken(parts=tuple(parts), has_thoughts=is_unclosed, is_unclosed=is_unclosed)
    kept = tuple(_in_order(parts, ends, pieces))
    has_thoughts = is_unclosed or any(piece.tag is not None for piece in pieces)
    return Spoken(parts=kept, has_thoughts=has_thoughts, is_unclosed=is_unclosed)


def _in_order(parts: Sequence[Part], ends: Sequence[int], pieces: Sequence[Piece]) -> Iterator[Part]:
    last = max(place for place, part in enumerate(parts) if isinstance(part, Text))
    begin = 0
    for place, part in enumerate(parts):
        if not isinstance(part, Text):
            yield part
            continue
        end = len(pieces) if place == last else ends[place]
        for found in _merged(pieces[begin:end]):
            yield (
                part if found == Text(text=part.text) else found
            )  # as it was, with what its provider wants back
        begin = end


def _merged(pieces: Sequence[Piece]) -> Iterator[Part]:
    gathered: list[str] = []
    for place, piece in enumerate(pieces):
        gathered.append(piece.text)
        if place + 1 < len(pieces) and pieces[place + 1].tag == piece.tag:
            continue
        text, gathered = "".join(gathered), []
        if piece.tag is None:
            yield Text(text=text)
        elif text.strip():
            yield Reasoning(text=text.strip(), data={TAG_KEY: piece.tag})


class Splitter:
    """Tells thinking from speech in a text that arrives in pieces, however it is cut.

    Args:
        read_line: see :func:`split_thinking`.

    Attributes:
        pieces: what is known so far.
        revisions: how often the kind of earlier pieces has changed; from then on they are to be read anew.
        settled: number of pieces before the last closing tag that nothing opened: they remain thoughts.
    """

    def __init__(self, read_line: ReadLine | None = None) -> None:
        self.pieces: list[Piece] = []
        self.revisions = self.settled = 0
        self._read_line = read_line
        self._raw: list[str] = []
        self._buffer = self._narrow = ""
        self._at = 0
        self._open: list[str] = []
        self._uses_channels = False
        self._has_said = self._has_thought = False
        self._held = ""  # white space, and a bare fence, before anything is said
        self._is_fenced = False  # such a fence stood there
        self._line = _LineContext()
        self._code = _Code(read_line)

    @property
    def is_thinking(self) -> bool:
        """What comes next is thought."""
        return bool(self._open)

    def feed(self, text: str) -> None:
        """Read the next piece of the text."""
        self._raw.append(text)
        is_plain = not self._buffer and self._has_said and not self._open and not self._line.is_new
        if is_plain and _PLAIN.fullmatch(text):  # as most pieces of most streams are
            self._line.add_plain(text)
            self.pieces.append(Piece(text))
            return
        self._buffer += text
        self._read(is_last=False)

    def close(self) -> None:
        """Read what was held back: there is no more text."""
        self._read(is_last=True)
        if self._held and not self._has_thought:
            self.pieces.append(Piece(self._held))
        self._held = ""
        if self._has_thought and self._is_all_said():
            self.pieces, self._open, self.settled = [Piece("".join(self._raw))], [], 0
            self.revisions += 1

    def _is_all_said(self) -> bool:
        """The text is one JSON value, or one block of code and nothing beside it."""
        if self._read_line is not None:
            return False
        raw = "".join(self._raw).strip(_BLANK)
        if raw[:1] in ("{", "[", '"') and whole_value(raw) is not None:
            return True
        return self._is_fenced and not self._has_said and not self._open

    def _read(self, *, is_last: bool) -> None:
        self._narrow = _narrow(self._buffer)
        while self._at < len(self._buffer):
            if not self._advance(must_decide=is_last or len(self._buffer) - self._at > MAX_HELD):
                break
        self._buffer, self._at = self._buffer[self._at :], 0

    def _advance(self, *, must_decide: bool) -> bool:
        """Read one thing more; return false where only more text can tell what it is."""
        text = self._narrow
        if self._line.is_new:
            fence = _FENCE.match(text, self._at)
            is_whole = fence is not None and (must_decide or bool(fence["end"]))
            if not is_whole and not must_decide and _MAY_BECOME_A_FENCE.fullmatch(text, self._at):
                return False
            if fence is not None and is_whole:
                self._read_fence(fence)
                return True
        special = _SPECIAL.search(text, self._at)
        at = len(text) if special is None else special.start()
        if special is None or at > self._at:
            self._take(at)
            return True
        if special[0] == "\n":
            self._take(at + 1)
            self._end_line()
            return True
        return self._read_tag(must_decide=must_decide)

    def _read_tag(self, *, must_decide: bool) -> bool:
        text, at = self._narrow, self._at
        tag = thinking_tag().match(text, at)
        may_go_on = tag is None or not (tag["name"] or tag["over"] or tag["unused"])
        if may_go_on and not must_decide and unfinished_tag().fullmatch(text, at):
            return False
        if tag is None or ((tag["over"] or tag["header"]) and not self._uses_channels):
            self._take(at + 1)
            return True
        is_literal = self._is_literal(tag, must_decide=must_decide)
        if is_literal is None:
            return False
        if is_literal:
            self._take(tag.end())
        else:
            self._at = tag.end()
            self._mark(tag)
        return True

    def _is_literal(self, tag: re.Match[str], *, must_decide: bool) -> bool | None:
        """Whether a tag is only spoken of; ``None`` where the rest of its line must be known."""
        if not self._open and self._code.protects:
            return True
        return self._line.quotes(self._narrow, tag.end(), is_thought=bool(self._open), is_whole=must_decide)

    def _take(self, end: int) -> None:
        text = self._buffer[self._at : end]
        self._line.add(self._narrow[self._at : end])
        self._at = end
        if self._open:
            self._has_thought = True
            self.pieces.append(Piece(text, self._open[0]))
            return
        if not self._has_said:
            text = self._held + text
            if not text.strip(_BLANK + "`~"):
                self._held = text
                return
            for line in self._held.split("\n")[:-1]:
                self._code.end_line(line)
            self._held, self._has_said = "", True
            text = text.lstrip(_BLANK) if self._has_thought else text
        self.pieces.append(Piece(text))

    def _end_line(self) -> None:
        if not self._open:
            self._code.end_line(self._line.text)
        self._line = _LineContext()

    def _read_fence(self, fence: re.Match[str]) -> None:
        """Read a line that begins or ends a block of code."""
        info = fence["info"].strip()
        if self._open:
            if self._open[0] == _BLOCK and not info:
                self._open.clear()
                self._at = fence.end()
                return
        elif self._code.fence is None and _THINKING_INFO.fullmatch(info):
            self._open.append(_BLOCK)
            self._at = fence.end()
            return
        elif not self._has_said and not info:
            self._read_first_fence(fence)
            return
        self._take(fence.end())
        self._end_line()

    def _read_first_fence(self, fence: re.Match[str]) -> None:
        """Hold a bare fence before everything else back; drop it with its end where it held only thoughts."""
        line = self._buffer[self._at : fence.end()]
        self._at = fence.end()
        if self._is_fenced and self._has_thought:
            self._held = ""
            return
        self._is_fenced = True
        self._held += line

    def _mark(self, tag: re.Match[str]) -> None:
        name = tag["name"] or tag["name2"]
        is_in_channel = self._open[:1] in ([], [_CHANNEL])
        if tag["channel"]:
            self._uses_channels = True
            if is_in_channel:
                self._open = [] if tag["channel"].lower() == "final" else [_CHANNEL]
        elif tag["over"]:
            self._open = [] if is_in_channel else self._open
        elif tag["unused"] == "4":  # MedGemma's own tokens
            self._open.append("think")
        elif tag["unused"]:
            self._close_tag("think")
        elif name and not tag["empty"]:
            core = CORE.search(name)
            kind = "think" if core is None or core[0].lower() == "thought" else core[0].lower()
            if tag["slash"] or tag["slash2"] or _IS_CLOSING.match(name):
                self._close_tag(kind)
            else:
                self._open.append(kind)
        self._line = _LineContext(is_new=False)

    def _close_tag(self, kind: str) -> None:
        if kind in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(kind) :]
        elif self._open:
            if self._open[-1] not in (_CHANNEL, _BLOCK):
                self._open.pop()
        else:
            self._make_all_thought(kind)

    def _make_all_thought(self, kind: str) -> None:
        self._held = ""
        if self._has_said:
            for place in range(self.settled, len(self.pieces)):
                piece = self.pieces[place]
                self.pieces[place] = Piece(piece.text, piece.tag or kind)
            self.settled = len(self.pieces)
            self.revisions += 1
            self._has_said, self._has_thought = False, True
        self._code = _Code(self._read_line)


class _LineContext:
    """What stands on the line before the place that is read: whether that is within quotes."""

    def __init__(self, *, is_new: bool = True) -> None:
        self._is_first = is_new
        self._pieces: list[str] = []
        self._is_odd = {'"': False, "`": False, "”": False}
        self._last = ""

    @property
    def is_new(self) -> bool:
        """Nothing of the line has been read."""
        return self._is_first and not self._pieces

    @property
    def text(self) -> str:
        """The line so far."""
        return "".join(self._pieces)

    def add(self, text: str) -> None:
        """Read more of the line."""
        self._pieces.append(text)
        self._is_odd['"'] ^= len(_DOUBLE.findall(self._last + text)) % 2 == 1
        goes_on = self._last == "`" == text[:1]
        self._is_odd["`"] ^= (len(_TICKS.findall(text)) - goes_on) % 2 == 1
        if "“" in text or "”" in text:
            self._is_odd["”"] = text.rfind("“") > text.rfind("”")
        self._last = text[-1:] if text[-1:] != '"' else " "

    def add_plain(self, text: str) -> None:
        """Read more of the line that holds no quotes."""
        self._pieces.append(text)
        self._last = text[-1]

    def quotes(self, text: str, end: int, *, is_thought: bool, is_whole: bool) -> bool | None:
        """Whether what ends at ``end`` stands in quotes or backticks; ``None`` where the line must go on first."""
        before, after = self._pieces[-1][-1:] if self._pieces else "", text[end : end + 1]
        if before == "\\":
            return True
        if is_thought:  # thinking is rough: only a tag that is quoted by itself is not meant
            if not before or before not in "\"'`“‘«„「" or not self._is_odd.get(before, True):
                return False
            return None if not after and not is_whole else before + after in _QUOTED
        if after and before + after in _QUOTED and self._is_odd.get(before, True):
            return True
        closing = "".join(quote for quote, is_odd in self._is_odd.items() if is_odd)
        if not closing and not (before and not after and before in "'‘«„「"):
            return False
        found = re.compile(f"[{closing}\n]").search(text, end)
        if found is None:
            return False if is_whole else None
        return found[0] != "\n"


class _Code:
    """Whether the place that is read stands in a fenced block that protects tags."""

    def __init__(self, read_line: ReadLine | None) -> None:
        self._read_line = read_line
        self._is_answer = read_line is None
        self._is_value = False
        self._protects = False
        self.fence: str | None = None

    @property
    def protects(self) -> bool:
        """Tags here are only spoken of."""
        return self.fence is not None and self._protects

    def end_line(self, line: str) -> None:
        """Read a line of what is said."""
        if self._read_line is not None and (self.fence is None or not self._protects):
            kind = self._read_line(line)
            self._is_answer |= kind is Line.ANSWER
            if kind is Line.VALUE:
                self._is_value = True
            elif line.strip() and not _RUN.search(line):
                self._is_value = False
        runs: list[str] = _RUN.findall(line)
        if self.fence is None:
            if len(runs) % 2:
                self.fence, self._protects = runs[-1], self._is_answer or self._is_value
        elif sum(run.startswith(self.fence) for run in runs) % 2:
            self.fence, self._is_value = None, False


class SpokenDeltas:
    """Shows a streamed reply with its thinking told apart.

    Args:
        show: is shown the deltas.
        model: ``provider:name``, named where what was shown turns out to be thinking.
        read_line: see :func:`split_thinking`.
    """

    def __init__(self, show: OnDelta, model: str, read_line: ReadLine | None = None) -> None:
        self._show = show
        self._model = model
        self._read_line = read_line
        self._begin()

    def _begin(self) -> None:
        self._splitter = Splitter(self._read_line)
        self._shown = self._revisions = 0
        self._others: list[Delta] = []

    def __call__(self, delta: Delta) -> None:
        """Show a piece of the reply."""
        match delta:
            case TextDelta(text=text):
                self._splitter.feed(text)
                self._show_new()
            case BegunAnew(model=model):
                self._model = model
                self._begin()
                self._show(delta)
            case _:
                self._others.append(delta)
                self._show(delta)

    def close(self) -> None:
        """Show what was held back."""
        self._splitter.close()
        self._show_new()

    def _show_new(self) -> None:
        if self._revisions != self._splitter.revisions:
            is_first, self._revisions = self._revisions == 0, self._splitter.revisions
            self._show(BegunAnew(model=self._model))
            if (
                is_first
            ):  # thoughts are shown once more at most: a hostile text has a closing tag on each line
                self._shown = 0
                for delta in self._others:
                    self._show(delta)
            self._shown = min(self._shown, len(self._splitter.pieces) - 1)
        for piece in self._splitter.pieces[self._shown :]:
            self._show(TextDelta(text=piece.text) if piece.tag is None else ReasoningDelta(text=piece.text))
        self._shown = len(self._splitter.pieces)


def _mended(text: str) -> str:
    return text.encode(errors="replace").decode()


def _narrow(text: str) -> str:
    return text if text.isascii() else text.translate(FULL_WIDTH)
