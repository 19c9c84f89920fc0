"""Look whether the module ``agentkit`` is ours, of this release. Another project has that name on package indexes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from ops_core import __version__

OURS = "opspawn-agentkit"
FORMER_NAMES = ("agentkit", "ops-core")
"""Distributions of other projects, with modules of our names; ours were called so in checkouts."""

_MARK = re.compile(r'^__(version|distribution)__ = "([^"]*)"$', re.MULTILINE)


def problem_with_agentkit() -> str | None:
    """Say what is wrong with the module ``agentkit``; ``None`` where it is ours.

    The module is not imported: a stranger's code would run, and need not be importable at all.
    """
    remedy = f"install {OURS}=={__version__}"
    found = find_spec("agentkit")
    if found is None:
        return f"the module agentkit is missing: {remedy}"
    marks: dict[str, str] = {}
    if found.origin is not None:
        marks = dict(_MARK.findall(Path(found.origin).read_text(encoding="utf-8", errors="replace")))
    if marks.get("distribution") != OURS:
        place = found.origin or ", ".join(found.submodule_search_locations or ())
        return (
            f"the module agentkit in {place} is another project's: `pip uninstall agentkit`, then "
            f"`pip install --force-reinstall --no-deps {OURS}=={__version__}`"
        )
    if marks["version"] != __version__:
        return f"{OURS} is of release {marks['version']}, and opspawn of {__version__}: {remedy}"
    return None
