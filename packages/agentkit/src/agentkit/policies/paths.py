"""Paths that stay inside of folders, however they are written."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from agentkit.errors import UsageError
from agentkit.messages import JsonValue

_NO_PLAIN_PATH = re.compile(r"^~|^[A-Za-z][A-Za-z0-9+.-]*:|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""A home folder, ``file:``, ``C:``, control characters, halves of characters: tools read these in their own ways."""

_DECODINGS = 3
"""So often is ``%2e`` read as ``.``: ``%252e`` is a point for somebody who decodes twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    r"""A path leads into one of these folders, and into none of the excluded ones.

    A path is followed through its symbolic links at the moment of the decision, and it must stay inside in every way in
    which a tool might read it: as it is written, with ``..`` taken literally first, with compatibility characters made
    plain (NFKC), with ``\`` for ``/``, and with ``%2e`` for ``.``. Excluded folders are compared without regard to
    case. What changes on the disk between the decision and the call is the sandbox's to hold.

    Attributes:
        folders: absolute paths.
        but_not: absolute paths of files or folders that are excluded.
        base: what a relative path is relative to, an absolute path; the first folder where not given.

    Raises:
        UsageError: a folder is not absolute, or there is none.
    """

    folders: Collection[str]
    but_not: Collection[str] = ()
    base: str | None = None

    def __post_init__(self) -> None:
        given = () if isinstance(self.folders, str) else self.folders
        for path in (*given, *self.but_not, *([] if self.base is None else [self.base])):
            if not Path(path).is_absolute():
                message = f"the folder {path!r} of a rule must be an absolute path"
                raise UsageError(message)
        if not given:
            message = "a rule about paths needs a list of folders"
            raise UsageError(message)

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with a path."""
        if not isinstance(value, str) or not value:
            return "must be a path"
        base = next(iter(self.folders)) if self.base is None else self.base
        allowed = [os.path.realpath(folder) for folder in self.folders]
        excluded = [_folded(os.path.realpath(folder)) for folder in self.but_not]
        for form in _readings(value):
            if _NO_PLAIN_PATH.search(form):
                return "must be a plain path: no ~, no scheme, no control characters"
            path = os.path.join(base, form)  # noqa: PTH118  (texts: a Path would tidy up what is to be looked at)
            for found in {os.path.realpath(path), os.path.realpath(os.path.normpath(path))}:
                if not any(_is_within(found, folder) for folder in allowed):
                    return f"must be inside of {' or '.join(self.folders)}"
                if any(_is_within(_folded(found), folder) for folder in excluded):
                    return "is excluded"
        return None


def _readings(value: str) -> Iterator[str]:
    """How tools may read a path."""
    seen: set[str] = set()
    for _ in range(_DECODINGS + 1):
        for form in (value, unicodedata.normalize("NFKC", value)):
            for way in (form, form.replace("\\", "/")):
                if way not in seen:
                    seen.add(way)
                    yield way
        value = unquote(value)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()
