"""Stores of tasks and their steps: one implementation for every database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ops_core.ports import Clock
from ops_core.stores.dialects import parse_url
from ops_core.stores.store import SqlStore
from ops_core.stores.tables import REVISION
from ops_core.stores.watchdog import PATIENCE_SECONDS

if TYPE_CHECKING:
    from ops_core.observability.metrics import WriterMetrics

__all__ = ["REVISION", "SqlStore", "migrate_if_needed", "open_store"]


def open_store(
    url: str,
    *,
    clock: Clock = time.time,
    metrics: WriterMetrics | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> SqlStore:
    """The store at ``url``; use it as an async context manager. Its schema is made by ``migrations.upgrade`` only.

    Args:
        url: ``sqlite:///FILE``, or ``sqlite://`` for a database in memory that is gone with the process, or
            ``postgresql://USER:PASSWORD@HOST/DATABASE``.
        clock: the database's clock, where the database is a file and has none of its own.
        metrics: told of each transaction that writes.
        patience_seconds: so long a server may be silent in a transaction; then its connection is given up, and
            whoever waits for it is told.

    Raises:
        ConfigError: the URL is not one that can be used, or the database's driver is not installed.
    """
    return SqlStore(parse_url(url), clock, metrics, patience_seconds=patience_seconds)


def migrate_if_needed(store: SqlStore) -> None:
    """Bring the schema of a store that is not open yet up to date. Blocks."""
    if store.revision() != REVISION:
        from ops_core.stores import migrations  # not at the top: it loads Alembic

        migrations.upgrade(store)
