"""File tools: they read the text files of one directory, and nothing outside it.

How the directory is kept: a path is taken apart and each part is opened relative to the one before, never following a
symbolic link, so there is no moment between a check and its use. A link is refused wherever it points, also inside the
directory. Names that begin with a dot are out of reach: that is where keys and histories live. Where the operating
system cannot open relative to a directory (Windows), the parts are checked one by one before the file is opened; a
process that exchanges them meanwhile is then not defended against.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypedDict

from agentkit.errors import ToolError
from agentkit.machine_errors import machine_error
from agentkit.messages import Effect
from agentkit.tools.builtin.text import TextStatistics, literal, statistics
from agentkit.tools.functions import Tool

Parts: TypeAlias = tuple[str, ...]

MAX_FILE_BYTES = 10_000_000
MAX_SEARCHED_CHARACTERS = 50_000_000
MAX_ENTRIES = 20_000
"""Names looked at in one walk."""
MAX_LISTED = 500
MAX_MATCHES = 100
MAX_EXCERPT = 200
MAX_PATTERN = 300
TIMEOUT_SECONDS = 30.0

_RELATIVE = os.open in os.supports_dir_fd and os.scandir in os.supports_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_FILE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
"""Opening a named pipe would otherwise wait for its other end."""


class Listing(TypedDict):
    """What a directory holds.

    Attributes:
        files: paths from the directory on, with ``/``.
        folders: the same, for folders.
        complete: nothing was left out.
    """

    files: list[str]
    folders: list[str]
    complete: bool


class Match(TypedDict):
    """One line of a file in which something was found; ``line`` counts from 1."""

    path: str
    line: int
    text: str


class Findings(TypedDict):
    """What a search has found.

    Attributes:
        occurrences: how often, in all files together.
        files: how many files were searched.
        matches: the first lines that hold it.
        complete: every file was searched; ``matches`` may be shortened all the same.
    """

    occurrences: int
    files: int
    matches: list[Match]
    complete: bool


class DirectoryReader:
    """Tools that list, read and search the text files of one directory.

    Args:
        root: the directory; it need not exist before a tool is called.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()

    @property
    def tools(self) -> list[Tool]:
        """``list_files``, ``read_text``, ``file_statistics`` and ``find_in_files``."""
        functions = (self.list_files, self.read_text, self.file_statistics, self.find_in_files)
        return [
            Tool(function, effect=Effect.PURE, timeout=TIMEOUT_SECONDS, sandbox="inprocess")
            for function in functions
        ]

    def list_files(self, pattern: str = "*") -> Listing:
        """List the files and folders whose path fits a pattern. Hidden ones and links are left out.

        Args:
            pattern: * and ? stand for parts of a name, ** for any number of folders: *, docs/*.md, **/*.py
        """
        found = Listing(files=[], folders=[], complete=True)
        walk = _Walk(self.root, pattern)
        for parts, is_folder in walk:
            if len(found["files"]) + len(found["folders"]) == MAX_LISTED:
                found["complete"] = False
                break
            found["folders" if is_folder else "files"].append(_shown(parts))
        found["complete"] = found["complete"] and walk.complete
        return found

    def read_text(self, path: str, max_characters: int = 20_000, start: int = 0) -> str:
        """Read a text file (UTF-8). Where it is longer, the last line says how to read on.

        Args:
            path: from the directory on, such as docs/notes.txt
            max_characters: how much to read at most
            start: how many characters to skip
        """
        if max_characters < 1 or start < 0:
            raise ToolError("max_characters must be at least 1, and start at least 0")
        text = self._text(_parts(path))
        end = start + max_characters
        if end >= len(text):
            return text[start:]
        return f"{text[start:end]}\n[cut: {len(text)} characters in all; read on with start={end}]"

    def file_statistics(self, path: str) -> TextStatistics:
        """Count the characters, words, lines and sentences of a text file.

        Args:
            path: from the directory on, such as docs/notes.txt
        """
        return statistics(self._text(_parts(path)))

    def find_in_files(
        self, text: str, pattern: str = "**/*", whole_words: bool = False, ignore_case: bool = True
    ) -> Findings:
        """Search the text files whose path fits a pattern; tells how often something occurs, and in which lines.

        Args:
            text: what to look for within a line, taken literally
            pattern: which files: README.md, docs/*.md, **/*.py
            whole_words: find it only where no letter, digit or underscore touches it
            ignore_case: capital and small letters are the same
        """
        wanted = literal(text, whole_words=whole_words, ignore_case=ignore_case)
        findings = Findings(occurrences=0, files=0, matches=[], complete=True)
        walk = _Walk(self.root, pattern)
        left = MAX_SEARCHED_CHARACTERS
        for parts, is_folder in walk:
            if is_folder:
                continue
            try:
                content = self._text(parts)
            except ToolError:
                continue  # no text, or gone since it was listed
            left -= len(content)
            if left < 0:
                findings["complete"] = False
                break
            findings["files"] += 1
            for match in _matching_lines(wanted, _shown(parts), content, findings):
                findings["matches"].append(match)
        findings["complete"] = findings["complete"] and walk.complete
        if not findings["files"] and findings["complete"]:
            raise ToolError("there is no such file: no text file fits the pattern")
        return findings

    def _text(self, parts: Parts) -> str:
        with _opened(self.root, parts, _FILE) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ToolError("this is not a file but a folder or a device")
            if status.st_size > MAX_FILE_BYTES:
                raise ToolError(f"the file is larger than {MAX_FILE_BYTES} bytes")
            content = _read(file)
        if b"\0" in content:
            raise ToolError("this is not a text file in UTF-8")
        return content.decode("utf-8-sig", errors="replace")


