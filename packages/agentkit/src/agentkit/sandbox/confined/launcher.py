"""Inside a jail: it waits for what to do, confines itself, and does it or becomes it."""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

from . import seccomp, wire
from .calling import CONTROL, call, settle_in
from .child import limit_to, map_ids
from .kernel import CLONE_NEWUSER, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl, unshare
from .watching import Proc

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
    filters = {network: seccomp.for_programs(network=network) for network in (False, True)}
    with suppress(OSError):
        wire.send(supervisor, {"event": "there"})
    received = wire.receive(supervisor)
    if received is None:
        os._exit(0)
    spec, descriptors = received
    try:
        _confine(spec, filters)
    except OSError as error:
        wire.send(supervisor, {"why": f"it cannot be confined: {error}"})
        os._exit(71)
    wire.send(supervisor, {"why": None})
    if not supervisor.recv(1):  # the word to begin
        os._exit(0)
    supervisor.close()
    if spec.get("stays"):
        _stay(spec, descriptors)
    _arrange_descriptors(descriptors, keep_all="program" not in spec)
    if "program" in spec:
        _become(spec)
    settle_in(spec)
    if "code" in spec:
        os._exit(_run(spec["code"]))
    call(spec)
    os._exit(0)


def _arrange_descriptors(descriptors: list[int], *, keep_all: bool) -> None:
    """Standard input, output and error; result and control for a function, to which nobody else has them."""
    given = descriptors if len(descriptors) > CONTROL else [os.open("/dev/null", os.O_RDONLY), *descriptors]
    moved = [os.dup(descriptor) for descriptor in given]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target <= 2)
    os.closerange(len(given) if keep_all else 3, 1 << 16)


def _confine(spec: dict[str, Any], filters: dict[bool, bytes]) -> None:
    os.umask(0o077)
    os.chdir(spec["folder"])
    proc = Proc(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if spec["two_ids"]:  # the worker is root: be nobody, unless paths are granted, and count alone
        owner = 0 if spec["read"] or spec["write"] else 1
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        prctl(PR_SET_DUMPABLE, 1)
        unshare(CLONE_NEWUSER)
        ids = ((1000, owner),)
        map_ids(proc, "self", ids, ids)
    _limit(proc, spec["limits"], _RESERVED_BYTES if "program" in spec else 0)
    with suppress(OSError):
        drop_capabilities()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if spec["seccomp"]:
        seccomp.install(filters[spec["hosts"]])


def _limit(proc: Proc, limits: dict[str, Any], reserved: int) -> None:
    if limits["cpu"] is not None:
        limit_to({resource.RLIMIT_CPU: math.ceil(limits["cpu"])})
    limit_to(
        {
            resource.RLIMIT_FSIZE: limits["disk"],
            resource.RLIMIT_NOFILE: limits["descriptors"],
            resource.RLIMIT_NPROC: limits["processes"],
            # not the address space: runtimes with a heap of their own reserve far more of it than they use
            resource.RLIMIT_DATA: limits["memory"] + proc.data() + reserved,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
        }
    )


def _become(spec: dict[str, Any], complain: int = 2) -> None:
    program = spec["program"]
    try:
        os.execvpe(program[0], program, spec["environment"])  # noqa: S606  (no shell is wanted)
    except OSError as error:
        os.write(complain, f"{program[0]}: {error.strerror}\n".encode(errors="replace"))
    os._exit(_TO_A_SHELL)


def _stay(spec: dict[str, Any], descriptors: list[int]) -> None:
    """Become a program with the usual three streams; through a fourth, which closes with that, is told why not."""
    moved = [os.dup(descriptor) for descriptor in descriptors]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target <= 2)
    os.closerange(len(moved), 1 << 16)
    _become(spec, complain=3)


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
        traceback.print_exception(error.with_traceback(frames))
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    return status & 0xFF
