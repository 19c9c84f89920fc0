"""``${NAME}`` in what is declared, and what it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentkit.errors import UsageError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Filling:
    """Fills in ``${NAME}``, and ``${NAME:-otherwise}`` for what may be missing. An empty variable counts as missing.

    Args:
        variables: what names stand for; looked at when something is filled in.

    Attributes:
        filled: the variables that were filled in so far.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.filled: dict[str, str] = {}

    def __call__(self, where: str, text: str) -> str:
        """The text with its variables filled in.

        Args:
            where: it stands.
            text: with or without variables.

        Raises:
            UsageError: one that has no other value is missing; the message names it, and where.
        """

        def value_of(found: re.Match[str]) -> str:
            value = self._variables.get(found[1])
            if value:
                self.filled[found[1]] = value
                return value
            if found[2] is None:
                raise UsageError(f"{where}: the variable {found[1]} is not set")
            return found[2]

        return _VARIABLE.sub(value_of, text)
