"""What outlives a run: where notes are kept, how they are found, and what an agent makes of them.

declared     what an agent remembers and recalls
local        notes in this process
openai       embeddings of OpenAI and of compatible servers
google       embeddings of Google
chroma       notes in a Chroma database
hashing      embeddings without a model and without a network
embeddings   embeddings by name
nearest      the most similar vectors, exactly
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.memories.declared import AgentMemory
    from agentkit.memories.embeddings import open_embeddings, opened_embeddings
    from agentkit.memories.hashing import HashEmbeddings
    from agentkit.memories.local import LocalMemory
    from agentkit.ports import Scope
    from agentkit.transcript import Note
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.memories.declared": ("AgentMemory",),
            "agentkit.memories.embeddings": ("open_embeddings", "opened_embeddings"),
            "agentkit.memories.hashing": ("HashEmbeddings",),
            "agentkit.memories.local": ("LocalMemory",),
            "agentkit.ports": ("Scope",),
            "agentkit.transcript": ("Note",),
        },
    )

__all__ = [
    "AgentMemory",
    "HashEmbeddings",
    "LocalMemory",
    "Note",
    "Scope",
    "open_embeddings",
    "opened_embeddings",
]
