"""Tasks are claimed line by line, and old ones are found by the moment of their end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OPEN = sa.text("status IN ('pending', 'waiting')")
ENDED = sa.text("finished_at IS NOT NULL")
KEYED = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    """Change nothing that workers of the release before see: they go on."""
    op.drop_index("ix_task_due", "task")
    op.create_index(
        "ix_task_due",
        "task",
        ["tenant", "agent", "priority", "run_after", "id"],
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_index("ix_task_finished", "task", ["finished_at"], sqlite_where=ENDED, postgresql_where=ENDED)
    op.drop_index("uq_task_idempotency_key", "task")
    op.create_index(
        "uq_task_idempotency_key",
        "task",
        ["tenant", "idempotency_key"],
        unique=True,
        sqlite_where=KEYED,
        postgresql_where=KEYED,
    )

    if op.get_bind().dialect.name == "postgresql":
        # room on each page for the next version of a row: counting a step then needs no new index entries
        op.execute("ALTER TABLE task SET (fillfactor = 70)")


def downgrade() -> None:
    """The indexes of before."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE task RESET (fillfactor)")
    op.drop_index("uq_task_idempotency_key", "task")
    op.create_index("uq_task_idempotency_key", "task", ["tenant", "idempotency_key"], unique=True)
    op.drop_index("ix_task_finished", "task")
    op.drop_index("ix_task_due", "task")
    op.create_index(
        "ix_task_due",
        "task",
        [sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
