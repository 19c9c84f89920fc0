"""Workers that announce themselves, and since when a task has its status."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

WAITING = sa.text("status = 'waiting'")


def upgrade() -> None:
    """Add a table, a column, and an index that holds tasks that wait only."""
    op.create_table(
        "worker",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("agents", sa.Text, nullable=False),
        sa.Column("capacity", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_worker"),
    )
    op.add_column("task", sa.Column("status_since", sa.Double))
    op.execute("UPDATE task SET status_since = updated_at WHERE status IN ('running', 'waiting')")
    op.create_index(
        "ix_task_waiting", "task", ["agent", "status_since"], sqlite_where=WAITING, postgresql_where=WAITING
    )


def downgrade() -> None:
    """Forget both."""
    op.drop_index("ix_task_waiting", "task")
    op.drop_column("task", "status_since")
    op.drop_table("worker")
