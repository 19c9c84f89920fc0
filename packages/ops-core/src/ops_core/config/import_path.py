"""Import paths ``package.module:name``, and the objects that they name."""

from __future__ import annotations

import importlib
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError
from agentkit.run.tool_call import place_of
from agentkit.untrusted.secrets import redacted
from agentkit.untrusted.text import visible
from ops_core.errors import ConfigError, OpsError

_MAX_TEXT = 500


def make_deps(path: str, directory: Path) -> Any:
    """What stands at an import path, or what it returns when it is called: the dependencies of tools.

    Raises:
        ConfigError: there is nothing, or it breaks.
    """
    found = import_object(path, directory, "deps")
    if not callable(found):
        return found
    try:
        with redirect_stdout(sys.stderr):
            return found()
    except Exception as error:
        message = f"deps: {path} breaks when it is called: {what_broke(error)}"
        raise ConfigError(message, field="deps") from error


def what_broke(error: BaseException) -> str:
    """An exception of foreign code: its type, place and text, without what looks like a secret; of ours, its text."""
    if isinstance(error, OpsError | AgentkitError):
        return str(error)
    place = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else place_of(error)
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    shown = redacted(text)[:_MAX_TEXT]
    return f"{type(error).__name__} at {place}{': ' if shown else ''}{_in_one_line(shown)}"


def _in_one_line(text: str) -> str:
    return str(visible(text)).replace("\n", "\\n")


def import_object(path: str, directory: Path, field: str) -> Any:
    """What stands at ``package.module:name``; modules in ``directory`` are found too.

    Raises:
        ConfigError: there is nothing; the message begins with ``field``.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not name:
        message = f"{field}: {path!r} is not an import path package.module:name"
        raise ConfigError(message, field=field)
    if str(directory.resolve()) not in sys.path:
        sys.path.insert(0, str(directory.resolve()))
    try:
        with redirect_stdout(sys.stderr):  # the output of a command is no place for what a module prints
            found: Any = importlib.import_module(module_name)
    except ImportError as error:
        message = f"{field}: cannot import {module_name}: {error}"
        raise ConfigError(message, field=field) from error
    except (Exception, SystemExit) as error:
        message = f"{field}: {module_name} breaks when it is imported: {what_broke(error)}"
        raise ConfigError(message, field=field) from error
    for part in name.split("."):
        if not hasattr(found, part):
            message = f"{field}: {module_name} has no {name}"
            raise ConfigError(message, field=field)
        found = getattr(found, part)
    return found
