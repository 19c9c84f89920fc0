"""The real program, in a directory of its own."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest

PROGRAM = str(Path(sys.executable).parent / "opspawn")
SECONDS = 60
"""Nothing takes so long; what does, hangs."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Program:
    """``opspawn`` as a person or a script starts it.

    Attributes:
        directory: where it is started.
        env: its whole environment.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "PYTHONPATH": str(Path(__file__).parent),
            "OPSPAWN_APP": "cli_agents:agents",
            "OPSPAWN_POLL_SECONDS": "0.05",
            **{name: value for name, value in os.environ.items() if name.startswith("COV")},
        }
        self._started: list[subprocess.Popen[str]] = []
        self._terminals: list[Any] = []

    def __call__(self, *arguments: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, and hold it to its exit code."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code == 70 or "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0, **env: str) -> list[dict[str, Any]]:
        """Its lines with ``--json``, parsed; it prints nothing else."""
        done = self(*arguments, "--json", code=code, **env)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """Start it with pipes."""
        started = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(started)
        return started

    def terminal(self, *arguments: str, columns: int = 100, **env: str) -> Any:
        """Start it in a terminal."""
        spawned = pexpect.spawn(
            PROGRAM,
            list(arguments),
            cwd=str(self.directory),
            env={**self.env, **env},
            dimensions=(40, columns),
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # a suite run with `&` ignores it
            encoding="utf-8",
            timeout=SECONDS,
        )
        self._terminals.append(spawned)
        return spawned

    @contextmanager
    def serving(self, wire: str = "http", **env: str) -> Iterator[str]:
        """A server on a free port; gives its address of that wire, and stops it by SIGTERM."""
        server = self.start("serve", "--port", "0", **env)
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(rf"({wire}://[^\s/]+)", line):
                break
        else:
            pytest.fail(f"no server: {server.communicate()[1]}")
        yield found[1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0

    def file(self, name: str) -> Path:
        """A file in its directory, when it is there."""
        path = self.directory / name
        until(path.exists)
        return path

    def status(self, task_id: str) -> str:
        """Where a task stands."""
        return str(self.json("show", task_id)[-1]["status"])

    def close(self) -> None:
        for terminal in self._terminals:
            with suppress(OSError, pexpect.ExceptionPexpect):
                terminal.close(force=True)
        for started in self._started:
            started.kill()
            started.wait()
            for stream in (started.stdout, started.stderr):
                if stream is not None:
                    stream.close()


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that no output tells."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def program_in() -> Iterator[Callable[[Path], Program]]:
    """The program in any directory."""
    programs: list[Program] = []

    def make(directory: Path) -> Program:
        programs.append(Program(directory))
        return programs[-1]

    yield make
    for program in programs:
        program.close()


@pytest.fixture
def opspawn(program_in: Callable[[Path], Program], tmp_path: Path) -> Program:
    """The program, in an empty directory."""
    return program_in(tmp_path)


@pytest.fixture(scope="session")
def hostile() -> str:
    """What the hostile agent of `cli_agents.py` says."""
    return str(runpy.run_path(str(Path(__file__).parent / "cli_agents.py"))["HOSTILE"])
