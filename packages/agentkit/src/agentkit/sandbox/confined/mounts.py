"""Mounts of a child: a root of its own with all the paths that it can name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from .kernel import attach_mount, clone_mount, mount, pivot_root, restrict_mount

SYSTEM = (
    *("/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store"),
    *(f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")),
    *(f"/usr/{name}" for name in ("libexec", "share", "include", "games")),
    *(
        f"/usr/local/{name}"
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "share", "include")
    ),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"),
    *(
        "/etc/pki/tls/certs",
        "/etc/pki/tls/cert.pem",
        "/etc/pki/tls/openssl.cnf",
        "/etc/pki/ca-trust/extracted",
    ),
    *("/etc/ca-certificates", "/var/lib/ca-certificates", "/etc/crypto-policies"),
    *("/etc/alternatives", "/etc/fonts", "/etc/magic", "/etc/services", "/etc/protocols"),
)
"""Programs, libraries and public tables of a distribution: nothing in them is anybody's own.

Not ``/usr`` as a whole: applications, with their configuration, lie in ``/usr/src`` and ``/usr/local``; and nothing of
``/etc`` but what everybody may know.
"""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

WORK = "/tmp"  # noqa: S108  (a file system of the call's own, which ends with it)

PASSWD, GROUP = "tool:x:1000:1000:tool:/tmp:/bin/sh\n", "tool:x:1000:\n"
"""Who lives in a sandbox."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_READ_ONLY, _NO_SET_UID, _NO_DEVICES = 1, 2, 4
_WITH_MOUNT = 3


Granted: TypeAlias = Sequence[str | int]
"""A path, the numbers of the device and inode that must be found there, and a descriptor of a mount of it, if any."""


def open_granted(granted: Granted) -> int:
    """A descriptor of what was granted.

    Raises:
        OSError: something else is there by now.
    """
    path, *identity = granted[:3]
    descriptor = os.open(str(path), os.O_PATH | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if [found.st_dev, found.st_ino] != identity:
        os.close(descriptor)
        raise OSError(errno.ESTALE, f"{path} was replaced after it was granted")
    return descriptor


def max_files(disk: int) -> int:
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


def build(root: str, readable: Iterable[str], copies: Mapping[str, str]) -> None:
    """Make a root at ``root`` that shows these paths, under their own names, and a few devices.

    What lies below the folder of the call's own files is left to :func:`enter`.

    Args:
        root: a folder.
        readable: paths that are shown as they are.
        copies: paths in the place of which others are shown.

    Raises:
        OSError: the kernel refused.
    """
    mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m,nr_inodes=4096")
    _show_all(root, readable, copies, own=False)
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
    if len(granted) > _WITH_MOUNT:
        descriptor = mounted = int(granted[_WITH_MOUNT])
    else:
        descriptor = open_granted(granted)
        mounted = clone_mount(descriptor)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        _touch(target)
    attach_mount(mounted, target)
    for each in {mounted, descriptor}:
        os.close(each)
    restrict_mount(target, _attributes(writable=writable), recursive=True)


def _attributes(*, writable: bool) -> int:
    return _NO_SET_UID | _NO_DEVICES | (0 if writable else _READ_ONLY)


def _show_all(root: str, readable: Iterable[str], copies: Mapping[str, str], *, own: bool) -> None:
    for path in sorted({*outermost(readable), *copies}):
        if is_own(path) == own:
            _show(root, path, copies.get(path, path))


def _show(root: str, path: str, source: str) -> None:
    if os.path.islink(source):
        if not os.path.lexists(root + path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.readlink(source), root + path)
        return
    if os.path.isdir(source):
        os.makedirs(root + path, exist_ok=True)
    elif not os.path.lexists(root + path):
        _touch(root + path)
    mount(source, root + path, None, _MS_BIND | _MS_REC)
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
        copies: paths in the place of which others are shown.
        granted_read: see :data:`Granted`.
        granted_write: as above.
        disk: bytes of the call's own files.
        owner: id of whoever writes there, in the namespace of users of this process.
    """

    readable: Sequence[str]
    copies: Mapping[str, str]
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
        build(root, scene.readable, scene.copies)
        _grant(root, scene, own=False)
        seal(root)
    options = f"mode=0700,size={max(scene.disk, 4096)},nr_inodes={max_files(scene.disk)}"
    options += f",uid={scene.owner},gid={scene.owner}"
    mount("tmpfs", root + WORK, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    _show_all(root, scene.readable, scene.copies, own=True)
    _grant(root, scene, own=True)
    pivot_root(root)


def _grant(root: str, scene: Scene, *, own: bool) -> None:
    for paths, writable in ((scene.granted_read, False), (scene.granted_write, True)):
        for granted in paths:
            path = str(granted[0])
            if is_own(path) == own:
                attach(granted, root + path, writable=writable)


def is_own(path: str) -> bool:
    """It lies below the folder of the call's own files."""
    return path.startswith(WORK + "/")
