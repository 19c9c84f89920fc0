"""Supervisor between the fork server and one call: it waits for the call, makes the child, watches it, and ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from . import bubblewrap, child, framing
from .bubblewrap import TABLES
from .child import Ground
from .kernel import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    close_from,
    mount,
    prctl,
    unshare,
)
from .limits_watch import Watch, bury
from .mounts import WORK, Scene, attach, enter, make_private
from .proc import Use

_LONGEST_COMPLAINT = 2000

_TERMS = ("hosts", "doors", "read", "write", "two_ids", "seccomp", "environment", "path", "preload")
"""Of a call, as far as a jail has to know them before it."""


def begin(server: int) -> None:
    """Become a supervisor: end with the fork server, and take its signals back.

    Args:
        server: the fork server's process id.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a jail leaves is buried here, not by whoever is the first process
    if os.getppid() != server:
        os._exit(0)


def serve(ground: Ground, worker: socket.socket, usual: dict[str, Any] | None) -> None:
    """Serve one call. Does not return.

    Args:
        ground: see there.
        worker: connection to it, for this call alone.
        usual: the terms of the call, where they are known before the call itself.
    """
    try:
        if ground.programs:
            _serve_jail(ground, worker, usual)
        else:
            _serve_function(ground, worker, usual)
    except OSError as error:
        _send(worker, {"event": "unable", "why": f"the supervisor failed: {error}"})
    finally:
        os._exit(0)


def refuse(worker: socket.socket, error: OSError) -> None:
    """Say that there is no supervisor for a call.

    Args:
        worker: connection to it, for this call alone; closed.
        error: why.
    """
    with worker:
        _send(worker, {"event": "unable", "why": f"no supervisor: {error}"})


