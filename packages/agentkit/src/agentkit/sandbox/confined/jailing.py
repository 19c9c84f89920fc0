"""How bubblewrap is told to make a jail: what is seen in it, and as whom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .child import Ground, is_within
from .mounts import GROUP, PASSWD, SYSTEM, WORK, Granted, importable, outermost

JAIL = 3
"""The descriptor at which a jail finds its supervisor."""

OUTER_PROC = JAIL + 1
"""The descriptor at which its launcher finds a ``/proc`` in which ids can be mapped; that of the jail is read-only."""

TABLES = JAIL + 2
"""The first of the descriptors that hold the tables of a jail."""

SCRATCH = (WORK, "/dev/shm")  # noqa: S108  (in the jail)
"""Folders of a jail's own files: their bytes are limited by the kernel, their number is not."""

_TABLES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf")


def arguments(ground: Ground, terms: Mapping[str, Any], staged: Mapping[str, str]) -> list[str]:
    """The program that makes a jail on these terms, with its arguments; within it the launcher waits.

    Args:
        ground: of the fork server, which knows the programs.
        terms: paths that are granted, folders of modules, and bytes of the jail's own files.
        staged: where what was granted is mounted, by its path.
    """
    disk = str(terms["limits"]["disk"])
    programs = ground.programs
    return [
        programs["bubblewrap"],
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *_identity(ground, listens=bool(terms["doors"])),
        *("--die-with-parent", "--new-session", "--hostname", "jail"),
        *_shown(ground, terms["path"]),
        *_tabled(tables(terms)),
        # read-only: whoever has the id of root outside could write to the settings of the kernel, capabilities or not
        *("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", disk, "--tmpfs", "/dev/shm"),  # noqa: S108  (in the jail)
        *("--perms", "1777", "--size", disk, "--tmpfs", WORK),
        *_shown(ground, terms["path"], below=WORK),
        *_granted("--ro-bind", terms["read"], staged),
        *_granted("--bind", terms["write"], staged),
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


def _shown(ground: Ground, folders: Sequence[str], below: str = "") -> list[str]:
    found: list[str] = []
    made = {"/", WORK}
    paths = [*SYSTEM, *ground.libraries]
    for folder in folders:
        if not is_within(folder, ground.libraries):
            paths += importable(folder)
    for path in outermost(paths):
        if path.startswith(WORK + "/") == bool(below):
            parents = [parent for parent in _parents(path) if parent not in made]
            made.update(parents)
            # open to everybody: bubblewrap would give them the modes that they have outside
            found += [part for parent in parents for part in ("--perms", "0755", "--dir", parent)]
            if os.path.islink(path):
                found += ["--symlink", os.readlink(path), path]
            else:
                found += ["--ro-bind", path, path]
    return found


def _parents(path: str) -> list[str]:
    found: list[str] = []
    while (path := os.path.dirname(path)) != "/":
        found.append(path)
    return found[::-1]


def _granted(option: str, granted: Sequence[Granted], staged: Mapping[str, str]) -> list[str]:
    return [part for path, *_ in granted for part in (option, staged[str(path)], str(path))]
