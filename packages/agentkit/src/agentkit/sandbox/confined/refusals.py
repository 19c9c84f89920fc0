"""Refusals of a call: hosts and paths that it was denied, and the files that it leaves in its own folder.

The worker reads them with the result and puts them into words: see :mod:`agentkit.sandbox.remarks`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any

MOST = 5
"""Of each kind that are told."""

_MAX_TEXT = 300
_MAX_ENTRIES = 500
_MAX_ERRORS = 20
_OF_PATHS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS}

_hosts: list[str] = []


def note_host(host: Any, port: Any) -> None:
    """Remember that a host was asked for here and refused; an empty one where it is not known which."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
    shown = f"{name}:{port}" if name and port else name
    if shown[:_MAX_TEXT] not in _hosts and len(_hosts) < MOST:
        _hosts.append(shown[:_MAX_TEXT])


def remarks(spec: dict[str, Any], own: str, error: BaseException | None) -> dict[str, Any]:
    """What is to be told beside the result of a call, as parts of its envelope; raises nothing.

    Args:
        spec: of the call.
        own: the folder of its own files.
        error: what the function raised.
    """
    found: dict[str, Any] = {}
    try:
        if paths := paths_of(error):
            found["paths"] = paths
        if names := [name for name in _hosts if name] or _hosts:
            found["hosts"] = names
        if error is None and (left := _left(spec, own)):
            found["left"] = [len(left), left[:MOST]]
    except Exception:  # noqa: BLE001  (an exception may do anything when it is looked at)
        return {}
    return found


def paths_of(error: BaseException | None) -> list[list[Any]]:
    """Paths that an exception, or one that led to it, says could not be opened, each with the number of the error."""
    found: list[list[Any]] = []
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in _OF_PATHS and isinstance(each.filename, str):
            path = os.path.abspath(each.filename)[:_MAX_TEXT]
            if [path, each.errno] not in found and len(found) < MOST:
                found.append([path, each.errno])
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    left, seen = [error], 0
    while left and seen < _MAX_ERRORS:
        each = left.pop()
        if each is not None:
            seen += 1
            yield each
            left += [each.__context__, each.__cause__]
            if isinstance(each, BaseExceptionGroup):
                left += each.exceptions  # pyright: ignore[reportUnknownMemberType]


def _left(spec: dict[str, Any], own: str) -> list[str]:
    """Files in the call's own folder, by their names in there; not those with a dot, which are caches and settings."""
    if not os.path.isdir(own):
        return []
    shown = {str(part[0]) for part in (*spec["read"], *spec["write"])} | set(spec["path"])
    found: list[str] = []
    for folder, folders, files in os.walk(own):
        folders[:] = [name for name in folders if not name.startswith(".") and _is_new(folder, name, shown)]
        found += [os.path.relpath(os.path.join(folder, name), own) for name in _new(folder, files, shown)]
        if len(found) >= _MAX_ENTRIES:
            break
    return found


def _new(folder: str, names: Iterable[str], shown: set[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and _is_new(folder, name, shown)]


def _is_new(folder: str, name: str, shown: set[str]) -> bool:
    """It is neither granted nor a folder of modules, nor anything else that is mounted."""
    path = os.path.join(folder, name)
    return (
        path not in shown
        and name != "__pycache__"
        and not os.path.ismount(path)
        and os.access(folder, os.W_OK)
    )
