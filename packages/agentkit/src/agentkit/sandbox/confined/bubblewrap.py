"""Bubblewrap arguments of a jail: its mounts, and the ids of its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .child import Ground
from .modules import is_within
from .mounts import GROUP, PASSWD, WORK, outermost

JAIL = 3
"""The descriptor at which a jail finds its supervisor."""

OUTER_PROC = JAIL + 1
"""The descriptor at which its launcher finds a ``/proc`` in which ids can be mapped; that of the jail is read-only."""

TABLES = JAIL + 2
"""The first of the descriptors that hold the tables of a jail."""

SCRATCH = (WORK, "/dev/shm")  # noqa: S108  (in the jail)
"""Folders of a jail's own files: their bytes are limited by the kernel, their number is not."""

_TABLES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf")


def arguments(
    ground: Ground, terms: Mapping[str, Any], staged: Mapping[str, str], copies: Mapping[str, str]
) -> list[str]:
    """The program that makes a jail on these terms, with its arguments; within it the launcher waits.

    Args:
        ground: of the fork server, which knows the programs.
        terms: paths that are granted, folders of modules, and bytes of the jail's own files.
        staged: where what was granted is mounted, by its path.
        copies: where copies of folders of modules are, by their paths.
    """
    disk = str(terms["limits"]["disk"])
    programs = ground.programs
    return [
        programs["bubblewrap"],
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *_identity(ground, listens=bool(terms["doors"])),
        *("--die-with-parent", "--new-session", "--hostname", "jail"),
        *_shown(ground, copies),
        *_tabled(tables(terms)),
        # read-only: whoever has the id of root outside could write to the settings of the kernel, capabilities or not
        *("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", disk, "--tmpfs", "/dev/shm"),  # noqa: S108  (in the jail)
        *("--perms", "1777", "--size", disk, "--tmpfs", WORK),
        *_shown(ground, copies, below=WORK),
        *_granted(ground, terms, staged, copies),
        *("--remount-ro", "/", "--chdir", WORK),
        *(
            "--",
            programs["python"],
            "-I",
            "-c",
            programs["boot"],
            programs["confined"],
            "launcher",
            str(JAIL),
        ),
    ]


def tables(terms: Mapping[str, Any]) -> list[str]:
    """What the jail's tables of users say, and where hosts are granted those of names."""
    users = [PASSWD, GROUP]
    if not terms["names"]:
        return users
    hosts = [f"{address}\t{name}\n" for name, address in terms["names"]]
    return [*users, "".join(hosts), "hosts: files\n"]


def _tabled(texts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for number, (path, _text) in enumerate(zip(_TABLES, texts, strict=False), TABLES):
        found += ["--perms", "0444", "--ro-bind-data", str(number), path]
    return found


def _identity(ground: Ground, *, listens: bool) -> list[str]:
    """Root of its own namespace of users, until the launcher has done what needs that."""
    wanted = ["CAP_NET_BIND_SERVICE"] if listens else []
    if ground.has_two_ids:
        wanted += ["CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP"]
    kept = ["--cap-drop", "ALL", *(part for name in wanted for part in ("--cap-add", name))]
    return kept if ground.has_two_ids else ["--unshare-user", "--uid", "1000", "--gid", "1000", *kept]


def _shown(ground: Ground, copies: Mapping[str, str], below: str = "") -> list[str]:
    found: list[str] = []
    made = {"/", WORK}
    for path in sorted({*outermost(ground.readable), *copies}):
        if path.startswith(WORK + "/") == bool(below):
            found += _folders_to(path, made, copies)
            if path not in copies and os.path.islink(path):
                found += ["--symlink", os.readlink(path), path]
            else:
                found += ["--ro-bind", copies.get(path, path), path]
    return found


def _folders_to(path: str, made: set[str], places: Iterable[str]) -> list[str]:
    """The folders above a path, open to everybody: bubblewrap would give them the modes that they have outside.

    Those among the jail's own files are also writable, whoever its processes are.
    """
    parents = [parent for parent in _parents(path) if parent not in made and not is_within(parent, places)]
    made.update(parents)
    modes = ["0777" if parent.startswith(WORK + "/") else "0755" for parent in parents]
    made_so = zip(modes, parents, strict=True)
    return [part for mode, parent in made_so for part in ("--perms", mode, "--dir", parent)]


def _parents(path: str) -> list[str]:
    found: list[str] = []
    while (path := os.path.dirname(path)) != "/":
        found.append(path)
    return found[::-1]


def _granted(
    ground: Ground, terms: Mapping[str, Any], staged: Mapping[str, str], copies: Mapping[str, str]
) -> list[str]:
    found: list[str] = []
    made = {"/", WORK}
    shown = [*ground.readable, *copies, *staged]
    for option, granted in (("--ro-bind", terms["read"]), ("--bind", terms["write"])):
        for path in (str(path) for path, *_ in granted):
            others = [other for other in shown if other != path]
            found += [*_folders_to(path, made, others), option, staged[path], path]
    return found
