"""Text tools that count for models, which see tokens and not letters."""

from __future__ import annotations

import re
from typing import TypedDict

from agentkit.errors import ToolError
from agentkit.tools.functions import tool

# The look behind keeps a long row of dots from being tried from each dot on.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++(?=\s|$)")


class TextStatistics(TypedDict):
    """How long a text is.

    Attributes:
        characters: Unicode code points, line ends included.
        words: runs of anything that is not white space, as ``wc -w`` counts them.
        lines: ended by a line feed; the last one need not be.
        sentences: stretches with a letter or digit, ended by ``.``, ``!``, ``?`` or ``…`` before white space, or by
            the text's end.
    """

    characters: int
    words: int
    lines: int
    sentences: int


@tool(effect="pure", sandbox="inprocess")
def text_statistics(text: str) -> TextStatistics:
    """Count the characters, words, lines and sentences of a text.

    Args:
        text: the text itself, not the name of a file
    """
    return statistics(text)


@tool(effect="pure", sandbox="inprocess")
def count_occurrences(text: str, wanted: str, whole_words: bool = False, ignore_case: bool = True) -> int:
    """Count how often something occurs in a text, without overlaps.

    Args:
        text: the text itself, not the name of a file
        wanted: what to look for, taken literally
        whole_words: count only where no letter, digit or underscore touches it
        ignore_case: capital and small letters are the same
    """
    return sum(1 for _ in literal(wanted, whole_words=whole_words, ignore_case=ignore_case).finditer(text))


def statistics(text: str) -> TextStatistics:
    """The counts of ``text``; see :class:`TextStatistics`."""
    ends_open = bool(text) and not text.endswith("\n")
    sentences = sum(1 for part in _SENTENCE_END.split(text) if re.search(r"\w", part))
    return TextStatistics(
        characters=len(text), words=len(text.split()), lines=text.count("\n") + ends_open, sentences=sentences
    )


def literal(wanted: str, *, whole_words: bool, ignore_case: bool) -> re.Pattern[str]:
    """A pattern that finds ``wanted`` as it is written.

    Raises:
        ToolError: ``wanted`` is empty.
    """
    if not wanted:
        raise ToolError("the text to look for is empty")
    edges = r"(?<!\w){}(?!\w)" if whole_words else "{}"
    return re.compile(edges.format(re.escape(wanted)), re.IGNORECASE if ignore_case else 0)
