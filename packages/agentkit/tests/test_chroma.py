"""Notes in a Chroma database: the contract, its files, and nothing from the network."""

import socket
import subprocess
import sys

import pytest

from agentkit.errors import MemoryUnavailable, UsageError
from agentkit.memories import HashEmbeddings, Note, Scope
from agentkit.memories.chroma import ChromaMemory
from agentkit.testing import MemoryContract

KIM = Scope(agent="clerk", key="kim")
TEA = Note(id="1", text="Kim likes green tea.", source="run 7", at=1.0)


class TestChromaMemory(MemoryContract):
    @pytest.fixture
    async def memory(self, tmp_path):
        async with ChromaMemory(str(tmp_path), HashEmbeddings()) as memory:
            yield memory


async def texts(memory: ChromaMemory) -> list[str]:
    return [note.text for note in await memory.recall(KIM, "green tea", 10)]


async def test_what_was_remembered_is_there_when_the_folder_is_opened_again(tmp_path):
    for _ in range(2):
        async with ChromaMemory(str(tmp_path), HashEmbeddings()) as memory:
            await memory.remember(KIM, TEA)
    async with ChromaMemory(str(tmp_path), HashEmbeddings()) as memory:
        assert await texts(memory) == [TEA.text]


async def test_notes_of_other_embeddings_are_not_found_and_are_forgotten_with_the_rest(tmp_path):
    async with ChromaMemory(str(tmp_path), HashEmbeddings(64)) as memory:
        await memory.remember(KIM, TEA)
    async with ChromaMemory(str(tmp_path), HashEmbeddings()) as memory:
        assert await texts(memory) == []
        assert await memory.forget("default", key="kim") == 1
    async with ChromaMemory(str(tmp_path), HashEmbeddings(64)) as memory:
        assert await texts(memory) == []


async def test_nothing_is_asked_of_the_network(tmp_path, monkeypatch):
    """Neither for a model of its own embeddings nor to report its use."""
    asked: list[object] = []

    def refuse(_socket: object, address: object) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_fields: refuse(None, given))
    async with ChromaMemory(str(tmp_path), HashEmbeddings()) as memory:
        await memory.remember(KIM, TEA)
        assert await texts(memory) == [TEA.text]
    assert asked == []


async def test_a_folder_that_is_none_is_an_error_of_ours(tmp_path):
    place = tmp_path / "file"
    place.write_text("I was here first.")
    with pytest.raises(MemoryUnavailable, match="Chroma failed"):
        async with ChromaMemory(str(place), HashEmbeddings()):
            pass
    assert place.read_text() == "I was here first."


async def test_it_has_to_be_open():
    with pytest.raises(UsageError, match="async with"):
        await ChromaMemory("notes", HashEmbeddings()).recall(KIM, "tea", 1)


def test_without_chromadb_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(UsageError, match=r"agentkit\[chroma\]"):
        ChromaMemory("notes", HashEmbeddings())


def test_chromadb_is_not_imported_before_a_memory_is_made():
    program = "import sys, agentkit.memories.chroma; sys.exit('chromadb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
