"""What stands at an import path ``package.module:name``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from agentkit.calls import place_of
from agentkit.errors import UsageError
from ops_core.errors import ConfigError


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
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        message = f"{field}: cannot import {module_name}: {error}"
        raise ConfigError(message, field=field) from error
    except UsageError as error:  # a tool or an agent that cannot be one: the text says which and why
        message = f"{field}: {module_name} breaks when it is imported: {error}"
        raise ConfigError(message, field=field) from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__} at {place_of(error)}"
        message = f"{field}: {module_name} breaks when it is imported: {what}"
        raise ConfigError(message, field=field) from error
    for part in name.split("."):
        if not hasattr(found, part):
            message = f"{field}: {module_name} has no {name}"
            raise ConfigError(message, field=field)
        found = getattr(found, part)
    return found
