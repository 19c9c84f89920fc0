"""Fork server: one thread, a clean environment, one connection. It forks a supervisor for each call."""

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

from . import framing, landlock, seccomp, supervisor
from .access import UNPRIVILEGED
from .child import Ground
from .function_call import load
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
from .modules import Modules
from .mounts import SYSTEM, Scene, build, enter, make_private, seal
from .proc import Ids, Proc

_MNT_DETACH = 2


def main(connection: int) -> None:
    """Serve a worker until it is gone.

    Args:
        connection: descriptor of a socket to it.
    """
    worker = socket.socket(fileno=connection)
    received = framing.receive(worker)
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
            framing.send(worker, {"event": "unable", "why": str(error)})
        return
    found = {
        "namespaces": ground.namespaces,
        "landlock": ground.landlock,
        "seccomp": ground.filter is not None,
        "two_ids": ground.has_two_ids,
    }
    ready = {"event": "ready", **found, "problems": problems, "tasks": len(os.listdir("/proc/self/task"))}
    framing.send(worker, ready, () if ground.id_map is None else (ground.id_map,))
    if ground.id_map is not None:
        os.close(ground.id_map)
    _serve(ground, worker)
    _clear(ground)


def _serve(ground: Ground, worker: socket.socket) -> None:
    server = os.getpid()
    while (received := framing.receive(worker)) is not None:
        message, (connection,) = received
        if ground.namespaces or ground.programs:
            with suppress(OSError):  # what cannot be copied cannot be imported
                ground.modules.update(message["path"])
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # a library has threads: told when it was loaded
            try:
                pid = os.fork()
            except OSError as error:  # too many processes: this call cannot begin, and the others go on
                supervisor.refuse(socket.socket(fileno=connection), error)
                continue
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
    shutil.rmtree(os.path.dirname(ground.root), ignore_errors=True)


# --- the ground ---------------------------------------------------------------------------------------------------


def _settle(config: dict[str, Any]) -> Ground:
    """Take the namespaces that are to be had, before anything is loaded."""
    without = set(config["without"])
    proc = Proc(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    version = 0 if "landlock" in without else landlock.abi()
    libraries = tuple(config["libraries"])
    modules = Modules(config["modules"], (*SYSTEM, *libraries))
    readable = [*SYSTEM, *libraries, *(folder for folder in config["path"] if os.path.isfile(folder))]
    taking = partial(_take_namespaces, proc, config, tuple(readable), modules)
    is_root = os.geteuid() == 0
    filtered = "seccomp" not in without and seccomp.is_known()
    can = "namespaces" not in without and _works(taking)
    id_map = _id_map(proc) if can and is_root else None
    if can:
        taking(try_it=False)
    elif config["programs"]:
        _copy_modules(modules, config["path"], tuple(readable))
    elif is_root:
        for folder in (os.path.dirname(config["root"]), config["root"]):
            os.chmod(folder, 0o711)  # noqa: S103  (children of another id pass through to their own folder)
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
        modules=modules,
        id_map=id_map,
        programs=config["programs"],
    )


def _copy_modules(modules: Modules, path: list[str], readable: tuple[str, ...]) -> None:
    modules.update(path)
    modules.make_room([*readable, *modules.copies])


def _is_open(path: str) -> bool:
    """Everybody may go there, or read it."""
    parts = [path]
    while parts[-1] != "/":
        parts.append(os.path.dirname(parts[-1]))
    return all(os.stat(part).st_mode & (0o001 if os.path.isdir(part) else 0o004) for part in parts)


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


def _take_namespaces(
    proc: Proc, config: dict[str, Any], readable: tuple[str, ...], modules: Modules, *, try_it: bool
) -> None:
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
    if not try_it:
        _copy_modules(modules, config["path"], readable)
    if for_functions:
        build(config["root"], readable, modules.copies)
        seal(config["root"])
        if try_it:
            unshare(CLONE_NEWNS | CLONE_NEWPID)
            nothing: tuple[str, ...] = ()
            scene = Scene(
                readable=readable,
                copies={},
                granted_read=nothing,
                granted_write=nothing,
                disk=1 << 20,
                owner=0,
            )
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


def _id_map(proc: Proc) -> int | None:
    """A namespace of users in which what root owns is nobody's: mounts that have it are as open to a child as to root.

    ``None`` where the kernel does not make one.
    """
    hears, says = os.pipe()
    done, tells = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            unshare(CLONE_NEWUSER)
            os.write(says, b"+")
            os.close(tells)
            os.read(done, 1)
        os._exit(0)
    os.close(says)
    try:
        if os.read(hears, 1) != b"+":
            return None
        ids = f"0 {UNPRIVILEGED} 1\n1 1 {UNPRIVILEGED - 1}\n"
        for name in ("gid_map", "uid_map"):
            proc.write(f"{child}/{name}", ids)
        return os.open(f"{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc.descriptor)
    except OSError:
        return None
    finally:
        for descriptor in (hears, done, tells):
            os.close(descriptor)
