"""The id of tools whose worker is root, and what is open to it.

Loaded into every jail: nothing is imported here that takes long.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

UNPRIVILEGED = 65530
"""The id of children whose worker is root."""


def check_access(terms: Mapping[str, Any]) -> None:
    """See whether what was granted is open to this process, which has taken its id.

    Raises:
        OSError: it is not, and why.
    """
    for paths, mode in ((terms["read"], os.R_OK), (terms["write"], os.R_OK | os.W_OK)):
        for granted in paths:
            if not os.access(str(granted[0]), mode):
                why = f"{granted[0]} is granted and not open to tools: the worker is root, they are user {UNPRIVILEGED}"
                why += ", and owners cannot be mapped there; give it to that user, or run the worker as another one"
                raise OSError(errno.EACCES, why)
