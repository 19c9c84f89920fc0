"""Threads: tasks that go on with a conversation."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BUSY = sa.text("current_task IS NOT NULL")


def upgrade() -> None:
    """Add to what there is: workers of the release before go on, and leave tasks of threads to newer ones."""
    op.add_column("task", sa.Column("thread_id", sa.String(128)))
    op.create_table(
        "thread",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("current_task", sa.String(36)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_thread"),
    )
    op.create_index("ix_thread_listed", "thread", ["tenant", "updated_at", "id"])
    op.create_index("ix_thread_current", "thread", ["current_task"], sqlite_where=BUSY, postgresql_where=BUSY)
    op.create_table(
        "turn",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("thread_id", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("seen_from", sa.Integer, nullable=False),
        sa.Column("seen_until", sa.Integer, nullable=False),
        sa.Column("run_at", sa.Double),
        sa.PrimaryKeyConstraint("tenant", "thread_id", "number", name="pk_turn"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_turn", ondelete="CASCADE"),
    )
    op.create_index("ix_turn_task", "turn", ["task_id"])


def downgrade() -> None:
    """Forget which task belongs to which thread; the tasks stay."""
    op.drop_table("turn")
    op.drop_table("thread")
    op.drop_column("task", "thread_id")
