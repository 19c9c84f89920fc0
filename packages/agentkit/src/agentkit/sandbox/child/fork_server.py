"""Fork server, seen from the worker: started, asked for supervisors, and ended."""

from __future__ import annotations

import asyncio
import os
import site
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agentkit.errors import UsageError
from agentkit.machine_errors import machine_error_in
from agentkit.sandbox.confined import framing
from agentkit.sandbox.errors import SandboxUnavailable

CONFINED = str(Path(__file__).parents[1] / "confined")
MECHANISMS = ("namespaces", "landlock", "seccomp")

START_SECONDS = 60.0
"""So long the start may take; what is preloaded counts."""

_END_SECONDS = 5.0

BOOT = """
import importlib, sys, types
package = types.ModuleType("agentkit_confined")
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
importlib.import_module("agentkit_confined." + sys.argv[2]).main(int(sys.argv[3]))
"""
"""Loads the other side as a package of its own, without agentkit around it."""

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # noqa: S108  (each call has a file system of its own there)
    "TMPDIR": "/tmp",  # noqa: S108  (as above)
    # libraries that would start a thread for each processor when they are loaded, in a process that is forked
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # each thread would reserve 64 MiB of addresses
    "MALLOC_ARENA_MAX": "2",
}
"""All that a child finds in its environment, beside the secrets that it was granted."""


_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "include", "share", "ssl", "pyvenv.cfg")
"""Of a folder in which Python is installed; it may be that of a project, with other things beside."""


Preload: TypeAlias = str | tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a fork server is to be started.

    Attributes:
        path: folders in which functions are looked for; those of this process where not given.
        preload: what is loaded once, before there are calls: modules, functions as ``module:name``, or a function
            with the text that it is called with.
        bubblewrap: the program, where jails are to be made; empty where functions are to be called.
        without: mechanisms that are not used although the kernel has them, to see how the sandbox does without.
    """

    path: Sequence[str] | None = None
    preload: Sequence[Preload] = ()
    bubblewrap: str = ""
    without: Collection[str] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.without) - set(MECHANISMS))
        if unknown:
            message = f"sandbox: without is some of {', '.join(MECHANISMS)}, not {', '.join(unknown)}"
            raise UsageError(message)

    def folders(self) -> list[str]:
        """Where functions are looked for, as absolute paths."""
        given = sys.path if self.path is None else self.path
        absolute = [str(Path(folder or ".").absolute()) for folder in given]
        return [folder for folder in dict.fromkeys(absolute) if Path(folder).exists()]

    def as_sent(self) -> list[list[str]]:
        """What is to be loaded, as the other side reads it."""
        return [[each] if isinstance(each, str) else list(each) for each in self.preload]


def libraries() -> list[str]:
    """Folders of the interpreter and of installed packages, which a child reads as a whole."""
    paths = sysconfig.get_paths()
    found = {str(Path(sys.executable).resolve().parent), CONFINED}
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        found |= {str(Path(prefix, part)) for part in _PARTS}
    found |= {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {
        folder for folder in (*site.getsitepackages(), site.getusersitepackages()) if folder in sys.path
    }
    return sorted(folder for folder in found if folder not in {"", "/"} and Path(folder).exists())


class ForkServer:
    """A process that makes a supervisor for each call.

    Args:
        plan: see there.

    Attributes:
        found: what it found on this machine.
        id_map: descriptor of a namespace of users in which what root owns belongs to tools; where the worker is root.
        root: its folder.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found: dict[str, Any] = {}
        self.id_map: int | None = None
        self.root = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    @property
    def is_alive(self) -> bool:
        """It has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            SandboxUnavailable: it cannot be started here.
            MachineError: not now.
        """
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            self.found = await asyncio.shield(starting)
        except BaseException:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
            await asyncio.wait({starting})  # before its thread has ended, nobody knows what there is to end
            await self.aclose()
            raise
        if self.found.get("event") != "ready":
            await self.aclose()
            why = self.found.get("why", "it ended at once")
            message = f"the fork server of the sandbox cannot be started: {why}"
            raise machine_error_in(why) or SandboxUnavailable(message)

    def _start(self) -> dict[str, Any]:
        import tempfile  # with the compressors of archives: needed once a server starts

        self.root = tempfile.mkdtemp(prefix="agentkit-sandbox-")
        for name in ("root", "modules"):
            Path(self.root, name).mkdir()
        here, there = socket.socketpair()
        self._connection = here
        here.settimeout(START_SECONDS)
        command = [sys.executable, "-I", "-c", BOOT, CONFINED, "server", str(there.fileno())]
        try:
            with there:
                self._process = subprocess.Popen(  # noqa: S603  (our own code, by our own interpreter)
                    command,
                    env=ENVIRONMENT,
                    pass_fds=[there.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            framing.send(here, self._config())
            answer = framing.receive(here)
        except OSError as error:
            return {"event": "unable", "why": str(error)}
        if answer is None:
            return {}
        self.id_map = next(iter(answer[1]), None)
        return answer[0]

    def _config(self) -> dict[str, Any]:
        programs = {
            "bubblewrap": self.plan.bubblewrap,
            "python": sys.executable,
            "boot": BOOT,
            "confined": CONFINED,
        }
        return {
            "programs": programs if self.plan.bubblewrap else {},
            "root": f"{self.root}/root",
            "modules": f"{self.root}/modules",
            "path": self.plan.folders(),
            "libraries": libraries(),
            # a jail loads them itself
            "preload": [] if self.plan.bubblewrap else self.plan.as_sent(),
            "without": list(self.plan.without),
        }

    def supervisor(self, usual: Mapping[str, Any] | None, path: Sequence[str]) -> socket.socket:
        """A connection to a new supervisor.

        Args:
            usual: the terms of the call that it will serve, where they are known before the call itself.
            path: folders of modules.

        Raises:
            OSError: the fork server is gone.
        """
        assert self._connection is not None
        here, there = socket.socketpair()
        with there:
            try:
                framing.send(self._connection, {"usual": usual, "path": list(path)}, (there.fileno(),))
            except BaseException:
                here.close()
                raise
        here.setblocking(False)
        return here

    async def aclose(self) -> None:
        """End it, and with it every supervisor and every call."""
        if self._connection is not None:
            self._connection.close()
        if self.id_map is not None:
            os.close(self.id_map)
            self.id_map = None
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_ended, process)
        if self.root:
            with suppress(OSError):
                import shutil  # with the compressors of archives

                await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_supported() -> bool:
    """This is Linux, with what Python needs to know of it."""
    return sys.platform == "linux" and bool(sys.executable) and hasattr(os, "pidfd_open")
