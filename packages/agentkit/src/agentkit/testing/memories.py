"""Contracts that every memory and all embeddings keep."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import isfinite

from agentkit.ports import Embeddings, Memory, Scope
from agentkit.transcript.steps import Note

MINE = Scope(tenant="default", agent="clerk", key="kim")
SAID = (
    "Kim likes green tea and dislikes coffee.",
    "The invoice 4711 was paid in March.",
    "The printer on the third floor is broken.",
)
CRAFTED = (
    "kim",
    "",
    "%",
    "*",
    "_im",
    "kim\x1f",
    "default/clerk/kim",
    "'; DROP TABLE memory; --",
    "\u202ekim",
    "KIM",
)
"""Keys that must be a scope of their own, each."""


def note(number: int, text: str, **fields: str) -> Note:
    """A note with an id of this number."""
    return Note(id=f"note-{number}", text=text, source=fields.get("source", "run 1"), at=1_800_000_000.5)


async def texts(memory: Memory, scope: Scope, query: str = "", limit: int = 100) -> list[str]:
    """What is found, sorted."""
    return sorted(found.text for found in await memory.recall(scope, query or SAID[0], limit))


class MemoryContract:
    """What every memory keeps. Provide a fixture ``memory``: open and empty, with any embeddings."""

    async def test_what_was_remembered_is_recalled_as_it_was(self, memory: Memory) -> None:
        """The text of a note finds it, with its source, its time, and a score that says how similar it is."""
        for number, said in enumerate(SAID):
            await memory.remember(MINE, note(number, said, source=f"run {number}"))
        for number, said in enumerate(SAID):
            found = await memory.recall(MINE, said, 3)
            assert (found[0].id, found[0].text, found[0].source) == (f"note-{number}", said, f"run {number}")
            assert abs(found[0].at - 1_800_000_000.5) < 0.001
            assert abs(found[0].score - 1) < 0.001, "a text is most similar to itself"
            scores = [one.score for one in found]
            assert scores == sorted(scores, reverse=True)
            assert all(-1.001 <= score <= 1.001 for score in scores)

    async def test_no_more_is_recalled_than_was_asked_for(self, memory: Memory) -> None:
        """The limit holds, and nothing is found where nothing is."""
        assert list(await memory.recall(MINE, SAID[0], 5)) == []
        for number, said in enumerate(SAID):
            await memory.remember(MINE, note(number, said))
        for limit in (0, 1, 2, 100):
            assert len(await memory.recall(MINE, SAID[0], limit)) == min(limit, len(SAID))

    async def test_a_note_of_the_same_id_is_replaced(self, memory: Memory) -> None:
        """So what is remembered twice, after a crash, is there once."""
        for said in (SAID[0], SAID[0], SAID[1]):
            await memory.remember(MINE, note(1, said))
        assert await texts(memory, MINE) == [SAID[1]]
        await asyncio.gather(*(memory.remember(MINE, note(2, SAID[2])) for _ in range(5)))
        assert await texts(memory, MINE) == [SAID[1], SAID[2]]

    async def test_odd_texts_are_kept(self, memory: Memory) -> None:
        """Whatever a model or a person may write."""
        odd = ("ünïcödé 🌤️ \u202eturned", "line\nfeeds\r\n\t'quotes' \"\\ %s :name", "x" * 4000, "…", "\x07")
        for number, said in enumerate(odd):
            await memory.remember(MINE, note(number, said))
        assert await texts(memory, MINE, odd[0]) == sorted(odd)

    # --- scopes ---------------------------------------------------------------------------------------------------

    async def test_nothing_is_found_in_another_scope(self, memory: Memory) -> None:
        """Another tenant, another agent and another key see nothing, whatever they are called."""
        await memory.remember(MINE, note(1, SAID[0]))
        for other in _others():
            assert list(await memory.recall(other, SAID[0], 100)) == [], other

    async def test_each_scope_has_its_own_notes_under_the_same_ids(self, memory: Memory) -> None:
        """A note of one scope neither replaces nor hides that of another."""
        scopes = (MINE, *_others())
        for number, scope in enumerate(scopes):
            await memory.remember(scope, note(1, f"{SAID[0]} {number}"))
        for number, scope in enumerate(scopes):
            assert await texts(memory, scope) == [f"{SAID[0]} {number}"]

    # --- forgetting -----------------------------------------------------------------------------------------------

    async def test_what_is_forgotten_is_gone_and_nothing_else(self, memory: Memory) -> None:
        """By id, by key, by agent, by tenant."""
        scopes = (MINE, *_others())
        for scope in scopes:
            for number in (1, 2):
                await memory.remember(scope, note(number, SAID[number]))
        assert await memory.forget("default", agent="clerk", key="kim", ids=["note-1", "nothing"]) == 1
        assert await texts(memory, MINE) == [SAID[2]]
        left = set(scopes)
        for given in ({"agent": "clerk", "key": "kim"}, {"key": ""}, {"agent": "clerk"}, {}):
            gone = {
                scope
                for scope in left
                if scope.tenant == "default"
                and all(getattr(scope, name) == value for name, value in given.items())
            }
            left -= gone
            expected = 2 * len(gone) - (MINE in gone)
            assert await memory.forget("default", **given) == expected, given
            for scope in scopes:
                assert len(await texts(memory, scope)) == (2 if scope in left else 0), (given, scope)
        assert left
        assert await memory.forget("default") == 0
        assert await memory.forget("nobody") == 0

    async def test_forgetting_no_ids_forgets_nothing(self, memory: Memory) -> None:
        """An empty list is not the same as none."""
        await memory.remember(MINE, note(1, SAID[0]))
        assert await memory.forget("default", ids=[]) == 0
        assert await texts(memory, MINE) == [SAID[0]]


def _others() -> Sequence[Scope]:
    return [
        Scope(tenant="other", agent="clerk", key="kim"),
        Scope(tenant="default", agent="cler", key="kkim"),
        Scope(tenant="default", agent="other", key="kim"),
        Scope(tenant="default", agent="clerk/kim", key=""),
        *(Scope(tenant="default", agent="clerk", key=key) for key in CRAFTED[1:]),
    ]


class EmbeddingsContract:
    """What all embeddings keep. Provide a fixture ``embeddings``."""

    async def test_each_text_has_a_vector_of_numbers(self, embeddings: Embeddings) -> None:
        """All of one length, in the order of the texts, the same for the same text."""
        vectors = await embeddings.embed(SAID)
        assert len(vectors) == len(SAID)
        assert len({len(vector) for vector in vectors}) == 1
        assert all(isfinite(value) for vector in vectors for value in vector)
        (again,) = await embeddings.embed([SAID[1]])
        assert all(abs(one - other) < 1e-4 for one, other in zip(again, vectors[1], strict=True))
        assert list(await embeddings.embed([])) == []

    async def test_their_name_says_who_made_them(self, embeddings: Embeddings) -> None:
        """``provider:name``."""
        provider, colon, name = embeddings.name.partition(":")
        assert provider
        assert colon
        assert name
