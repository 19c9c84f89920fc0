"""What a tool does with folders that it was granted."""

import os
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
