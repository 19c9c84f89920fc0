"""Landlock: the files that this process, and each program that it becomes, can still reach."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from .kernel import (
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    syscall,
)

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE, _IOCTL_DEVICE = 1 << 1, 1 << 14, 1 << 15
_EXECUTE = 1 << 0
_NO_SPECIAL = (1 << 6) | (1 << 11)  # device nodes are never made
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE

LIST = _READ_DIR
"""See the names in a folder and in those below it."""
READ = _READ_FILE | _READ_DIR
"""Read files and folders."""
WRITE = 0xFFFF & ~_NO_SPECIAL & ~_EXECUTE
"""Read, write, make, move and remove."""

_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1


def abi() -> int:
    """The version of Landlock that the kernel offers; 0 for none."""
    try:
        return syscall(SYS_LANDLOCK_CREATE_RULESET, 0, 0, _VERSION_FLAG)
    except OSError:
        return 0


def _known(version: int) -> int:
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    return (1 << bits) - 1


def restrict(rules: Iterable[tuple[str | int, int]], version: int) -> None:
    """Reach only what ``rules`` name from now on, with no way back. Paths that do not exist are passed over.

    Where the kernel can, TCP, signals to others and abstract sockets of others are out of reach as well.

    Args:
        rules: paths, or descriptors, which are closed, with what may be done at and below each.
        version: as :func:`abi` said.

    Raises:
        OSError: the kernel refused.
    """
    known = _known(version)
    network = 3 if version >= 4 else 0
    scoped = 3 if version >= 6 else 0
    given = struct.pack("=QQQ", known, network, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    buffer = ctypes.create_string_buffer(given, len(given))
    ruleset = syscall(SYS_LANDLOCK_CREATE_RULESET, ctypes.addressof(buffer), size, 0)
    try:
        for path, access in rules:
            _allow(ruleset, path, access & known)
        syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: str | int, access: int) -> None:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC) if isinstance(place, str) else place
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        if access:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
            syscall(SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(descriptor)
