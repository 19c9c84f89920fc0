"""Ids of tool calls as a provider takes them.

A provider that has a rule for ids refuses a whole conversation in which one id breaks it, also one that another
provider has made. So each request maps the ids that break the rule, and no two ids become one.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass

_LETTERS_AND_DIGITS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRule:
    """What a provider asks of an id.

    Attributes:
        pattern: that the whole id must match.
        short: it takes nine letters or digits, no more and no fewer.
    """

    pattern: re.Pattern[str]
    short: bool = False

    def fits(self, call_id: str) -> bool:
        """Whether the provider takes ``call_id`` as it is."""
        return self.pattern.fullmatch(call_id) is not None

    def made(self, call_id: str) -> str:
        """An id that the provider takes; the same for the same ``call_id``."""
        digest = hashlib.sha256(call_id.encode()).digest()
        if not self.short:
            return f"call_{digest.hex()[:32]}"
        number = int.from_bytes(digest)
        return "".join(_LETTERS_AND_DIGITS[number // 62**place % 62] for place in range(9))


MISTRAL = IdRule(pattern=re.compile(r"[A-Za-z0-9]{9}"), short=True)
ANTHROPIC = IdRule(pattern=re.compile(r"[A-Za-z0-9_-]{1,64}"))
OPENAI_CHAT = IdRule(pattern=re.compile(r"(?s).{1,40}"))
OPENAI_RESPONSES = IdRule(pattern=re.compile(r"(?s).{1,64}"))


class CallIds:
    """The ids of one request.

    Args:
        rule: of the provider; ``None`` where it takes every id.
    """

    def __init__(self, rule: IdRule | None) -> None:
        self._rule = rule
        self._sent: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, call_id: str, *, own: bool = False) -> str:
        """The id to send for ``call_id``: the same each time.

        The ids of a conversation are asked for in its order, so that what was sent once is sent again.

        Args:
            call_id: as it is in the transcript.
            own: the provider itself has made it.
        """
        if call_id not in self._sent:
            sent = call_id if own or self._rule is None or self._rule.fits(call_id) else self._made(call_id)
            while sent in self._taken:  # a made id is in the way, or is one that the conversation has
                sent = self._made(f"{call_id} {sent}")
            self._taken.add(sent)
            self._sent[call_id] = sent
        return self._sent[call_id]

    def _made(self, call_id: str) -> str:
        return call_id if self._rule is None else self._rule.made(call_id)
