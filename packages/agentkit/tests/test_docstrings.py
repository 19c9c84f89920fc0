"""Docstrings of all styles: descriptions of parameters, and nothing else left out."""

import functools
import inspect
from typing import Any

import pytest

from agentkit import ToolContext
from agentkit.tools import Tool

BOTH = {"query": "what is looked for", "limit": "how many"}

STYLES = {
    "Google": """
        Search.

        Args:
            query: what is looked for
            limit: how many
        """,
    "Google, with types": """
        Search.

        Arguments:
            query (str, optional): what is
                looked for
            limit (Optional[dict(str, int)]) : how many
        """,
    "Google, on the next line": """
        Search.

        Parameters:

            query:
                what is looked for

            limit (int, default: 3):
                how many
        """,
    "Google, keywords": """
        Search.

        Args:
            query: what is looked for

        Keyword Args:
            limit: how many
        """,
    "Google, flat": """
        Search.

        Args:
        query: what is looked for
        limit: how many
        """,
    "Google, with marks": """
        Search.
        Args:
          - `query` -- what is looked for
          - **limit** - how many
        """,
    "tabs": "Search.\n\n\tArgs:\n\t\tquery: what is looked for\n\t\tlimit: how many\n",
    "NumPy": """
        Search.

        Parameters
        ----------
        query : str
            what is
            looked for
        limit : {1, 2}, default: 1
            how many
        """,
    "NumPy, without types": """
        Search.

        Parameters
        ----------
        query
            what is looked for

        Other Parameters
        ----------------
        limit : int, optional
            how many
        """,
    "Sphinx": """
        Search.

        :param query: what is
            looked for
        :type query: str
        :param int limit: how many
        """,
    "Epytext": """
        Search.

        @param query: what is looked for
        @type limit: int
        @param limit: how many
        """,
}


def documented(text: str) -> Tool:
    def search(query: str, limit: int = 10) -> str:
        return query * limit

    search.__doc__ = text
    return Tool(search)


@pytest.mark.parametrize("style", STYLES)
def test_each_style_describes_the_parameters(style):
    spec = documented(STYLES[style]).spec
    properties: Any = spec.parameters["properties"]
    assert {name: each["description"] for name, each in properties.items()} == BOTH
    assert spec.description == "Search."


@pytest.mark.parametrize(
    "text, description",
    [
        (
            """Search.

            Args:
                query: what is looked for

            Returns:
                The first of them.

            Warning: Irreversible. Ask the user first.

            Examples:
                >>> search("x")
            """,
            """
            Search.

            Returns:
                The first of them.

            Warning: Irreversible. Ask the user first.

            Examples:
                >>> search("x")
            """,
        ),
        (
            """Search.

            Parameters
            ----------
            query : str
                what is looked for

            Returns
            -------
            str
                The first.

            Notes
            -----
            Irreversible.
            """,
            "Search.\n\nReturns\n-------\nstr\n    The first.\n\nNotes\n-----\nIrreversible.",
        ),
        (
            """Search.

            :param query: what is looked for
            :returns: the first
            :raises ValueError: never

            .. warning:: Irreversible.
            """,
            "Search.\n\n:returns: the first\n:raises ValueError: never\n\n.. warning:: Irreversible.",
        ),
        (
            """Search.

            Args:
                query: what is looked for
                others: what is no parameter
                    over two lines
                Queries are in English.
            """,
            "Search.\n\nArgs:\n    others: what is no parameter\n        over two lines\n    Queries are in English.",
        ),
        (
            """The parameters:
            they are told below.

            Note: query: is a word here, and limit - too.
            """,
            "The parameters:\nthey are told below.\n\nNote: query: is a word here, and limit - too.",
        ),
        ("", ""),
        ("Args:", ""),
    ],
)
def test_nothing_else_is_left_out(text, description):
    assert documented(text).spec.description == inspect.cleandoc(description).strip()


def test_what_is_not_for_the_model_is_not_described_to_it():
    def send(to: str, key: str, context: ToolContext[None]) -> str:
        """Send it.

        Args:
            to: who gets it.
            key: of the account.
            context: of the call.
        """
        return to + key

    spec = Tool(functools.partial(send, key="k")).spec
    assert spec.description == "Send it."
    assert spec.parameters["properties"] == {"to": {"type": "string", "description": "who gets it."}}


def test_two_parameters_may_share_a_description():
    def move(x: float, y: float) -> None:
        """Move.

        Parameters
        ----------
        x, y : float
            where to
        """

    properties: Any = Tool(move).spec.parameters["properties"]
    assert [each["description"] for each in properties.values()] == ["where to"] * 2
