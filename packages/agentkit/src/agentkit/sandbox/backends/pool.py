"""Pool of confined children: supervisors forked ahead of need by a warm fork server, one for each call."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import tempfile
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from agentkit.errors import MachineError
from agentkit.machine_errors import machine_error
from agentkit.messages import JsonValue
from agentkit.sandbox.backends.base import Backend
from agentkit.sandbox.child.call import Ending, carry, returned
from agentkit.sandbox.child.fork_server import ENVIRONMENT, ForkServer, Plan, is_supported
from agentkit.sandbox.child.process import ChildProcess, NeverBegan
from agentkit.sandbox.errors import SandboxUnavailable
from agentkit.sandbox.id_maps import mapped_mounts
from agentkit.sandbox.port import CallTerms, Capabilities, Capability, ProgramTerms, Returned, State
from agentkit.sandbox.terms import CallLimits
from agentkit.untrusted.secrets import Secrets

TRIES = 3
"""That a fork server, or a supervisor, may be found dead when something is to begin."""

_LARGE = 1 << 16
"""Bytes of a result that take a while to parse."""

Terms: TypeAlias = CallTerms | ProgramTerms
SELFTEST = "agentkit_confined.selftest:attempt"


class ForkedBackend(Backend):
    """What the pool and the jail have in common.

    Args:
        plan: of the fork server.
        limits: of calls for which nothing else is said.
        concurrency: so many calls run at a time.
        ahead: so many supervisors wait for calls.
        secrets: values that may be granted, by name.
        allow_degraded: it is opened although a control that it needs is missing.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        limits: CallLimits,
        concurrency: int,
        ahead: int,
        secrets: Mapping[str, str],
        allow_degraded: bool,
    ) -> None:
        super().__init__(limits=limits, concurrency=concurrency)
        self._plan = plan
        self._ahead = ahead
        self._secrets = secrets
        Secrets(secrets.items())  # the log knows them from now on
        self._allow_degraded = allow_degraded
        self._server: ForkServer | None = None
        self._starting = asyncio.Lock()
        self._spares: deque[tuple[list[str], socket.socket]] = deque()

    async def __aenter__(self) -> Self:
        """Start the fork server, and try what it holds.

        Raises:
            SandboxUnavailable: it cannot be started here, or a control that is needed is missing.
        """
        if not is_supported():
            message = (
                f"the sandbox {self.name!r} needs Linux; elsewhere tools run only where they are trusted with this "
                'process: sandbox="inprocess" of a tool, or default = "inprocess" of [sandbox]'
            )
            raise SandboxUnavailable(message)
        try:
            await self._serving()
            self._capabilities = await self._tried()
            self._check()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the fork server, and with it every call."""
        await self._end()

    async def _end(self) -> None:
        for _path, spare in self._spares:
            spare.close()
        self._spares.clear()
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()

    def _check(self) -> None:
        missing = self.capabilities.missing
        if not missing or self._allow_degraded:
            return
        message = (
            f"the sandbox {self.name!r} cannot hold {', '.join(missing)} on this machine ({self.capabilities.means}); "
            "a newer kernel, or a container that allows Landlock or user namespaces, does; "
            "allow_degraded = true runs tools without"
        )
        raise SandboxUnavailable(message)

    # --- supervisors --------------------------------------------------------------------------------------------------

    async def _serving(self) -> ForkServer:
        """The fork server; a new one where it has died."""
        async with self._starting:
            if self._server is None or not self._server.is_alive:
                if self._server is not None:
                    await self._end()
                server = ForkServer(self._plan)
                await server.start()
                self._server = server
            return self._server

    def _is_usual(self, terms: Terms) -> bool:
        """A supervisor that was made ahead will do."""
        grants = terms.grants
        return not grants.read and not grants.write and terms.limits.disk_bytes == self.limits.disk_bytes

    async def _supervisor(self, terms: Terms) -> socket.socket:
        server = await self._serving()
        path = self._plan.folders()
        if self._is_usual(terms):
            while self._spares:
                made_for, spare = self._spares.popleft()
                if made_for == path and _is_waiting(spare):
                    return spare
                spare.close()
        return server.supervisor(None, path)

    def _make_ahead(self) -> None:
        """As many supervisors as shall wait; they get ready once a call has ended, not while it wants a processor."""
        with suppress(OSError):  # the fork server is gone: the next call sees to it
            while self._server is not None and len(self._spares) < self._ahead:
                spec = self._usual()
                self._spares.append((spec["path"], self._server.supervisor(spec, spec["path"])))

    def _usual(self) -> dict[str, Any]:
        """The terms for which supervisors are made ahead."""
        return self._spec(self.terms(None, None, None))

    # --- calls --------------------------------------------------------------------------------------------------------

    async def call_on(self, function: str, arguments: Mapping[str, JsonValue], terms: CallTerms) -> Returned:
        """Call a function by its name; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        secrets, what, report = self._granted(terms), terms.name or function, terms.report

        def told(text: str) -> None:
            report(secrets.hidden(text))

        terms = replace(terms, report=told)
        task = {"function": function, "arguments": dict(arguments)}
        ending = await self._carried(task, terms, what)
        if ending.stdout or ending.stderr:
            terms.printed(secrets.hidden(ending.stdout), secrets.hidden(ending.stderr))
        taking = partial(returned, ending, terms, what, secrets)
        # a large one is parsed beside the loop, which others wait for
        return await asyncio.to_thread(taking) if len(ending.result) > _LARGE else taking()

    def _granted(self, terms: CallTerms) -> Secrets:
        return Secrets(terms.grants.environment(self._secrets).items(), shortest=1)

    async def _carried(
        self, task: Mapping[str, Any], terms: CallTerms, what: str, stdin: int | None = None
    ) -> Ending:
        spec = {**self._spec(terms), **task}
        async with self.turn(terms, what):
            for _ in range(TRIES):
                child: ChildProcess | None = None
                try:
                    supervisor = await self._supervisor(terms)
                    with self._mounts(terms) as mounts:
                        child = ChildProcess(
                            supervisor=supervisor,
                            spec=spec,
                            mounts=mounts,
                            deadline=terms.deadline,
                            seconds=terms.limits.seconds,
                        )
                        return await carry(child, terms, stdin)
                except (NeverBegan, BrokenPipeError, ConnectionResetError):
                    continue
                except OSError as error:
                    found = machine_error(error, began=child is not None and child.began)
                    raise found or error from None
                finally:  # once whoever called has the result
                    asyncio.get_running_loop().call_soon(self._make_ahead)
        message = f"the sandbox {self.name!r} could not begin {what}: its processes are gone as soon as they are made"
        raise MachineError(message, began=False)

    def _mounts(self, terms: Terms) -> AbstractContextManager[Sequence[int | None]]:
        """Mounts of what is granted, where the worker is root."""
        return mapped_mounts(terms.grants, None if self._server is None else self._server.id_map)

    def _spec(self, terms: Terms) -> dict[str, Any]:
        grants = terms.grants
        grants.check_paths()
        return {
            "limits": terms.limits.as_sent(),
            "path": self._plan.folders(),
            "read": [held.as_sent() for held in grants.held_read],
            "write": [held.as_sent() for held in grants.held_write],
            "hosts": bool(grants.rules),
            "cwd": terms.folder if isinstance(terms, CallTerms) else None,
            "environment": {**ENVIRONMENT, **grants.environment(self._secrets)},
        }

    async def _tried(self) -> Capabilities:
        """What a child could not do when it was told to try."""
        canary = await asyncio.to_thread(_laid_out)
        try:
            terms = self.terms(CallLimits(seconds=10), None, None)
            given: dict[str, JsonValue] = {"canary": str(canary), "outsider": os.getpid()}
            found = (await self.call_on(SELFTEST, given, terms)).value
        finally:
            await asyncio.to_thread(shutil.rmtree, canary.parent, ignore_errors=True)
        assert isinstance(found, dict)
        return self._judged(found)

    @abstractmethod
    def _judged(self, found: Mapping[str, Any]) -> Capabilities:
        """From what was tried to what is held."""

    @property
    def _facts(self) -> Mapping[str, Any]:
        assert self._server is not None
        return self._server.found

    def _means(self) -> str:
        facts = self._facts
        parts = ["namespaces"] if facts["namespaces"] else []
        if facts["landlock"]:
            parts.append(f"Landlock {facts['landlock']}")
        if facts["seccomp"]:
            parts.append("seccomp")
        return ", ".join(parts) or "nothing but limits"


