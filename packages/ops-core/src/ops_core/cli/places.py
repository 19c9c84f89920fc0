"""Where things are on this machine."""

from __future__ import annotations

from pathlib import Path

from ops_core.settings import Settings
from ops_core.stores.dialects import is_in_memory, parse_url


def store_file(settings: Settings) -> Path | None:
    """The file in which tasks are kept; ``None`` where it is no file."""
    url = parse_url(settings.store_url)
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    return Path(url.database or "")
