"""What a tool does with folders that it was granted."""

import ctypes
import errno
import os
import struct
from pathlib import Path


def read(path):
    return Path(path).read_text()


def plant(path, target):
    """Put a link in the place of a folder."""
    Path(path).rmdir()
    Path(path).symlink_to(target)
    return os.readlink(path)


def write(path, text):
    Path(path).write_text(text)
    return sorted(os.listdir(Path(path).parent))


def readable(paths):
    """Which of these can be read."""
    found = []
    for path in paths:
        try:
            Path(path).read_bytes()
        except OSError:
            continue
        found.append(path)
    return found


def identity():
    return os.getuid()


def listed(paths):
    """Which of these folders can be looked into."""
    found = []
    for path in paths:
        try:
            os.listdir(path)
        except OSError:
            continue
        found.append(path)
    return found


def many_values(kind):
    """A result that is small in bytes and dear to read, or the other way round."""
    if kind == "lists":
        return [[]] * 1_000_000
    if kind == "fields":
        return [{"a": 1}] * 60_000
    return {"text": ",[{" * 500_000, "escaped": '\\",[{' * 50_000}


def set_id(folder):
    """Make files that run with the rights of their owner, in every way; the errors of those that failed."""
    libc, failed = ctypes.CDLL(None, use_errno=True), []
    plain, made = Path(folder) / "plain", Path(folder)
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o755)

    def as_system_call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    ways = {
        "chmod": lambda: plain.chmod(0o4755),
        "setgid": lambda: plain.chmod(0o2755),
        "fchmod": lambda: os.fchmod(os.open(plain, os.O_RDWR), 0o4755),
        "fchmodat": lambda: os.chmod("plain", 0o4755, dir_fd=os.open(folder, os.O_RDONLY)),
        "open": lambda: os.open(made / "opened", os.O_CREAT | os.O_WRONLY, 0o4755),
        "openat": lambda: os.open(
            "at", os.O_CREAT | os.O_WRONLY, 0o6755, dir_fd=os.open(folder, os.O_RDONLY)
        ),
        "fchmodat2": lambda: as_system_call(452, -100, str(plain).encode(), 0o4755, 0),
        "openat2": lambda: as_system_call(
            437, -100, str(made / "two").encode(), struct.pack("QQQ", 0o101, 0o4755, 0), 24
        ),
    }
    for name, way in ways.items():
        try:
            way()
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                failed.append(name)
    return failed
