"""Launcher inside a jail: it confines itself, waits for a call, and makes it or becomes its program.

Each jail loads this anew: nothing is imported here that takes long.
"""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
from contextlib import suppress
from typing import Any

from . import framing, seccomp
from .access import check_access
from .function_call import call, load, set_environment, settle_in
from .kernel import (
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    close_from,
    drop_capabilities,
    prctl,
    unshare,
)
from .proc import Proc
from .rlimits import MAX_SIGNALS, limit_to

OUTER_PROC = 4
"""As :mod:`.jailing` has it, which takes long to load."""

_RESERVED_BYTES = 1 << 30
"""Counted by the kernel and not used: V8 reserves half of it for code. What is used is counted by the supervisor."""

_TO_A_SHELL = 127
"""The exit status of a program that could not be started, as shells have it."""


def main(connection: int) -> None:
    """Serve the one call of this jail. Does not return.

    Args:
        connection: descriptor of a socket to the supervisor.
    """
    supervisor = socket.socket(fileno=connection)
    received = framing.receive(supervisor)
    if received is None:
        os._exit(0)
    terms = received[0]
    try:
        doors = [_listening(address, port) for address, port in terms["doors"]]
        _confine(terms)
    except OSError as error:
        framing.send(supervisor, {"why": f"it cannot be confined: {error}"})
        os._exit(71)
    if terms["preload"]:
        set_environment(terms["environment"])
        load(terms["path"], terms["preload"])
    framing.send(supervisor, {"why": None}, tuple(door.detach() for door in doors))
    received = framing.receive(supervisor)  # with it comes the word to begin
    if received is None:
        os._exit(0)
    supervisor.close()
    _begin(*received)


def _listening(address: str, port: int) -> socket.socket:
    """A door: nobody in here has it when the call begins, and the worker waits behind it."""
    door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    door.bind((address, port))
    door.listen(64)
    return door


def _begin(spec: dict[str, Any], descriptors: list[int]) -> None:
    _limit(spec)
    if "program" in spec:
        _become(spec, descriptors)
    if "code" in spec:
        _arrange_descriptors(descriptors)
        settle_in(spec)
        os._exit(_run(spec["code"]))
    _arrange_descriptors([os.open("/dev/null", os.O_RDONLY), *descriptors])
    settle_in(spec)
    call(spec)
    os._exit(0)


def _arrange_descriptors(descriptors: list[int]) -> None:
    """Standard input, output and error, which programs inherit; after them what nobody else has."""
    moved = [os.dup(descriptor) for descriptor in descriptors]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target <= 2)
    close_from(len(moved))


def _confine(terms: dict[str, Any]) -> None:
    os.umask(0o077)
    proc = Proc(OUTER_PROC)  # closed before anything runs that is not trusted
    if terms["two_ids"]:  # the worker is root: be nobody, and count alone
        owner = 1
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        check_access(terms)
        prctl(PR_SET_DUMPABLE, 1)
        unshare(CLONE_NEWUSER)
        ids = ((1000, owner),)
        proc.map_ids("self", ids, ids)
    os.close(proc.descriptor)
    with suppress(OSError):
        drop_capabilities()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if terms["seccomp"]:
        seccomp.install(seccomp.for_programs(network=terms["hosts"]))


def _limit(spec: dict[str, Any]) -> None:
    limits = spec["limits"]
    proc = Proc(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    reserved = _RESERVED_BYTES if "program" in spec else 0
    wanted = {
        resource.RLIMIT_FSIZE: limits["disk"],
        resource.RLIMIT_NOFILE: limits["descriptors"],
        resource.RLIMIT_NPROC: limits["processes"],
        # not the address space: runtimes with a heap of their own reserve far more of it than they use
        resource.RLIMIT_DATA: limits["memory"] + proc.data() + reserved,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_SIGPENDING: MAX_SIGNALS,
    }
    os.close(proc.descriptor)
    if limits["cpu"] is not None:
        wanted[resource.RLIMIT_CPU] = math.ceil(limits["cpu"])
    limit_to(wanted)


def _become(spec: dict[str, Any], descriptors: list[int]) -> None:
    """Become a program with the usual three streams. Where it stays, a fourth closes with that, or tells why not."""
    program, complain = spec["program"], 3 if spec.get("stays") else 2
    _arrange_descriptors(descriptors)
    try:
        os.chdir(spec.get("cwd") or spec["folder"])
        os.execvpe(program[0], program, spec["environment"])  # noqa: S606  (no shell is wanted)
    except OSError as error:
        os.write(complain, f"{program[0]}: {error.strerror}\n".encode(errors="replace"))
    os._exit(_TO_A_SHELL)


def _run(code: str) -> int:
    """Run code as a script is run."""
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    status = 0
    try:
        exec(compile(code, "<code>", "exec"), scope)  # noqa: S102  (that is what a jail is for)
    except SystemExit as ending:
        if isinstance(ending.code, int):
            status = ending.code
        elif ending.code is not None:
            sys.stderr.write(f"{ending.code}\n")
            status = 1
    except BaseException as error:  # noqa: BLE001  (shown as Python shows it, without the frames of this file)
        frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
        import traceback

        traceback.print_exception(error.with_traceback(frames))
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    return status & 0xFF
