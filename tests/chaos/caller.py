"""A client that does not know which server is alive, and asks until it is answered."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from .fleet import Fleet

PATIENCE = 0.2
"""Between two tries."""


class ToolExecutor:
    """Talks to the API of a fleet.

    Attributes:
        repeated: requests that were sent again, because no answer came or the server could not help.
        approved: how often a person said yes to repeating a call, by idempotency key.
    """

    def __init__(self, fleet: Fleet, http: httpx2.AsyncClient) -> None:
        self._fleet = fleet
        self._http = http
        self.repeated = 0
        self.approved: Counter[str] = Counter()

    async def ask(self, method: str, path: str, **options) -> httpx2.Response:
        """The answer, however long it takes: a server that is away, or without its database, is asked again."""
        while True:
            try:
                response = await self._http.request(method, f"{self._fleet.api.said}/api/v1{path}", **options)
            except httpx2.HTTPError:
                response = None
            if response is not None and response.status_code != 503:
                assert response.status_code < 500, response.text
                return response
            self.repeated += 1
            await asyncio.sleep(PATIENCE)

    async def submit(self, key: str, agent: str, label: str) -> str:
        """The id of the task with this key."""
        body = {"agent": agent, "input": f"Go on with {key}.", "labels": {"round": label}}
        response = await self.ask("POST", "/tasks", json=body, headers={"Idempotency-Key": key})
        assert response.status_code in (200, 202), response.text
        return response.json()["id"]

    async def cancel(self, task_id: str) -> None:
        response = await self.ask("POST", f"/tasks/{task_id}/cancel")
        assert response.status_code in (200, 202), response.text

    async def answer_what_is_asked(self, task_id: str, chance: random.Random) -> None:
        """An unsafe call was cut short: a person says whether it is to be repeated; mostly not."""
        steps = (await self.ask("GET", f"/tasks/{task_id}/steps")).json()["items"]
        answered = {step["approval_id"] for step in steps if step["kind"] == "approval_given"}
        for step in steps:
            if step["kind"] != "approval_asked" or step["approval_id"] in answered:
                continue
            assert step["interrupted"], "a person is asked about a call that nothing has cut short"
            approved = chance.random() < 0.25
            path = f"/tasks/{task_id}/approvals/{step['approval_id']}"
            # counted before the answer is sent: it may be recorded although no confirmation comes
            self.approved[f"{task_id}:{step['call_id']}"] += approved
            response = await self.ask("POST", path, json={"approved": approved})
            assert response.status_code in (200, 404, 409), response.text


@asynccontextmanager
async def caller_of(fleet: Fleet) -> AsyncGenerator[ToolExecutor]:
    limits = httpx2.Limits(max_connections=20)
    async with httpx2.AsyncClient(timeout=10, limits=limits) as http:
        yield ToolExecutor(fleet, http)
