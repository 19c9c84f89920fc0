"""Memories: notes that outlive a run, the stores that keep them, and their retrieval.

agent_memory      settings of what an agent remembers and recalls
local             notes in this process
openai            embeddings of OpenAI and of compatible servers
google            embeddings of Google
chroma            notes in a Chroma database
hash_embeddings   embeddings without a model and without a network
embeddings        embeddings by name
similarity        the most similar vectors, exactly
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.memories.agent_memory import AgentMemory
    from agentkit.memories.embeddings import open_embeddings, opened_embeddings
    from agentkit.memories.hash_embeddings import HashEmbeddings
    from agentkit.memories.local import LocalMemory
    from agentkit.ports import Scope
    from agentkit.transcript.steps import Note
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.memories.agent_memory": ("AgentMemory",),
            "agentkit.memories.embeddings": (
                "open_embeddings",
                "opened_embeddings",
            ),
            "agentkit.memories.hash_embeddings": ("HashEmbeddings",),
            "agentkit.memories.local": ("LocalMemory",),
            "agentkit.ports": ("Scope",),
            "agentkit.transcript.steps": ("Note",),
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
