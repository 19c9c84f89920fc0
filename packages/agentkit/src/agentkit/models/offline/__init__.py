"""The offline model: for the quickstart, demonstrations, and tests of the platform around it; not intelligence.

A goal in English is read by a grammar (``tokens``, ``words``, ``dates``, ``sources``, ``arithmetic``, ``goals``) and
becomes a tree of tool calls (``calls``). With every request that tree is compared with the conversation (``plan``):
what is not called yet and can be called is the reply, else the final text (``answers``).
"""

from agentkit.models.offline.model import OfflineModel

__all__ = ["OfflineModel"]
