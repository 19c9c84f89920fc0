"""The fork server: one thread, a clean environment, one connection; of it a supervisor is forked for each call."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from . import landlock, seccomp, supervisor, wire
from .calling import load
from .child import UNPRIVILEGED, Ground, is_within
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    prctl,
    unmount,
    unshare,
)
from .mounts import SYSTEM, Scene, build, enter, make_private, seal, shown
from .proc import Ids, Proc

_MNT_DETACH = 2


def main(connection: int) -> None:
    """Serve a worker until it is gone.

    Args:
        connection: descriptor of a socket to it.
    """
    worker = socket.socket(fileno=connection)
    received = wire.receive(worker)
    if received is None:
        return
    config = received[0]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # of a terminal: it is the worker who ends this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a supervisor that has ended is nobody's to wait for
    try:
        ground = _settle(config)
        prctl(PR_SET_DUMPABLE, 0)
        problems = load(config["path"], config["preload"])
    except OSError as error:
        with suppress(OSError):
            wire.send(worker, {"event": "unable", "why": str(error)})
        return
    found = {
        "namespaces": ground.namespaces,
        "landlock": ground.landlock,
        "seccomp": ground.filter is not None,
        "two_ids": ground.has_two_ids,
    }
    wire.send(
        worker, {"event": "ready", **found, "problems": problems, "tasks": len(os.listdir("/proc/self/task"))}
    )
    _serve(ground, worker)
    _clear(ground)


def _serve(ground: Ground, worker: socket.socket) -> None:
    server = os.getpid()
    while (received := wire.receive(worker)) is not None:
        message, (connection,) = received
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # a library has threads: told when it was loaded
            pid = os.fork()
        if pid == 0:
            worker.close()
            supervisor.begin(server)
            supervisor.serve(ground, socket.socket(fileno=connection), message["usual"])
        os.close(connection)
    with suppress(ChildProcessError):  # each supervisor sees the end of the worker, and leaves nothing
        os.waitpid(-1, 0)


def _clear(ground: Ground) -> None:
    if ground.namespaces:
        with suppress(OSError):
            unmount(ground.root, _MNT_DETACH)
    shutil.rmtree(ground.root, ignore_errors=True)


# --- the ground ---------------------------------------------------------------------------------------------------


def _settle(config: dict[str, Any]) -> Ground:
    """Take the namespaces that are to be had, before anything is loaded."""
    without = set(config["without"])
    proc = Proc(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    version = 0 if "landlock" in without else landlock.abi()
    libraries = tuple(config["libraries"])
    readable = [*SYSTEM, *libraries]
    for folder in config["path"]:
        if not is_within(folder, libraries):
            readable += shown(folder, version)
    taking = partial(_take_namespaces, proc, config, tuple(readable))
    is_root = os.geteuid() == 0
    filtered = "seccomp" not in without and seccomp.is_known()
    can = "namespaces" not in without and _works(taking)
    if can:
        taking(try_it=False)
    elif is_root:
        os.chmod(config["root"], 0o711)  # noqa: S103  (children of another id pass through to their own folder)
    return Ground(
        proc=proc,
        root=config["root"],
        namespaces=can,
        landlock=version,
        filter=(seccomp.for_function(1, metadata=True) if can else b"") if filtered else None,
        is_root=is_root,
        has_nobody=can or all(map(_is_open, libraries)),
        libraries=libraries,
        path=tuple(config["path"]),
        readable=tuple(readable),
        programs=config["programs"],
    )


def _is_open(folder: str) -> bool:
    """Everybody may go there."""
    parts = [folder]
    while parts[-1] != "/":
        parts.append(os.path.dirname(parts[-1]))
    return all(os.stat(part).st_mode & 0o001 for part in parts)


def _works(taking: Callable[..., None]) -> bool:
    """Try it in a child, of which nothing remains."""
    hears, says = os.pipe()
    if os.fork() == 0:
        try:
            taking(try_it=True)
            os.write(says, b"+")
        finally:
            os._exit(0)
    os.close(says)
    with open(hears, "rb") as answer:
        return answer.read(1) == b"+"


def _take_namespaces(proc: Proc, config: dict[str, Any], readable: tuple[str, ...], *, try_it: bool) -> None:
    """Namespaces of users, mounts, network, IPC and names; for jails, which take the others themselves, of users."""
    for_functions = not config["programs"]
    own = os.geteuid(), os.getegid()
    ids = ((0, 0), (1, UNPRIVILEGED))
    with _helped_by_root(proc, ids) if own[0] == 0 else nullcontext():
        others = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
        unshare(CLONE_NEWUSER | (others if for_functions else 0))
    if own[0] != 0:
        proc.map_ids("self", ((0, own[0]),), ((0, own[1]),))
    if for_functions:
        make_private()
        build(config["root"], readable)
        seal(config["root"])
        if try_it:
            unshare(CLONE_NEWNS | CLONE_NEWPID)
            scene = Scene(readable=readable, granted_read=(), granted_write=(), disk=1 << 20, owner=0)
            enter(config["root"], scene, built=True)


@contextmanager
def _helped_by_root(proc: Proc, ids: Ids) -> Generator[None]:
    """Somebody who stays outside and gives the new namespace two ids, which nobody inside may do."""
    os.setgroups([])
    hears, says = os.pipe()
    done, tells = os.pipe()
    server = str(os.getpid())
    if os.fork() == 0:
        with suppress(OSError):
            os.close(says)
            if os.read(hears, 1):
                proc.map_ids(server, ids, ids)
                os.write(tells, b"+")
        os._exit(0)
    os.close(tells)
    try:
        yield
        os.write(says, b"+")
        if os.read(done, 1) != b"+":
            raise PermissionError(errno.EPERM, "the ids of a namespace cannot be set")
    finally:
        for descriptor in (hears, says, done):
            os.close(descriptor)
