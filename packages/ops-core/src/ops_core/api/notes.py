"""Routes of agents' notes."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import NOTES, deleting, reading, writing
from ops_core.api.parameters import All, Cursor, NoteIds, OfAgent, OfKey, PageLimit
from ops_core.client import Operations
from ops_core.schemas import NotePage, NotesForgotten, NotesRecalled, RecallRequest
from ops_core.schemas.queries import PAGE_DEFAULT


class NoteRoutes:
    """Long-term notes, in the platform's database.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Operations) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route(NOTES, self.list_notes, **reading("list_notes"))
        app.add_api_route(NOTES, self.forget, **deleting("forget_notes"))
        app.add_api_route(f"{NOTES}:recall", self.recall, **writing("recall_notes"))

    async def list_notes(
        self,
        agent: OfAgent = None,
        key: OfKey = None,
        cursor: Cursor = None,
        limit: PageLimit = PAGE_DEFAULT,
    ) -> NotePage:
        """Notes, the newest first. A filter that is left out does not filter."""
        return await self._verbs.notes(agent=agent, key=key, cursor=cursor, limit=limit)

    async def recall(self, request: RecallRequest) -> NotesRecalled:
        """The notes of an agent that are most similar to a text, as a run of it would recall them.

        The text is sent to whoever makes the agent's embeddings.
        """
        return NotesRecalled(items=list(await self._verbs.recall(request)))

    async def forget(
        self,
        agent: OfAgent = None,
        key: OfKey = None,
        note_ids: NoteIds = None,
        everything: All = False,
    ) -> NotesForgotten:
        """Delete the notes that fit all that is given, for good; `all=true` deletes every one.

        Steps of tasks that have recalled them keep copies until these tasks are deleted.
        """
        forgotten = await self._verbs.forget(agent=agent, key=key, ids=note_ids or (), everything=everything)
        return NotesForgotten(notes=forgotten)
