"""Real processes: a server that is killed again and again loses nothing and doubles nothing."""

import asyncio
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

HERE = Path(__file__).parent
TASKS = 200
KILLS = 6
ENDED = {"completed", "failed", "cancelled"}


class Server:
    """``opspawn serve`` in a process of its own, in a directory of its own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPSPAWN_", "OPENAI_"))
        } | {
            "OPSPAWN_LEASE_SECONDS": "1",
            "OPSPAWN_SWEEP_SECONDS": "0.2",
            "OPSPAWN_POLL_SECONDS": "0.2",
            **settings,
        }
        self.process: asyncio.subprocess.Process
        self.url = ""

    async def start(self) -> None:
        """Start it, and wait until it says where it is."""
        opspawn = Path(sys.executable).with_name("opspawn")
        with (self.directory / "serve.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                opspawn, "serve", "--app", "letters:catalog", "--port", "0",
                cwd=self.directory, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if found := re.search(rb"http://[0-9.]+:\d+", line):
                self.url = found[0].decode()
                return
        pytest.fail("the server ended: " + (self.directory / "serve.log").read_text())

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


@pytest.fixture
async def server(tmp_path, store_url):
    shutil.copy(HERE / "letters.py", tmp_path)
    made = Server(tmp_path, OPSPAWN_CONCURRENCY="25", OPSPAWN_STORE_URL=store_url)
    await made.start()
    yield made
    await made.end(signal.SIGKILL)


def effects(directory: Path) -> Counter[str]:
    file = directory / "effects.log"
    return Counter(file.read_text().splitlines()) if file.exists() else Counter()


class ToolExecutor:
    """A client that does not know which server is alive, and asks until it is answered."""

    def __init__(self, server: Server, http: httpx2.AsyncClient) -> None:
        self.server, self.http, self.repeated = server, http, 0

    async def ask(self, method: str, path: str, **options) -> httpx2.Response:
        while True:
            try:
                response = await self.http.request(method, f"{self.server.url}/api/v1{path}", **options)
            except httpx2.HTTPError:
                self.repeated += 1
                await asyncio.sleep(0.05)  # between two tries of a client whose server is dead
                continue
            assert response.status_code < 500, response.text
            return response

    async def submit(self, number: int) -> str:
        body = {"agent": "clerk", "input": f"letter {number}", "labels": {"batch": "1"}}
        response = await self.ask(
            "POST", "/tasks", json=body, headers={"Idempotency-Key": f"letter-{number}"}
        )
        assert response.status_code in (200, 202), response.text
        return response.json()["id"]

    async def all_tasks(self) -> list[dict]:
        tasks, cursor = [], None
        while True:
            params = {"limit": 200, **({"cursor": cursor} if cursor else {})}
            page = (await self.ask("GET", "/tasks", params=params)).json()
            tasks += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return tasks

    async def deny_what_is_asked(self, task_id: str) -> None:
        """An unsafe call was cut short: a person says that it is not to be repeated."""
        steps = (await self.ask("GET", f"/tasks/{task_id}/steps")).json()["items"]
        answered = {step["approval_id"] for step in steps if step["kind"] == "approval_given"}
        for step in steps:
            if step["kind"] == "approval_asked" and step["approval_id"] not in answered:
                assert step["interrupted"]
                path = f"/tasks/{task_id}/approvals/{step['approval_id']}"
                response = await self.ask(
                    "POST", path, json={"approved": False, "reason": "it may have been sent"}
                )
                assert response.status_code in (200, 404, 409), response.text

    async def until_all_have_ended(self) -> list[dict]:
        while True:
            tasks = await self.all_tasks()
            if len(tasks) == TASKS and all(task["status"] in ENDED for task in tasks):
                return tasks
            for task in tasks:
                if task["status"] == "waiting":
                    await self.deny_what_is_asked(task["id"])
            await asyncio.sleep(0.05)  # between two looks of a client


@asynccontextmanager
async def caller_of(server: Server):
    async with httpx2.AsyncClient(timeout=10) as http:
        yield ToolExecutor(server, http)


@pytest.mark.timeout(240)
async def test_a_server_killed_again_and_again_finishes_every_task_once(server, tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def kill_and_restart() -> None:
        for kill in range(KILLS):
            more = sum(effects(tmp_path).values()) + chance.randint(10, 80)
            while sum(effects(tmp_path).values()) < more:
                await asyncio.sleep(0.005)  # until the server is in the middle of so much work
            assert await server.end(signal.SIGKILL) == -signal.SIGKILL
            print(f"kill {kill + 1}: {sum(effects(tmp_path).values())} effects so far")
            await server.start()

    async with caller_of(server) as caller:
        ids, _ = await asyncio.gather(
            asyncio.gather(*(caller.submit(number) for number in range(TASKS))), kill_and_restart()
        )
        tasks = await caller.until_all_have_ended()

        assert len(set(ids)) == TASKS
        assert {task["id"] for task in tasks} == set(ids)
        assert Counter(task["status"] for task in tasks) == {"completed": TASKS}
        done = effects(tmp_path)
        for task in tasks:
            for call_id in ("a", "b"):
                assert done[f"store {task['id']}:{call_id}"] >= 1
            assert done[f"send {task['id']}:c"] <= 1, "an unsafe effect was doubled"
            steps = (await caller.ask("GET", f"/tasks/{task['id']}/steps")).json()["items"]
            assert [step["seq"] for step in steps] == list(range(len(steps)))
            kinds = Counter(step["kind"] for step in steps)
            assert (kinds["run_started"], kinds["model_replied"], kinds["finished"]) == (1, 3, 1)
            assert Counter(step["call_id"] for step in steps if step["kind"] == "tool_returned") == {
                "a": 1,
                "b": 1,
                "c": 1,
            }
        assert len(done) <= 3 * TASKS, "an effect has a key that belongs to no call"


async def test_sigterm_hands_over_in_good_order(server, tmp_path):
    """No attempt is counted, no lease has to run out, and the next process goes on."""
    async with caller_of(server) as caller:
        ids = await asyncio.gather(*(caller.submit(number) for number in range(40)))
        while not effects(tmp_path):
            await asyncio.sleep(0.01)  # until work is under way
        async with asyncio.timeout(20):
            assert await server.end(signal.SIGTERM) == 0
        await server.start()
        for task_id in ids:
            while (task := (await caller.ask("GET", f"/tasks/{task_id}")).json())["status"] not in ENDED:
                await asyncio.sleep(0.02)
            assert (task["status"], task["attempt"]) == ("completed", 1)
    assert set(effects(tmp_path).values()) == {1}


async def test_a_watcher_goes_on_after_the_server_was_killed(server):
    """Last-Event-ID: every step once, in order, over two servers."""
    async with caller_of(server) as caller:
        task_id = await caller.submit(1)
        seen: list[int] = []
        ended = False
        while not ended:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            try:
                url = f"{server.url}/api/v1/tasks/{task_id}/events"
                async with caller.http.stream("GET", url, headers=headers) as events:
                    async for line in events.aiter_lines():
                        if line.startswith("id:"):
                            seen.append(int(line[3:]))
                        ended = ended or line == "event: end"
                        if seen == [0, 1] and "Last-Event-ID" not in headers:
                            await server.end(signal.SIGKILL)
                            await server.start()
            except httpx2.HTTPError:
                continue
            for task in await caller.all_tasks():
                if task["status"] == "waiting":
                    await caller.deny_what_is_asked(task["id"])
        steps = (await caller.ask("GET", f"/tasks/{task_id}/steps")).json()["items"]
        assert seen == [step["seq"] for step in steps]
