"""Migrations of the schema by Alembic, shipped with the package. Nothing else changes the schema."""

from __future__ import annotations

import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError

from ops_core.errors import SchemaMismatch, StoreUnavailable
from ops_core.stores import pgvector
from ops_core.stores.dialects import failure, lock_for_migrations, make_schema, reason
from ops_core.stores.store import SqlStore, schema_revision

HERE = Path(__file__).parent


def upgrade(store: SqlStore, revision: str = "head") -> None:
    """Bring the database of ``store``, which need not be open, to ``revision``. Blocks.

    The newest schema uses what extensions the database has: see :func:`adopt_extensions`.

    Raises:
        SchemaMismatch: the database was migrated by a newer release, or holds tables of something else.
        StoreUnavailable: the database cannot be opened or written.
    """
    _run(store, "upgrade", revision)
    if revision == "head":
        adopt_extensions(store)


def downgrade(store: SqlStore, revision: str) -> None:
    """Take the database of ``store`` back to ``revision``; ``base`` is an empty database. Blocks.

    Raises:
        SchemaMismatch, StoreUnavailable: as :func:`upgrade`.
    """
    _run(store, "downgrade", revision)


def adopt_extensions(store: SqlStore) -> bool:
    """Where PostgreSQL's extension ``vector`` was created in the database, have it compare the notes. Blocks.

    Returns:
        Something was changed; it is done once.

    Raises:
        StoreUnavailable: the database cannot be opened or written.
    """
    try:
        with store.migration_engine.begin() as connection:
            lock_for_migrations(connection)
            return pgvector.adopt(connection)
    except DBAPIError as error:
        message = f"the database refused to use pgvector: {reason(error)}"
        raise StoreUnavailable(message) from None
    finally:
        store.disconnect()


def config(engine: Engine | None = None) -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(HERE).replace("%", "%%"))
    made.attributes["engine"] = engine
    return made


def _run(store: SqlStore, verb: str, revision: str) -> None:
    engine = store.migration_engine
    try:
        with engine.begin() as connection:
            lock_for_migrations(
                connection
            )  # or it could look between somebody else's tables and their revision
            make_schema(connection)
            _check_is_ours(connection)
        getattr(command, verb)(config(engine), revision)
    except DBAPIError as error:
        message = failure("a migration", error)
        raise StoreUnavailable(message) from None
    finally:
        store.disconnect()


def _check_is_ours(connection: Connection) -> None:
    found = schema_revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if found is not None and found not in known:
        message = (
            f"the database has the schema {found}, which this release does not know: upgrade Opspawn"
            if re.fullmatch(r"\d{4}", found)
            else f"the database belongs to another program, whose migrations are at {found}: give Opspawn a "
            "database of its own, or a schema (?options=-c search_path=opspawn)"
        )
        raise SchemaMismatch(message)
    others = sorted(set(inspect(connection).get_table_names()) - {"alembic_version"})
    if found is None and others:
        message = f"the database holds tables of something else ({', '.join(others[:3])}): give Opspawn one of its own"
        raise SchemaMismatch(message)