class _Walk:
    """The files and folders below ``root`` that fit ``pattern``, near ones first, each folder in alphabetical order.

    Attributes:
        complete: nothing was left out; meaningful once the iteration has ended.
    """

    def __init__(self, root: Path, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise ToolError(f"the pattern is longer than {MAX_PATTERN} characters")
        self.complete = True
        self._root = root
        self._pattern = _parts(pattern)

    def __iter__(self) -> Iterator[tuple[Parts, bool]]:
        seen = 0
        folders: deque[tuple[Parts, frozenset[int]]] = deque([((), self._closed({0}))])
        while folders:
            folder, places = folders.popleft()
            for name, is_folder in self._entries(folder):
                seen += 1
                if seen > MAX_ENTRIES:
                    self.complete = False
                    return
                reached = self._step(places, name)
                if len(self._pattern) in reached:
                    yield (*folder, name), is_folder
                if is_folder and reached - {len(self._pattern)}:
                    folders.append(((*folder, name), reached))

    def _entries(self, folder: Parts) -> list[tuple[str, bool]]:
        try:
            with _scanned(self._root, folder) as entries:
                return sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if _is_plain(entry)
                )
        except (ToolError, OSError) as error:
            if machine_error(error) is not None:
                raise
            if not folder:
                raise ToolError("the directory cannot be read") from None
            return []  # gone, or closed to this user

    def _step(self, places: frozenset[int], name: str) -> frozenset[int]:
        """Where in the pattern one can stand after ``name``: all ways at once, so no pattern takes long."""
        reached: set[int] = set()
        for place in places - {len(self._pattern)}:
            part = self._pattern[place]
            if part == "**":
                reached.add(place)
            elif fnmatch.fnmatchcase(name, part):
                reached.add(place + 1)
        return self._closed(reached)

    def _closed(self, places: set[int]) -> frozenset[int]:
        """``places``, and those reached because ``**`` may stand for no folder at all."""
        for place in sorted(places):
            while place < len(self._pattern) and self._pattern[place] == "**":
                place += 1  # noqa: PLW2901
                places.add(place)
        return frozenset(places)


def _is_plain(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)


