"""Remarks about a call: what the sandbox refused, with the setting that grants it, and what was left behind."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.sandbox.confined.mounts import SYSTEM, WORK
from agentkit.sandbox.confined.refusals import MOST
from agentkit.sandbox.port import CallTerms
from agentkit.untrusted.text import visible

_MAX_TEXT = 300
_READABLE = (*SYSTEM, "/dev", sys.prefix, sys.base_prefix)


def refusals(
    envelope: Mapping[str, Any], terms: CallTerms, asked: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """What a call asked for and was not granted. The envelope is the child's word: nothing in it is relied on.

    Args:
        envelope: what the call left as its result.
        terms: of the call.
        asked: hosts that the worker has refused to connect to; see
        :class:`~agentkit.sandbox.child.network.Connections`.
    """
    found: list[str] = []
    private = [visible(host[:_MAX_TEXT]) for host, why in (asked or {}).items() if why == "private"]
    hosts = [visible(host[:_MAX_TEXT]) for host, why in (asked or {}).items() if why == "hosts"]
    for host in (*hosts, *_texts(envelope.get("hosts"))):
        what = f"{host} was not granted" if host else "no host was granted"
        found.append(f"network: {what}, see {_setting(terms, 'hosts')}")
    for host in private:
        setting = _setting(terms, "hosts")
        found.append(f"network: {host} has an address that is not public, see {setting} with private = true")
    for each in _items(envelope.get("paths")):
        match each:
            case [str(path), int(number)]:
                found += _refused_path(visible(path[:_MAX_TEXT]), number, terms)
            case _:
                pass
    return tuple(dict.fromkeys(found))


def left_behind(envelope: Mapping[str, Any], terms: CallTerms) -> str:
    """Which files a call left in its own folder, which ends with it; empty for none."""
    match envelope.get("left"):
        case [int(count), names] if count > 0 and (shown := _texts(names)):
            files = "1 file" if count == 1 else f"{count} files"
            more = ", …" if count > len(shown) else ""
            return (
                f"{files} written to the sandbox's own folder {WORK} ended with the call: {', '.join(shown)}{more}; "
                f"for files that stay, see {_setting(terms, 'write')}"
            )
        case _:
            return ""


def _refused_path(path: str, number: int, terms: CallTerms) -> list[str]:
    if _is_within(path, terms.grants.write):
        return []
    if _is_within(path, terms.grants.read):
        changing = number in {errno.EACCES, errno.EPERM, errno.EROFS}
        return (
            [f"file: {path} was granted for reading only, see {_setting(terms, 'write')}"] if changing else []
        )
    if _is_within(path, _READABLE):
        return []
    own = f": {WORK} in the sandbox is the call's own folder" if _is_within(path, [WORK]) else ""
    return [f"file: {path} was not granted{own}, see {_setting(terms, 'read and write')}"]


def _setting(terms: CallTerms, key: str) -> str:
    return f"[sandbox.tools.{terms.name}] {key}" if terms.name else f"Grants({key})"


def _is_within(path: str, folders: Sequence[Any]) -> bool:
    for folder in map(str, folders):
        for known in (folder, os.path.realpath(folder)):
            if path == known or path.startswith(known.rstrip("/") + "/"):
                return True
    return False


def _texts(given: Any) -> list[str]:
    return [visible(each[:_MAX_TEXT]) for each in _items(given) if isinstance(each, str)]


def _items(given: Any) -> Sequence[Any]:
    return given[:MOST] if isinstance(given, list) else ()  # pyright: ignore[reportUnknownVariableType]
