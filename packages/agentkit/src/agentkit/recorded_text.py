"""Recorded text: whole characters, at a length that a person can read.

Messages of errors, remarks and reasons come from tools, models, policies and people. Half a character (as in a file
name that is not UTF-8) cannot be stored, and a message of megabytes would go with each later request and each list.
"""

from __future__ import annotations

MAX_CHARACTERS = 32_000
"""Maximum length of a message, remark or reason."""

MAX_OUTPUT = 4_000_000
"""Maximum length of the output of one call as JSON; every later request holds it too."""

_NOTE = " … ({} more characters were left out)"


def recordable(text: str, most: int = MAX_CHARACTERS) -> str:
    """Return ``text`` with halves of characters replaced, cut where it is too long; that is said at its end.

    Args:
        text: from anywhere.
        most: maximum length of the result.
    """
    if len(text) > most:
        kept = most - len(_NOTE) - len(str(len(text)))
        text = text[:kept] + _NOTE.format(len(text) - kept)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
