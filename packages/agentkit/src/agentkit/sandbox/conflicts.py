"""Grants that would undo each other, or the rules themselves.

A tool that may write a folder chooses what the names in it lead to. So nothing that is granted to another tool, and
nothing that is trusted (code, configuration, the store), may be found by a name in a folder that a tool may write.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from agentkit.errors import UsageError
from agentkit.sandbox.held_paths import HeldPath, is_below
from agentkit.sandbox.terms import Grants

_CODE = (".py", ".so")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A file or folder that no tool may write.

    Attributes:
        what: it is, for the error: ``the configuration``.
        path: of it; it need not exist yet.
        secret: no tool may read it, either: it holds what other tools, tenants or people have said, or tokens.
    """

    what: str
    path: Path | str
    secret: bool = False


def check_grants(grants: Mapping[str, Grants], trusted: Iterable[Trusted] = ()) -> None:
    """See whether what tools may write leaves alone what is granted to others, and what is trusted.

    Args:
        grants: of all tools and servers of a process, each by what errors call it.
        trusted: beside the modules of this process, its path, and its interpreter.

    Raises:
        UsageError: it does not; the message names both.
    """
    trusted = list(trusted)
    _check_secret(grants, [each for each in trusted if each.secret])
    writable = [(name, held) for name, each in grants.items() for held in each.held_write if not held.problem]
    if not writable:
        return
    kept = [(each.what, *_ways(each.path)) for each in trusted]
    kept += [("a folder of Python's path", *_ways(folder)) for folder in _folders_of_code()]
    for writer, folder in writable:
        for what, path, ways in kept:
            if any(is_below(way, folder.path) for way in (path, *ways)):
                raise UsageError(_refusal(writer, folder, f"{what} ({path}) lies there"))
        if (why := _why_code(folder)) is not None:
            raise UsageError(_refusal(writer, folder, why))
    for name, each in grants.items():
        for held in (*each.held_read, *each.held_write):
            for writer, folder in writable:
                _check_pair(name, held, writer, folder)


def _check_secret(grants: Mapping[str, Grants], secret: Iterable[Trusted]) -> None:
    """What is secret lies in no folder that a tool may read or write, and holds none."""
    kept = [(each.what, _ways(each.path)[0]) for each in secret]
    for name, each in grants.items():
        granted = [("reading", held) for held in each.held_read] + [
            ("writing", held) for held in each.held_write
        ]
        for use, held in granted:
            for what, path in kept:
                if not held.problem and (is_below(path, held.path) or is_below(held.path, path)):
                    message = (
                        f"{name}: {held.given} cannot be granted for {use}: {what} ({path}) lies there; grant a folder "
                        "that holds data alone"
                    )
                    raise UsageError(message)


def _check_pair(name: str, held: HeldPath, writer: str, folder: HeldPath) -> None:
    if held is folder:
        return
    if not any(is_below(way, folder.path) for way in held.folders):
        return
    if name == writer and is_below(held.path, folder.path):
        return  # it could write there anyway
    message = (
        f"{name}: {held.given} cannot be granted: {writer} may write {folder.given}, and so could put anything in its "
        "place; grant folders that lie beside each other"
    )
    raise UsageError(message)


def _refusal(writer: str, folder: HeldPath, why: str) -> str:
    return (
        f"{writer}: {folder.given} cannot be granted for writing: {why}; grant a folder that holds data alone"
    )


def _ways(path: Path | str) -> tuple[str, list[str]]:
    """The true path of what need not exist, and the folders in which it is looked for."""
    absolute = os.path.abspath(path)  # noqa: PTH100  (links are followed one by one)
    held = HeldPath(absolute)
    if held.descriptor >= 0:
        return held.path, held.folders
    folder, name = os.path.split(absolute)
    if folder == absolute:
        return absolute, []
    true, folders = _ways(folder)
    return os.path.join(true, name), [*folders, true]  # noqa: PTH118


def _folders_of_code() -> list[str]:
    return [folder for folder in dict.fromkeys((*sys.path, sys.prefix)) if os.path.exists(folder or ".")]  # noqa: PTH110


def _why_code(folder: HeldPath) -> str | None:
    """Why code of this process could be changed in a folder; ``None`` where it could not."""
    loaded = next((name for name, file in _modules() if is_below(file, folder.path)), None)
    if loaded is not None:
        return f"the module {loaded} lies there"
    for installed in sorted(
        {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib", "scripts")}
    ):
        if is_below(folder.path, os.path.realpath(installed)):
            return f"it lies in {installed}, where Python's packages are"
    for root in map(os.path.realpath, _folders_of_code()):
        if folder.path != root and is_below(folder.path, root):
            names = folder.path[len(root.rstrip("/")) + 1 :].split("/")
            if (why := _why_importable(root, names)) is not None:
                return why
    return None


def _modules() -> Iterator[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, os.path.realpath(file)


def _why_importable(root: str, names: list[str]) -> str | None:
    """Why a path below a folder of Python's path is code, or could take the place of code."""
    if names[0].endswith(_CODE):
        return "it is a module"
    here = root
    for name in names:
        here = os.path.join(here, name)  # noqa: PTH118
        if os.path.exists(os.path.join(here, "__init__.py")):  # noqa: PTH110, PTH118
            return f"it lies in a package of Python ({here})"
    found = PathFinder.find_spec(names[0]) if len(names) == 1 and names[0].isidentifier() else None
    taken = names[0] in sys.stdlib_module_names or (found is not None and found.origin is not None)
    if len(names) == 1 and taken:
        return f"a module of the name {names[0]} could be put in the place of another one"
    return None
