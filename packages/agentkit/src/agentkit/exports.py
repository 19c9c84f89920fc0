"""Names that a package exports, each loaded with its module when it is first used (PEP 562).

A package imports the same names under ``TYPE_CHECKING``, where type checkers and readers look for them::

    if TYPE_CHECKING:
        from agentkit.budget.limits import Limits
    else:
        __getattr__, __dir__ = exports(__name__, {"agentkit.budget.limits": ("Limits",)})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def exports(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its full name.
        names: what is exported, by the module that defines it. These modules can be reached as attributes, too.
    """
    homes = {name: module for module, found in names.items() for name in found}
    modules = {module.rpartition(".")[2]: module for module in names if module.startswith(f"{package}.")}

    def find(name: str) -> Any:
        if name in homes:
            found = getattr(import_module(homes[name]), name)
            setattr(sys.modules[package], name, found)  # the next look finds it without this function
            return found
        if name in modules:
            return import_module(modules[name])
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message)

    def names_of_package() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *modules})

    return find, names_of_package
