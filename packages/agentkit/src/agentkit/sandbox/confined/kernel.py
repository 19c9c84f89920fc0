"""Linux, through the C library: what Python has no function for."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# the same on every architecture, as they are younger than the common table
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_CLOSE_RANGE = 436
SYS_MOUNT_SETATTR = 442
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446

_CAPSET = {"x86_64": 126, "aarch64": 91}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x2008_0522

_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_CLONE_TREE = 1 | 0x8_0000 | _AT_EMPTY_PATH | _AT_RECURSIVE  # OPEN_TREE_CLONE, O_CLOEXEC
_MOVE_FROM_DESCRIPTOR = 4
_MOUNT_ATTR_IDMAP = 0x10_0000

libc: Any = ctypes.CDLL(None, use_errno=True)


def machine() -> str:
    """The architecture, as the kernel calls it: ``x86_64``, ``aarch64``."""
    return os.uname().machine


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: int) -> int:
    """What the system call returns.

    Raises:
        OSError: it failed.
    """
    given = [ctypes.c_long(argument) for argument in arguments]
    return _checked(libc.syscall(ctypes.c_long(number), *given), f"system call {number}")


def prctl(option: int, argument: int = 0) -> None:
    """Set a property of this process.

    Raises:
        OSError: the kernel refused.
    """
    _checked(libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), f"prctl {option}")


def close_from(low: int, high: int = 0xFFFF_FFFF) -> None:
    """Close all descriptors from ``low`` to ``high``, both included.

    Not by :func:`os.closerange`: where Python was built for an older C library that tries each single one.
    """
    try:
        syscall(SYS_CLOSE_RANGE, low, high, 0)
    except OSError:  # before Linux 5.9
        os.closerange(low, min(high, 1 << 20) + 1)


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` name for new ones.

    Raises:
        OSError: the kernel, or a filter of the container, does not allow it.
    """
    _checked(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount something.

    Raises:
        OSError: the kernel refused.
    """
    kind_, options_ = (None if text is None else text.encode() for text in (kind, options))
    done = libc.mount(os.fsencode(source), os.fsencode(target), kind_, ctypes.c_ulong(flags), options_)
    _checked(done, f"mount on {target}")


def unmount(target: str, flags: int) -> None:
    """Unmount something.

    Raises:
        OSError: the kernel refused.
    """
    _checked(libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def restrict_mount(target: str, attributes: int, *, recursive: bool) -> None:
    """Set attributes of a mount and, where wanted, of all below it.

    Raises:
        OSError: the kernel refused.
    """
    given = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0), 32)
    path = ctypes.create_string_buffer(os.fsencode(target))
    at_recursive = _AT_RECURSIVE if recursive else 0
    syscall(SYS_MOUNT_SETATTR, -100, ctypes.addressof(path), at_recursive, ctypes.addressof(given), 32)


def clone_mount(descriptor: int) -> int:
    """A copy of the mount at a file or folder, with all below it: a descriptor of what is not attached anywhere yet.

    Args:
        descriptor: of the file or folder, in this mount namespace.

    Raises:
        OSError: the kernel refused.
    """
    nothing = ctypes.create_string_buffer(b"")
    return syscall(SYS_OPEN_TREE, descriptor, ctypes.addressof(nothing), _CLONE_TREE)


def attach_mount(mounted: int, target: str) -> None:
    """Attach what :func:`clone_mount` made.

    Raises:
        OSError: the kernel refused.
    """
    nothing, path = (ctypes.create_string_buffer(os.fsencode(each)) for each in ("", target))
    arguments = mounted, ctypes.addressof(nothing), -100, ctypes.addressof(path)
    syscall(SYS_MOVE_MOUNT, *arguments, _MOVE_FROM_DESCRIPTOR)


def map_mount_ids(mounted: int, namespace: int) -> None:
    """Have a mount, with all below it, show owners as a namespace of users maps them.

    Args:
        mounted: what :func:`clone_mount` made, and was not attached yet.
        namespace: descriptor of the namespace.

    Raises:
        OSError: the kernel refused, or the file system cannot.
    """
    given = ctypes.create_string_buffer(struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace), 32)
    nothing = ctypes.create_string_buffer(b"")
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    syscall(SYS_MOUNT_SETATTR, mounted, ctypes.addressof(nothing), flags, ctypes.addressof(given), 32)


def pivot_root(new_root: str) -> None:
    """Make ``new_root`` the root of this mount namespace, with nothing left of the old one.

    Raises:
        OSError: the kernel refused.
    """
    os.chdir(new_root)
    here = ctypes.create_string_buffer(b".")
    syscall(_PIVOT_ROOT[machine()], ctypes.addressof(here), ctypes.addressof(here))
    unmount(".", 2)  # MNT_DETACH: the old root lies on the new one
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for good.

    Raises:
        OSError: the kernel refused.
    """
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    nothing = ctypes.create_string_buffer(24)
    syscall(_CAPSET[machine()], ctypes.addressof(header), ctypes.addressof(nothing))
