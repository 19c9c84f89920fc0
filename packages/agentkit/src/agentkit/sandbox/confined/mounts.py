"""A root of its own: what a child can name at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from .kernel import attach_mount, clone_mount, mount, pivot_root, restrict_mount

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives", "/etc/fonts", "/etc/magic"),
    *("/etc/services", "/etc/protocols", "/nix/store"),
)
"""Programs, libraries and public tables of a distribution: nothing in them is anybody's own."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

WORK = "/tmp"  # noqa: S108  (a file system of the call's own, which ends with it)

PASSWD, GROUP = "tool:x:1000:1000:tool:/tmp:/bin/sh\n", "tool:x:1000:\n"
"""Who lives in a sandbox."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_READ_ONLY, _NO_SET_UID, _NO_DEVICES = 1, 2, 4


Granted: TypeAlias = Sequence[str | int]
"""A path with the numbers of the device and inode that must be found there."""


def open_granted(granted: Granted) -> int:
    """A descriptor of what was granted.

    Raises:
        OSError: something else is there by now.
    """
    path, *identity = granted
    descriptor = os.open(str(path), os.O_PATH | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if [found.st_dev, found.st_ino] != identity:
        os.close(descriptor)
        raise OSError(errno.ESTALE, f"{path} was replaced after it was granted")
    return descriptor


def most_files(disk: int) -> int:
    """So many files and folders there may be where there may be so many bytes."""
    return disk // 4096 + 256


def outermost(paths: Iterable[str]) -> list[str]:
    """Those that do not lie below another one, without those that do not exist."""
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths if os.path.lexists(path)}):
        if not any(path == parent or path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def make_private() -> None:
    """Keep the mounts of this namespace from being seen in others.

    Raises:
        OSError: the kernel refused.
    """
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def build(root: str, readable: Iterable[str]) -> None:
    """Make a root at ``root`` that shows these paths, under their own names, and a few devices.

    What lies below the folder of the call's own files is left to :func:`enter`.

    Raises:
        OSError: the kernel refused.
    """
    mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m,nr_inodes=4096")
    for path in outermost(readable):
        if not is_own(path):
            _show(root, path)
    for device in DEVICES:
        _touch(root + device)
        mount(device, root + device, None, _MS_BIND)
    os.makedirs(root + WORK, mode=0o755, exist_ok=True)
    os.makedirs(root + "/etc", exist_ok=True)
    _write(root + "/etc/passwd", PASSWD)
    _write(root + "/etc/group", GROUP)


def seal(root: str) -> None:
    """Let nothing be made in a root any more.

    Raises:
        OSError: the kernel refused.
    """
    restrict_mount(root, _READ_ONLY, recursive=False)


def attach(granted: Granted, target: str, *, writable: bool) -> None:
    """Mount what was granted, and nothing else that may lie at its path by now.

    Raises:
        OSError: something else is there, or the kernel refused.
    """
    descriptor = open_granted(granted)
    mounted = clone_mount(descriptor)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        _touch(target)
    attach_mount(mounted, target)
    os.close(mounted)
    os.close(descriptor)
    restrict_mount(target, _attributes(writable=writable), recursive=True)


def _attributes(*, writable: bool) -> int:
    return _NO_SET_UID | _NO_DEVICES | (0 if writable else _READ_ONLY)


def _show(root: str, path: str) -> None:
    if os.path.islink(path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(os.readlink(path), root + path)
        return
    if os.path.isdir(path):
        os.makedirs(root + path, exist_ok=True)
    else:
        _touch(root + path)
    mount(path, root + path, None, _MS_BIND | _MS_REC)
    restrict_mount(root + path, _attributes(writable=False), recursive=True)


def _touch(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _write(path: str, text: str) -> None:
    with suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
        file.write(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one call sees.

    Attributes:
        readable: paths.
        granted_read: see :data:`Granted`.
        granted_write: as above.
        disk: bytes of the call's own files.
        owner: id of whoever writes there, in the namespace of users of this process.
    """

    readable: Sequence[str]
    granted_read: Sequence[Granted]
    granted_write: Sequence[Granted]
    disk: int
    owner: int


def enter(root: str, scene: Scene, *, built: bool) -> None:
    """Make ``root`` the root of this namespace of mounts, with a new folder for the call's own files.

    Args:
        root: where it is or shall be.
        scene: what is seen in it.
        built: it holds all of this already, except what lies below the folder of the call's own files.

    Raises:
        OSError: the kernel refused.
    """
    if not built:
        build(root, scene.readable)
        _grant(root, scene, own=False)
        seal(root)
    options = f"mode=0700,size={max(scene.disk, 4096)},nr_inodes={most_files(scene.disk)}"
    options += f",uid={scene.owner},gid={scene.owner}"
    mount("tmpfs", root + WORK, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    for path in outermost(scene.readable):
        if is_own(path):
            _show(root, path)
    _grant(root, scene, own=True)
    pivot_root(root)


def _grant(root: str, scene: Scene, *, own: bool) -> None:
    for paths, writable in ((scene.granted_read, False), (scene.granted_write, True)):
        for granted in paths:
            path = str(granted[0])
            if is_own(path) == own:
                attach(granted, root + path, writable=writable)


def shown(folder: str, landlock: int) -> list[str]:
    """What a root of mounts shows of a folder of Python's search path.

    With Landlock the whole folder, so that modules are found that are made later: of it only what can be imported may
    be read then. Not so where Landlock must allow everything: below the folder of the call's own files.
    """
    return [folder] if landlock and not is_own(folder) else importable(folder)


def is_own(path: str) -> bool:
    """It lies below the folder of the call's own files."""
    return path.startswith(WORK + "/")


def importable(folder: str) -> list[str]:
    """What Python could import from a folder of its search path: modules and packages, and no other file."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return [folder] if os.path.isfile(folder) else []  # a zip file, for one
    return [entry.path for entry in entries if _is_importable(entry.name, entry.path)]


def _is_importable(name: str, path: str) -> bool:
    if name.endswith((".py", ".pyc", ".so", ".pth", ".dist-info", ".egg-info")) or name == "__pycache__":
        return True
    return name.isidentifier() and _is_package(path)


def _is_package(path: str) -> bool:
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return False
        with os.scandir(path) as entries:
            return any(entry.name.endswith((".py", ".so")) for entry in entries)
    except OSError:
        return False
