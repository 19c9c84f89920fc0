"""Alembic's entry: run the migrations on the engine that :mod:`ops_core.stores.migrations` hands over."""

from alembic import context

from ops_core.stores.dialects import lock_for_migrations
from ops_core.stores.tables import metadata

engine = context.config.attributes["engine"]
with (
    engine.begin() as connection
):  # one transaction: two processes that migrate at once do it one after the other
    lock_for_migrations(connection)
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, compare_server_default=True
    )
    context.run_migrations()
