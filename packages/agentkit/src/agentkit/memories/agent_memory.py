"""Memory settings of an agent: what is remembered, and how much of it the model is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentkit.errors import UsageError
from agentkit.ports import Embeddings, Memory

WhatToRemember: TypeAlias = Literal["nothing", "outcome", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMemory:
    """An agent's use of a memory.

    Attributes:
        memory: where the notes are: an open :class:`~agentkit.ports.Memory`, or a name that a platform opens
            (``database`` for its own).
        embeddings: how similar texts are found, for a memory that is named.
        remember: ``nothing``; the ``outcome`` of each completed run, its input and output; or what the model says
            with the ``tool`` called ``remember``.
        recall: so many notes are recalled at the beginning of a run at most; 0 for none.
        tokens: about so many tokens of the request the notes may take; the least similar ones are left out.
        min_score: less similar ones are left out, whatever room there is.
        per: on a platform, the label of a task whose value is the key of the scope: each has a memory of its own.

    Raises:
        UsageError: a value makes no sense.
    """

    memory: Memory | str
    embeddings: Embeddings | str = "offline:hash"
    remember: WhatToRemember = "nothing"
    recall: int = 5
    tokens: int = 1000
    min_score: float = 0.0
    per: str | None = None

    def __post_init__(self) -> None:
        if self.remember not in ("nothing", "outcome", "tool"):
            message = f"memory: remember is nothing, outcome or tool, not {self.remember!r}"
            raise UsageError(message)
        if self.recall < 0 or self.tokens < 1 or not -1 <= self.min_score <= 1:
            message = "memory: recall is at least 0, tokens at least 1, and min_score from -1 to 1"
            raise UsageError(message)
