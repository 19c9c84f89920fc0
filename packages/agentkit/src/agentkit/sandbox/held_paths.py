"""Granted paths, resolved once and held open.

A path is resolved when it is granted, and never again: what a name leads to later may have been planted by the code of
another tool. An ``O_PATH`` descriptor keeps the inode alive, so that its number names this file or folder and no other
one for as long as the grant exists; the process that opens the path later compares the number.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from agentkit.errors import UsageError

_NEVER = frozenset({"/", "/proc", "/sys", "/dev"})
_MAX_LINKS = 40
"""As many as the kernel follows."""


class HeldPath:
    """A file or folder as it was when it was granted.

    Args:
        given: the path as it was written.

    Attributes:
        given: see above.
        path: where it truly was, links followed.
        folders: every folder in which a name was looked up to get there, each as it truly was.
        problem: why it cannot be granted; empty where it can be.
        descriptor: opened with ``O_PATH``; closed when the object goes away, -1 where there is a problem.
        identity: numbers of its device and inode.
    """

    __slots__ = ("__weakref__", "descriptor", "folders", "given", "identity", "path", "problem")

    def __init__(self, given: Path | str) -> None:
        self.given = str(given)
        self.path, self.folders = self.given, list[str]()
        self.descriptor, self.identity = -1, (0, 0)
        self.problem = self._open()

    def _open(self) -> str:
        if not self.given.startswith("/"):
            return f"a path is granted as an absolute one, not as {self.given!r}"
        try:
            self.path, self.folders = _resolved(self.given)
            if self.path in _NEVER or self.path.startswith(("/proc/", "/sys/")):
                return f"{self.path} cannot be granted: it is the machine itself"
            self.descriptor = os.open(self.path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW)
        except OSError as error:
            return (
                f"{self.given} is granted, and does not exist ({error.strerror}); create it, then start again"
            )
        weakref.finalize(self, os.close, self.descriptor)
        found = os.fstat(self.descriptor)
        self.identity = found.st_dev, found.st_ino
        return ""

    def check(self) -> None:
        """See whether it can be granted still.

        Raises:
            UsageError: it could not be resolved when it was granted, or has been replaced since then.
        """
        if self.problem:
            raise UsageError(self.problem)
        try:
            found = os.lstat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            message = (
                f"{self.given} is granted, and was replaced after the configuration was read: start again"
            )
            message += " to grant what is there now"
            raise UsageError(message)

    @property
    def is_folder(self) -> bool:
        """It is a folder."""
        return self.descriptor >= 0 and stat.S_ISDIR(os.fstat(self.descriptor).st_mode)

    def as_sent(self) -> list[str | int]:
        """As a fork server reads it: the path, and what must be found there."""
        return [self.path, *self.identity]


def _resolved(given: str) -> tuple[str, list[str]]:
    """The true path, and each folder that was gone through.

    Raises:
        OSError: something on the way does not exist.
    """
    here, folders, links = "/", dict[str, None](), 0
    names = deque(given.split("/"))
    while names:
        name = names.popleft()
        if name in {"", "."}:
            continue
        if name == "..":
            here = here.rpartition("/")[0] or "/"
            continue
        folders[here] = None
        path = os.path.join(here, name)  # noqa: PTH118  (nothing may be normalized)
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            here = path
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(40, "too many links")
        target = os.readlink(path)  # noqa: PTH115  (as above)
        here = "/" if target.startswith("/") else here
        names.extendleft(reversed(target.split("/")))
    os.lstat(here)
    return here, list(folders)


def is_below(path: str, folder: str) -> bool:
    """``path`` is ``folder``, or lies below it. Both are true paths."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def outermost(paths: Iterable[HeldPath], others: Sequence[HeldPath] = ()) -> tuple[HeldPath, ...]:
    """Those that do not lie below another one, nor at or below one of ``others``."""
    kept: list[HeldPath] = []
    for path in sorted(paths, key=lambda each: each.path):
        if path.problem or not any(is_below(path.path, other.path) for other in (*kept, *others)):
            kept.append(path)
    return tuple(kept)