def _laid_out() -> Path:
    """A file that everybody may read who gets to see it."""
    folder = Path(tempfile.mkdtemp(prefix="agentkit-canary-"))
    folder.chmod(0o755)  # it is not its mode that must keep a child from it
    canary = folder / "canary"
    canary.write_text("nobody's", encoding="utf-8")
    canary.chmod(0o644)
    return canary


def _is_waiting(spare: socket.socket) -> bool:
    """Nothing has been heard of it: it has neither ended nor failed."""
    poll = select.poll()
    poll.register(spare, select.POLLIN | select.POLLHUP)
    return not poll.poll(0)


HELD: Mapping[Capability, State] = {
    Capability.ENVIRONMENT: State.ENFORCED,
    Capability.CPU: State.ENFORCED,
    Capability.DESCRIPTORS: State.ENFORCED,
    Capability.OUTPUT: State.ENFORCED,
    Capability.TIME: State.ENFORCED,
}
"""Needs nothing that a Linux may lack."""


def held(refused: bool) -> State:
    """Whether what was tried was refused, as a state."""
    return State.ENFORCED if refused else State.NONE


class Pool(ForkedBackend):
    """One confined child for each call: no process, no program, no socket, no file that was not granted."""

    name = "pool"

    def _judged(self, found: Mapping[str, Any]) -> Capabilities:
        in_namespaces = bool(self._facts["namespaces"])
        limits = found["limits"]
        controls = {
            **HELD,
            Capability.FILES: held(found["files"]),
            Capability.NETWORK: held(found["network"] and found["sockets"]),
            Capability.PROCESSES: held(found["processes"]),
            Capability.SIGNALS: held(found["signals"]),
            Capability.MEMORY: State.ENFORCED if limits["memory"] else State.POLLED,
            Capability.DISK: State.ENFORCED if in_namespaces else State.POLLED,
        }
        return Capabilities(backend=self.name, controls=controls, means=self._means())
