"""Confined child in which one function is called: it gives up every right that the call does not need."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import framing, landlock, seccomp
from .access import UNPRIVILEGED, check_access
from .function_call import CONTROL, call, settle_in
from .kernel import (
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    close_from,
    drop_capabilities,
    prctl,
    unshare,
)
from .modules import Modules, files_of, is_within
from .mounts import DEVICES, SYSTEM, open_granted
from .proc import Proc
from .rlimits import MAX_SIGNALS, limit_to

SEEN_ID = 1000
"""What a child in a namespace of its own takes its id for."""

READY = b"+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the fork server stands on.

    Attributes:
        proc: the kernel's tables.
        root: a folder of its own; a root of mounts lies there, or folders of calls.
        namespaces: it has namespaces of its own, and may make more.
        landlock: the version in use; 0 for none.
        filter: of system calls; empty where it depends on the number of the child, ``None`` for none.
        is_root: the worker is root.
        has_nobody: who owns nothing can still read the interpreter.
        libraries: folders of the interpreter and its packages.
        path: of Python, when the fork server began.
        readable: what the root of mounts shows as it is.
        modules: what it shows of folders of modules.
        id_map: a namespace of users in which what root owns is nobody's; until the worker has it.
        programs: of a fork server of jails: bubblewrap, and what runs in a jail; empty for one of functions.
    """

    proc: Proc
    root: str
    namespaces: bool
    landlock: int
    filter: bytes | None
    is_root: bool
    has_nobody: bool
    libraries: tuple[str, ...]
    path: tuple[str, ...]
    readable: tuple[str, ...]
    modules: Modules
    id_map: int | None
    programs: Mapping[str, str]

    @property
    def has_two_ids(self) -> bool:
        """It has a namespace of users in which there is nobody beside root."""
        return self.namespaces and self.is_root


def owner_of(ground: Ground) -> int:
    """The id of the child, as its namespace of users (or the machine, where there is none) calls it.

    Where the worker is root the child is nobody, whatever is granted to it: a grant opens its own paths and no others.
    """
    nobody = ground.is_root and ground.has_nobody
    if ground.namespaces:
        return 1 if nobody else 0
    return UNPRIVILEGED if nobody else os.geteuid()


def run(ground: Ground, usual: dict[str, Any], supervisor: socket.socket) -> None:
    """Confine this process, wait for a call, and make it. Does not return.

    Args:
        ground: see there.
        usual: the terms of the call, as far as they are known beforehand.
        supervisor: connection to it. It is told that the function can be called, or why it cannot, and gives the word.
    """
    code = 0
    try:
        held = ground.proc.address_space()
        _keep_only(supervisor, ground.proc)
        confine(ground, usual)
        received = framing.receive(supervisor)
        if received is not None:
            spec, descriptors = received
            _limit(ground, spec["limits"], held)
            word = _arrange_descriptors(descriptors, supervisor.fileno())
            if ground.filter is not None:
                # it may send signals to itself alone, and has another number each time where it has no namespace
                seccomp.install(ground.filter or seccomp.for_function(os.getpid(), metadata=False))
            settle_in(spec)
            os.write(word, READY)
            if os.read(word, 1):
                os.close(word)
                call(spec)
    except BaseException as error:  # noqa: BLE001  (nothing may be raised into the fork server's own code)
        code = 70
        with suppress(OSError):
            supervisor.send(f"the call cannot begin: {type(error).__name__}: {error}".encode())
    os._exit(code)


def _keep_only(supervisor: socket.socket, proc: Proc) -> None:
    """Whatever the fork server has open, and what was loaded into it."""
    first = 3
    for kept in sorted({supervisor.fileno(), proc.descriptor}):
        if kept > first:
            close_from(first, kept - 1)
        first = kept + 1
    close_from(first)


def _arrange_descriptors(descriptors: list[int], word: int) -> int:
    """Exactly the five of a child stay open, and after them the connection to the supervisor."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 32) for each in (nothing, *descriptors, word)]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target <= CONTROL)
    close_from(len(moved))
    return len(moved) - 1


def confine(ground: Ground, usual: dict[str, Any]) -> None:
    """Give up everything that the call is not granted, for good; its limits and the filter come with it.

    Raises:
        OSError: the kernel refused a step.
    """
    os.setsid()
    os.umask(0o077)
    os.chdir(usual["folder"])
    become(owner_of(ground), ground)
    if ground.is_root and os.getuid() != 0:
        check_access(usual)
    os.close(ground.proc.descriptor)
    with suppress(OSError):  # there were none
        drop_capabilities()
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if ground.landlock:
        landlock.restrict(_rules(ground, usual), ground.landlock)


def become(owner: int, ground: Ground) -> None:
    """Take an id that owns nothing, and a namespace of users in which nobody else is counted.

    Raises:
        OSError: the kernel refused.
    """
    if ground.is_root and owner:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    if ground.namespaces:  # one more, in which the limit of processes counts for this call alone
        prctl(PR_SET_DUMPABLE, 1)  # else what is below /proc belongs to root since the change of id
        unshare(CLONE_NEWUSER)
        ids = ((SEEN_ID, owner),)
        ground.proc.map_ids("self", ids, ids)


def _limit(ground: Ground, limits: dict[str, Any], held: int) -> None:
    wanted = {
        resource.RLIMIT_CPU: math.ceil(limits["cpu"]),
        resource.RLIMIT_FSIZE: limits["disk"],
        resource.RLIMIT_NOFILE: limits["descriptors"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_SIGPENDING: MAX_SIGNALS,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }
    if held:
        wanted[resource.RLIMIT_AS] = held + limits["memory"]
    if ground.namespaces:
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    limit_to(wanted)


def _rules(ground: Ground, spec: dict[str, Any]) -> list[tuple[str | int, int]]:
    rules: list[tuple[str | int, int]] = [(path, landlock.READ) for path in (*SYSTEM, *ground.libraries)]
    for folder in spec["path"]:
        if not is_within(folder, (*SYSTEM, *ground.libraries)):
            rules += _rules_of_modules(ground, folder)
    rules += [(path, landlock.WRITE) for path in (*DEVICES, spec["folder"])]
    rules += [(open_granted(granted), landlock.READ) for granted in spec["read"]]
    rules += [(open_granted(granted), landlock.WRITE) for granted in spec["write"]]
    if ground.namespaces:
        rules += [("/etc/passwd", landlock.READ), ("/etc/group", landlock.READ)]
    return rules


def _rules_of_modules(ground: Ground, folder: str) -> list[tuple[str | int, int]]:
    if ground.namespaces or os.path.isfile(folder):  # what lies there is a copy
        return [(folder, landlock.READ)]
    files = [(os.path.join(folder, file), landlock.READ) for file in files_of(folder)]
    return [(folder, landlock.LIST), *files]