def _send(worker: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    with suppress(OSError):  # the worker is gone: whoever it was for is gone, too
        framing.send(worker, message, descriptors)


def _announce(worker: socket.socket, pidfd: int, *others: int, doors: Sequence[int] = ()) -> None:
    """Hand the worker what it can kill both with, whatever becomes of this process; and the doors of a jail."""
    own = os.pidfd_open(os.getpid())
    _send(worker, {"event": "started", "doors": len(doors)}, (pidfd, own, *others, *doors))
    for descriptor in (own, *doors):
        os.close(descriptor)


def _forked(work: Callable[[], None]) -> tuple[int, int]:
    """A child that does ``work``, which does not return: its id, and a descriptor that stays its own."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(70)
    return pid, os.pidfd_open(pid)


# --- a function -------------------------------------------------------------------------------------------------------


def _serve_function(ground: Ground, worker: socket.socket, usual: dict[str, Any] | None) -> None:
    if ground.namespaces:
        unshare(CLONE_NEWNS | CLONE_NEWPID)
    received = framing.receive(worker) if usual is None else None
    if received is not None:
        _take_mounts(received)
        usual = received[0]
    if usual is None:
        return
    folder = _set_the_scene(ground, usual)
    try:
        here, there = socket.socketpair()
        pid, pidfd = _forked(lambda: child.run(ground, usual, there))
        there.close()
        watch = Watch(proc=ground.proc, pid=pid, pidfd=pidfd, worker=worker, limits={}, folder=folder)
        received = received or framing.receive(worker)
        if received is None:
            watch.kill()
            os.waitpid(pid, 0)
            return
        received[0]["environment"].update(usual["folders"])
        _send(worker, _watched(watch, here, *received))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _set_the_scene(ground: Ground, spec: dict[str, Any]) -> str | None:
    """Make what the child sees; the folder of its files, where that must be removed afterwards."""
    owner = child.owner_of(ground)
    spec["folders"] = {}
    if ground.namespaces:
        spec["folder"] = WORK
        new = {folder for folder in spec["path"] if folder not in ground.path}
        granted = [*spec["read"], *spec["write"]]
        ground.modules.make_room([*(str(path) for path, *_ in granted), *new])
        scene = Scene(
            readable=[*ground.readable, *(folder for folder in new if os.path.isfile(folder))],
            copies=_copies(ground, spec["path"]),
            granted_read=spec["read"],
            granted_write=spec["write"],
            disk=spec["limits"]["disk"],
            owner=owner,
        )
        enter(ground.root, scene, built=not (new or granted))
        return None
    folder = tempfile.mkdtemp(dir=ground.root)
    os.chown(folder, owner, -1)
    spec["folder"] = folder
    spec["folders"] = {"TMPDIR": folder, "HOME": folder}
    return folder


def _copies(ground: Ground, path: list[str]) -> dict[str, str]:
    copies = ground.modules.copies
    return {folder: copies[folder] for folder in path if folder in copies}


def _take_mounts(received: tuple[dict[str, Any], list[int]]) -> None:
    """Put the mounts that came with a call beside the paths that they are of."""
    spec, descriptors = received
    granted = [*spec["read"], *spec["write"]]
    for each, mounted in zip(granted, spec.pop("mounts", ()), strict=False):
        if mounted:
            each.append(descriptors.pop())


def _watched(
    watch: Watch, here: socket.socket, spec: dict[str, Any], descriptors: list[int]
) -> dict[str, Any]:
    watch.limits = spec["limits"]
    watch.base = Use(memory=watch.proc.use(os.getpid()).memory)
    with suppress(OSError):  # it has ended, and said why
        framing.send(here, spec, tuple(descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    said = here.recv(_LONGEST_COMPLAINT)
    if said == child.READY:
        _announce(watch.worker, watch.pidfd)  # before it begins: what was never announced was never done
        with suppress(OSError):
            here.send(child.READY)
        here.close()
        return watch.until_it_ends()
    watch.kill()
    watch.until_it_ends()
    return {
        "event": "unable",
        "why": said.decode(errors="replace") or "the child ended before the call began",
    }


# --- a jail -----------------------------------------------------------------------------------------------------------


def _serve_jail(ground: Ground, worker: socket.socket, usual: dict[str, Any] | None) -> None:
    received = framing.receive(worker) if usual is None else None
    if received is not None:
        _take_mounts(received)
        usual = received[0]
    if usual is None:
        return
    here, there = socket.socketpair()
    hears, says = os.pipe()
    jail = bubblewrap.arguments(ground, usual, _staged(ground, usual), _copies(ground, usual["path"]))
    tables = bubblewrap.tables(usual)
    pid, pidfd = _forked(lambda: _become_jail(jail, (there.fileno(), ground.proc.descriptor), says, tables))
    there.close()
    os.close(says)
    with suppress(OSError):  # it has just ended
        framing.send(here, {name: usual[name] for name in _TERMS})
    watch = Watch(proc=ground.proc, pid=pid, pidfd=pidfd, worker=worker, limits={}, tree=True)
    why, doors = _made(watch, here, hears)
    if why is None:
        received = received or _awaited(watch)
        if received is not None:
            _send(worker, _watched_jail(watch, here, doors, received))
            return
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitpid(pid, 0)
    bury(watch.proc)
    if why is not None:
        _send(worker, {"event": "unable", "why": f"no jail: {why}"})


def _staged(ground: Ground, terms: dict[str, Any]) -> dict[str, str]:
    """Where bubblewrap finds what was granted: mounted where nobody else can put anything in its place.

    Raises:
        OSError: something else is there by now, or the kernel refused.
    """
    granted = [(each, False) for each in terms["read"]] + [(each, True) for each in terms["write"]]
    if not granted:
        return {}
    ground.modules.make_room(str(path) for (path, *_), _writable in granted)
    unshare(CLONE_NEWNS)
    make_private()
    mount("tmpfs", ground.root, "tmpfs", 0, "mode=0700,size=1m")
    staged: dict[str, str] = {}
    for number, (each, writable) in enumerate(granted):
        staged[str(each[0])] = target = f"{ground.root}/{number}"
        attach(each, target, writable=writable)
    return staged


def _made(watch: Watch, jail: socket.socket, complaints: int) -> tuple[str | None, list[int]]:
    """Wait until a jail is confined, and get its doors; else, why there is none."""
    poll = select.poll()
    poll.register(jail, select.POLLIN | select.POLLHUP)
    poll.register(watch.worker, select.POLLRDHUP)
    if jail.fileno() not in {descriptor for descriptor, _events in poll.poll()}:
        return "nobody waits for it any more", []
    confined = framing.receive(jail)
    if confined is None:
        why = os.read(complaints, _LONGEST_COMPLAINT).decode(errors="replace").strip()
        return why or "it ended at once", []
    if confined[0]["why"] is not None:
        return str(confined[0]["why"]), []
    os.close(complaints)
    _look(watch)
    return None, confined[1]


def _awaited(watch: Watch) -> tuple[dict[str, Any], list[int]] | None:
    """The call, once there is one; ``None`` where the jail has ended before, or the worker is gone."""
    poll = select.poll()
    for each in (watch.worker.fileno(), watch.pidfd):
        poll.register(each, select.POLLIN | select.POLLHUP)
    if watch.pidfd in {descriptor for descriptor, _events in poll.poll()}:
        return None
    return framing.receive(watch.worker)


def _look(watch: Watch) -> None:
    """See what a jail holds by itself, and who is in it."""
    own = watch.proc.use_of_tree(watch.pid)
    watch.base = Use(memory=own.memory, cpu=own.cpu)
    for inner in watch.proc.children(watch.pid):
        with suppress(ProcessLookupError):
            watch.inner = os.pidfd_open(inner)
            watch.scratch = watch.proc.folders(inner, bubblewrap.SCRATCH)
            for each in watch.proc.children(inner):  # bubblewrap's own first process ignores whoever asks
                watch.program = os.pidfd_open(each)


def _watched_jail(
    watch: Watch, jail: socket.socket, doors: list[int], call: tuple[dict[str, Any], list[int]]
) -> dict[str, Any]:
    spec, descriptors = call
    watch.limits = spec["limits"]
    # before it begins: what was never announced was never done
    others = () if watch.program is None else (watch.program,)
    first = watch.pidfd if watch.inner is None else watch.inner
    _announce(watch.worker, first, *others, doors=doors)
    with suppress(OSError):  # it has just ended
        framing.send(jail, spec, tuple(descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    jail.close()
    return watch.until_it_ends()


def _lay_out(text: str, target: int) -> None:
    """Make a file in memory, to be read at this descriptor."""
    made = os.memfd_create("table")
    os.write(made, text.encode())
    os.lseek(made, 0, os.SEEK_SET)
    if made != target:
        os.dup2(made, target)
        os.close(made)
    os.set_inheritable(target, True)


def _become_jail(jail: list[str], handed: tuple[int, int], complaints: int, tables: Sequence[str]) -> None:
    nothing = os.open("/dev/null", os.O_RDWR)
    os.setsid()
    for target, descriptor in enumerate((nothing, nothing, complaints, *handed)):
        os.dup2(descriptor, 64 + target)
    for target in range(TABLES):
        os.dup2(64 + target, target)
    close_from(TABLES)
    for number, table in enumerate(tables, TABLES):
        _lay_out(table, number)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execve(jail[0], jail, {})  # noqa: S606  (no shell is wanted)
