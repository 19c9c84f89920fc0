"""Copies of the modules in folders of Python's path. Children see nothing else of such a folder.

A folder on the path also holds what is no module: ``.env``, ``credentials.json``, a database. Mounts and rules of
Landlock are about folders, so what may be read is copied, file by file: modules, and data that a package declares.
Names that begin with a dot are never copied.
"""

from __future__ import annotations

import os
import shutil
import stat
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, cast

_CODE = (".py", ".pyc", ".so", ".pyi")
_ABOUT = (".dist-info", ".egg-info")
_DEEP = 32


def is_within(path: str, folders: Iterable[str]) -> bool:
    """``path`` is one of the folders, or below one."""
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def files_of(folder: str) -> Iterator[str]:
    """Modules below a folder of Python's path, and the data that its packages declare, by their relative paths."""
    for directory in _directories(folder, "", 0):
        yield from _files_in(folder, directory, declared_data(folder))


def _directories(folder: str, directory: str, depth: int) -> Iterator[str]:
    """The folder itself as an empty name, and what belongs to packages below it."""
    yield directory
    if depth == _DEEP:
        return
    for entry in _entries(folder, directory):
        path = _joined(directory, entry.name)
        if _is_folder(entry) and _may_hold_modules(os.path.join(folder, path), entry.name, directory):
            yield from _directories(folder, path, depth + 1)


def _may_hold_modules(path: str, name: str, parent: str) -> bool:
    if name == "__pycache__" or (not parent and name.endswith(_ABOUT)):
        return True
    if parent.endswith(_ABOUT):
        return True
    return name.isidentifier() and _has_code(path)


def _has_code(path: str) -> bool:
    with suppress(OSError), os.scandir(path) as entries:
        return any(entry.name.endswith((".py", ".so")) for entry in entries)
    return False


def _files_in(folder: str, directory: str, declared: dict[str, list[str]]) -> Iterator[str]:
    about = directory.partition("/")[0].endswith(_ABOUT)
    for entry in _entries(folder, directory):
        path = _joined(directory, entry.name)
        code = entry.name.endswith(_CODE) or (not directory and entry.name.endswith((".pth", *_ABOUT)))
        if (code or about or entry.name == "py.typed") and _is_file(entry):
            yield path
    for pattern in declared.get(directory.replace("/", "."), []) + (
        declared.get("*", []) if directory else []
    ):
        yield from _declared_in(folder, directory, pattern)


def _declared_in(folder: str, directory: str, pattern: str) -> Iterator[str]:
    """Files below a package that a pattern names, none of them hidden."""
    wanted = pattern.removeprefix("./").split("/")

    def matching(below: str, parts: list[str]) -> Iterator[str]:
        for entry in _entries(folder, below):
            path = _joined(below, entry.name)
            if parts[0] == "**" and _is_folder(entry):
                yield from matching(path, parts)
            for rest in (parts, parts[1:] if parts[0] == "**" else []):
                if rest and rest[0] != "**" and fnmatchcase(entry.name, rest[0]):
                    if len(rest) == 1 and _is_file(entry):
                        yield path
                    elif len(rest) > 1 and _is_folder(entry):
                        yield from matching(path, rest[1:])

    if ".." not in wanted:
        yield from matching(directory, wanted)


def declared_data(folder: str) -> dict[str, list[str]]:
    """What ``[tool.setuptools.package-data]`` says of the packages in a folder: patterns by the names of packages."""
    for place in (folder, os.path.dirname(folder)):
        with suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            with open(os.path.join(place, "pyproject.toml"), "rb") as file:
                table: dict[str, Any] = tomllib.load(file)
            for name in ("tool", "setuptools", "package-data"):
                inner = table.get(name)
                table = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
            return {name: [each for each in given if isinstance(each, str)] for name, given in table.items()}
    return {}


def _entries(folder: str, directory: str) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(os.path.join(folder, directory)) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
    return []


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_file()
    return False


class Modules:
    """Copies of folders of Python's path, brought up to date when a folder in them has changed.

    Args:
        root: folder in which they are kept.
        shown: folders that children see as a whole; of what lies in them no copies are made.

    Attributes:
        copies: where the copy of a folder is.
    """

    def __init__(self, root: str, shown: tuple[str, ...]) -> None:
        self.root = root
        self.copies: dict[str, str] = {}
        self._shown = shown
        self._seen: dict[str, list[tuple[str, int]]] = {}
        self._copied: dict[str, dict[str, tuple[int, int, int]]] = {}

    def update(self, folders: Iterable[str]) -> None:
        """Copy what is new in these folders, and forget what is gone."""
        for folder in folders:
            if is_within(folder, self._shown) or not os.path.isdir(folder):
                continue
            if folder not in self.copies:
                self.copies[folder] = copy = f"{self.root}/{len(self.copies)}"
                _make_folder(copy)
            elif all(_changed(path) == at for path, at in self._seen[folder]):
                continue
            self._update(folder, self.copies[folder])

    def make_room(self, paths: Iterable[str]) -> None:
        """Make the places in copies at which other paths are to be mounted.

        Args:
            paths: that exist, outside.
        """
        for path in paths:
            for folder, copy in self.copies.items():
                if path.startswith(folder + "/"):
                    _make_place(path, copy, path[len(folder) + 1 :])

    def _update(self, folder: str, copy: str) -> None:
        directories = [os.path.join(folder, directory) for directory in _directories(folder, "", 0)]
        project = [os.path.join(place, "pyproject.toml") for place in (folder, os.path.dirname(folder))]
        self._seen[folder] = [(path, _changed(path)) for path in (*directories, *project)]
        before, now = self._copied.get(folder, {}), dict[str, tuple[int, int, int]]()
        for file in dict.fromkeys(files_of(folder)):
            with suppress(OSError):
                found = os.stat(os.path.join(folder, file))
                now[file] = (found.st_ino, found.st_mtime_ns, found.st_size)
                if now[file] != before.get(file):
                    _make_folders(copy, os.path.dirname(file))
                    _copy(os.path.join(folder, file), os.path.join(copy, file), found)
        for file in before.keys() - now.keys():
            with suppress(OSError):
                os.unlink(os.path.join(copy, file))
        self._copied[folder] = now


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _make_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)  # noqa: S103  (children of another id read them)


def _make_folders(copy: str, directory: str) -> None:
    path = copy
    for name in filter(None, directory.split("/")):
        path = f"{path}/{name}"
        if not os.path.isdir(path):
            _make_folder(path)


def _make_place(path: str, copy: str, name: str) -> None:
    place = f"{copy}/{name}"
    if os.path.lexists(place):
        return
    is_link = os.path.islink(path)
    is_folder = not is_link and os.path.isdir(path)
    _make_folders(copy, name if is_folder else os.path.dirname(name))
    if is_link:
        os.symlink(os.readlink(path), place)
    elif not is_folder:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _copy(file: str, target: str, found: os.stat_result) -> None:
    """A copy that Python's cached bytecode fits, put in the place of an older one at once."""
    fresh = target + ".new"
    shutil.copyfile(file, fresh)
    os.chmod(fresh, 0o755 if found.st_mode & stat.S_IXUSR else 0o644)
    os.utime(fresh, ns=(found.st_mtime_ns, found.st_mtime_ns))
    os.rename(fresh, target)