def _matching_lines(wanted: re.Pattern[str], path: str, content: str, findings: Findings) -> Iterator[Match]:
    """The lines to show; adds all occurrences to ``findings``."""
    for number, line in enumerate(content.split("\n"), start=1):
        first = wanted.search(line)
        if first is None:
            continue
        findings["occurrences"] += sum(1 for _ in wanted.finditer(line))
        if len(findings["matches"]) < MAX_MATCHES:
            begin = max(0, first.start() - MAX_EXCERPT // 2)
            yield Match(path=path, line=number, text=line[begin : begin + MAX_EXCERPT].strip())


def _parts(path: str) -> Parts:
    """A path or pattern, taken apart.

    Raises:
        ToolError: it leads out of the directory, or to a hidden file.
    """
    given = path.replace("\\", "/") if os.name == "nt" else path
    if given.startswith(("/", "~")) or (os.name == "nt" and ":" in given) or "\0" in given:
        raise ToolError("the path must be relative to the directory, such as docs/notes.txt")
    parts = tuple(part for part in given.split("/") if part not in {"", "."})
    if ".." in parts:
        raise ToolError("the path must not contain ..; only files below the directory can be read")
    if any(part.startswith(".") for part in parts):
        raise ToolError("hidden files, whose names begin with a dot, cannot be read")
    return parts


def _shown(parts: Parts) -> str:
    return "/".join(parts).encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


@contextmanager
def _scanned(root: Path, folder: Parts) -> Generator[Iterator[os.DirEntry[str]]]:
    if _RELATIVE:
        with _opened(root, folder, _DIRECTORY) as descriptor, os.scandir(descriptor) as entries:
            yield entries
    else:
        with os.scandir(_checked(root, folder)) as entries:
            yield entries


@contextmanager
def _opened(root: Path, parts: Parts, flags: int) -> Generator[int]:
    """A descriptor of what ``parts`` names below ``root``, closed at the end.

    Raises:
        ToolError: it cannot be opened; the text names no path.
        OSError: the machine lacks something: that says nothing about the file.
    """
    try:
        descriptor = (
            _open_relative(root, parts, flags) if _RELATIVE else os.open(_checked(root, parts), flags)
        )
    except (OSError, ValueError) as error:  # ValueError: a name that this system cannot express
        if machine_error(error) is not None:
            raise
        raise ToolError(_reason(error)) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_relative(root: Path, parts: Parts, flags: int) -> int:
    current = os.open(root, os.O_RDONLY | (_DIRECTORY if parts else flags))
    for place, part in enumerate(parts, start=1):
        last = place == len(parts)
        try:
            following = os.open(
                part, os.O_RDONLY | _NOFOLLOW | (flags if last else _DIRECTORY), dir_fd=current
            )
        finally:
            os.close(current)
        current = following
    return current


def _checked(root: Path, parts: Parts) -> Path:
    """Where opening relative to a directory is not possible: the path, if no link is on it."""
    path = root
    for part in parts:
        path /= part
        if stat.S_ISLNK(path.lstat().st_mode):
            raise OSError(errno.ELOOP, "a link")
    if not path.resolve().is_relative_to(root):
        raise OSError(errno.ELOOP, "a link")
    return path


def _reason(error: OSError | ValueError) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT | errno.ENAMETOOLONG | errno.EINVAL | None:
            return "there is no such file"
        case errno.ELOOP | errno.EMLINK:  # EMLINK: FreeBSD
            return "this is a symbolic link; links are not followed"
        case errno.ENOTDIR:
            return "there is no such file: a part of the path is not a folder, or a symbolic link"
        case errno.EACCES | errno.EPERM:
            return "permission to read it is missing"
        case _:
            return "it cannot be read"


def _read(file: int) -> bytes:
    """The whole content, also where it has grown since its size was looked at."""
    pieces: list[bytes] = []
    size = 0
    while piece := os.read(file, 1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise ToolError(f"the file is larger than {MAX_FILE_BYTES} bytes")
    return b"".join(pieces)
