"""Tools that run programs: Python that a model has written, and the shell. In the jail, and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from agentkit.errors import UsageError
from agentkit.messages import Effect, JsonValue, ToolCall
from agentkit.ports import ToolContext
from agentkit.sandbox.backends.base import Backend
from agentkit.sandbox.port import CallTerms, Exited
from agentkit.sandbox.terms import Confinement
from agentkit.signatures import Function
from agentkit.tools.functions import Tool

Run: TypeAlias = Callable[[Backend, Mapping[str, Any], CallTerms], Awaitable[Exited]]

_NO_NETWORK = "There is no network."


class ProgramTool(Tool):
    """A tool that is a program in a jail.

    Args:
        function: its name, parameters and docstring are what a model sees; it is never called.
        run: runs it.
        confinement: on what terms.
    """

    def __init__(self, function: Function, run: Run, confinement: Confinement) -> None:
        reaches_out = bool(confinement.grants.write or confinement.grants.hosts)
        effect = Effect.UNSAFE if reaches_out else Effect.IDEMPOTENT
        if confinement.grants.hosts:
            hosts = ", ".join(f"{rule.host}:{rule.port}" for rule in confinement.grants.rules)
            told = f"Of the network only {hosts} can be reached."
            function.__doc__ = str(function.__doc__).replace(_NO_NETWORK, told)
        super().__init__(function, effect=effect, sandbox=confinement)
        self._run = run

    async def run(self, sandbox: Backend, arguments: Mapping[str, Any], terms: CallTerms) -> JsonValue:
        """Run it, and tell its exit status and what it printed."""
        exited = await self._run(sandbox, arguments, terms)
        return {"exit_code": exited.exit_code, "stdout": exited.stdout, "stderr": exited.stderr}

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Refused: it has no jail.

        Raises:
            UsageError: always; see :func:`agentkit.tools.sandboxed.confined`.
        """
        message = f"tool {self.name} runs in the jail, which is not open: give its agent to a worker"
        raise UsageError(message)


def _confined(confinement: Confinement | None) -> Confinement:
    given = Confinement() if confinement is None else confinement
    return Confinement(sandbox="jail", limits=given.limits, grants=given.grants, folder=given.folder)


def python_tool(confinement: Confinement | None = None) -> ProgramTool:
    """A tool ``python``: a model writes a script, and reads what it prints. Nothing is kept from one call to the next.

    Args:
        confinement: what scripts may use and reach; nothing of this machine where not given.
    """

    def python(code: str) -> None:
        """Run a Python script, and return its exit code and what it printed. Print what you want to see.

        Each call starts anew: no variables, files or imports are left from earlier ones. There is no network.

        Args:
            code: the text of the script.
        """

    return ProgramTool(python, _run_python, _confined(confinement))


def shell_tool(confinement: Confinement | None = None) -> ProgramTool:
    """A tool ``shell``: a model writes a command for ``sh``, and reads what it prints.

    Args:
        confinement: what commands may use and reach; nothing of this machine but its programs where not given.
    """

    def shell(command: str) -> None:
        """Run a command in a POSIX shell, and return its exit code and what it printed.

        Each call starts anew, in an empty folder. There is no network.

        Args:
            command: as it would be typed.
        """

    return ProgramTool(shell, _run_shell, _confined(confinement))


async def _run_python(sandbox: Backend, arguments: Mapping[str, Any], terms: CallTerms) -> Exited:
    return await sandbox.run_code(
        arguments["code"],
        limits=terms.limits,
        grants=terms.grants,
        deadline=terms.deadline,
        folder=terms.folder,
    )


async def _run_shell(sandbox: Backend, arguments: Mapping[str, Any], terms: CallTerms) -> Exited:
    return await sandbox.run_program(
        ["/bin/sh", "-c", arguments["command"]],
        limits=terms.limits,
        grants=terms.grants,
        deadline=terms.deadline,
        folder=terms.folder,
    )
