"""Seccomp filter of system calls: a small program that the kernel runs before each of them."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from .kernel import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, libc, machine, prctl
from .syscalls import (
    NUMBERS,
    OF_MEMORY,
    OF_METADATA,
    OF_OTHERS,
    OF_PROCESSES,
    OF_SOCKETS,
    OF_THE_SYSTEM,
)

Instruction: TypeAlias = tuple[int, int, int, int]

_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32 = 0x4000_0000
_LAST_KNOWN = 462
"""Calls that are younger than this table are answered as a kernel would that does not have them yet."""

_KILL, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45

_CLONE_THREAD = 0x0001_0000
_CLONE_NEW = 0x7E02_0080
_UNIX, _INET, _INET6 = 1, 2, 10
_STREAM = 1
_SET_ID = 0o6000
_MAKES_FILES = 0o20000100  # O_CREAT, and that of O_TMPFILE
_REFUSED_IOCTLS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into a terminal
_REFUSED_PRCTLS = (
    1,
    4,
    35,
    36,
    0x5961_6D61,
)  # the parent's death, dumps, memory map, subreaper, Yama's tracer


def is_known() -> bool:
    """There is a table for this machine."""
    return machine() in NUMBERS


class Program:
    """Instructions, written in order.

    Args:
        numbers: of the system calls of this machine.
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.code: list[Instruction] = []

    def say(self, code: int, value: int, when_true: int = 0, when_false: int = 0) -> None:
        """One instruction; the jumps count the instructions that are left out."""
        self.code.append((code, when_true, when_false, value))

    def answer(self, names: Iterable[str], answer: int) -> None:
        """Answer each of these calls in this way, whatever its arguments."""
        for name in names:
            if name in self.numbers:
                self.say(_EQUAL, self.numbers[name], 0, 1)
                self.say(_RETURN, answer)

    def only(self, name: str, argument: int, values: Sequence[int], mask: int = 0xFFFF_FFFF) -> None:
        """Refuse the call unless the argument (its lower 32 bits, of which ``mask`` is looked at) is one of these."""
        tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
        self._look(name, argument, [(_AND, 0, 0, mask), *tests, (_RETURN, 0, 0, _REFUSED)])

    def never(self, name: str, argument: int, values: Sequence[int]) -> None:
        """Refuse the call where the argument is one of these."""
        tests = [[(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _REFUSED)] for value in values]
        self._look(name, argument, [instruction for test in tests for instruction in test])

    def with_bits(self, name: str, argument: int, bits: int, *, allowed: bool) -> None:
        """Allow the call only with one of these bits, or only without any."""
        test = (_ANY_BIT, 1, 0, bits) if allowed else (_ANY_BIT, 0, 1, bits)
        self._look(name, argument, [test, (_RETURN, 0, 0, _REFUSED)])

    def new_files(self, name: str, flags: int, mode: int, bits: int) -> None:
        """Refuse the call where it may make a file (by the argument ``flags``) whose ``mode`` has one of these bits."""
        tests = [(_ANY_BIT, 0, 3, _MAKES_FILES), (_LOAD, 0, 0, 16 + 8 * mode), (_ANY_BIT, 0, 1, bits)]
        self._look(name, flags, [*tests, (_RETURN, 0, 0, _REFUSED)])

    def _look(self, name: str, argument: int, tests: list[Instruction]) -> None:
        """Tests of an argument, at whose end whoever was not refused is looked at further."""
        if name not in self.numbers:
            return
        self.say(_EQUAL, self.numbers[name], 0, len(tests) + 2)
        self.say(_LOAD, 16 + 8 * argument)
        self.code += tests
        self.say(_LOAD, 0)  # the number again

    def packed(self) -> bytes:
        """As the kernel reads it."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self.code)


_REFUSED = _ERRNO | errno.EPERM
_MISSING = _ERRNO | errno.ENOSYS


def _begin() -> Program:
    program = Program(NUMBERS[machine()])
    program.say(_LOAD, 4)
    program.say(_EQUAL, _AUDIT_ARCH[machine()], 1, 0)
    program.say(_RETURN, _KILL)
    program.say(_LOAD, 0)
    if machine() == "x86_64":
        program.say(_AT_LEAST, _X32, 0, 1)
        program.say(_RETURN, _KILL)
    program.say(_GREATER, _LAST_KNOWN, 0, 1)
    program.say(_RETURN, _MISSING)
    return program


def for_function(process: int, *, metadata: bool) -> bytes:
    """The filter for one process that makes no other: threads, files and arithmetic are left.

    Args:
        process: its id, as it sees it itself, which alone gets signals from it.
        metadata: it may change modes, owners and times of files; else that does nothing, and says so to nobody.
    """
    program = _begin()
    # the flags of clone3 cannot be read here; the C library falls back to clone
    program.answer(("clone3", "memfd_create", "memfd_secret"), _MISSING)
    program.answer(("socket",), _ERRNO | errno.EACCES)
    program.answer((*OF_PROCESSES, *OF_SOCKETS, *OF_OTHERS, *OF_MEMORY, *OF_THE_SYSTEM), _REFUSED)
    if not metadata:
        program.answer(OF_METADATA, _ERRNO)
    program.with_bits("clone", 0, _CLONE_THREAD, allowed=True)
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        program.only(name, 0, (process,))
    program.only("socketpair", 0, (_UNIX,))
    program.only("socketpair", 1, (_STREAM,), 0xF)  # a datagram could still be sent to any name
    program.only("prlimit64", 0, (0, process))
    _common(program)
    return program.packed()


def for_programs(*, network: bool) -> bytes:
    """The filter for programs in a jail: they may make processes and talk to each other.

    Args:
        network: they may use the jail's own loopback, behind which nothing is but the broker.
    """
    program = _begin()
    program.answer(("clone3", "memfd_create", "memfd_secret"), _MISSING)
    among_themselves = {"pidfd_open", "pidfd_send_signal", "tkill"}
    others = [name for name in OF_OTHERS if name not in among_themselves]
    program.answer((*others, *OF_MEMORY, *OF_THE_SYSTEM), _REFUSED)
    program.with_bits("clone", 0, _CLONE_NEW, allowed=False)
    program.only("socket", 0, (_UNIX, _INET, _INET6) if network else (_UNIX,))
    program.only("socketpair", 0, (_UNIX,))
    _common(program)
    return program.packed()


def _no_set_id(program: Program) -> None:
    """No file is made that runs with the rights of its owner: it would be the worker's, or another tool's, user."""
    for name, mode in {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1}.items():
        program.with_bits(name, mode, _SET_ID, allowed=False)
    program.new_files("open", 1, 2, _SET_ID)
    program.new_files("openat", 2, 3, _SET_ID)
    # its mode cannot be read here; whoever calls it falls back to openat
    program.answer(("openat2",), _MISSING)


def _common(program: Program) -> None:
    _no_set_id(program)
    program.never("ioctl", 1, _REFUSED_IOCTLS)
    program.never("prctl", 0, _REFUSED_PRCTLS)
    program.only("personality", 0, (0, 0xFFFF_FFFF))
    program.say(_RETURN, _ALLOW)


def install(filter_: bytes) -> None:
    """Put this process, its later threads and children under a filter, for good.

    Raises:
        OSError: the kernel refused.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(filter_, len(filter_))
    program = ctypes.create_string_buffer(
        struct.pack("@HP", len(filter_) // 8, ctypes.addressof(code)), struct.calcsize("@HP")
    )
    mode_filter = 2
    if libc.prctl(PR_SET_SECCOMP, mode_filter, ctypes.c_void_p(ctypes.addressof(program)), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")
