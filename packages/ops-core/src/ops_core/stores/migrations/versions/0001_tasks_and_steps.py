"""Tasks, their labels, and their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

OPEN = sa.text("status IN ('pending', 'waiting')")
RUNNING = sa.text("status = 'running'")


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "task",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("run_after", sa.Double),
        sa.Column("timeout_seconds", sa.Double),
        sa.Column("deadline_at", sa.Double),
        sa.Column("budget", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("steps", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("steps_at_claim", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("lease_owner", sa.String(200)),
        sa.Column("lease_until", sa.Double),
        sa.Column("model_calls", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("tool_calls", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("cost_usd", sa.Double),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
    )
    op.create_index(
        "ix_task_due",
        "task",
        [sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_index("ix_task_lease", "task", ["lease_until"], sqlite_where=RUNNING, postgresql_where=RUNNING)
    op.create_index("ix_task_deadline", "task", ["deadline_at"], sqlite_where=OPEN, postgresql_where=OPEN)
    op.create_index("ix_task_listed", "task", ["tenant", "id"])
    op.create_index("ix_task_listed_by_status", "task", ["tenant", "status", "id"])
    op.create_index("ix_task_listed_by_agent", "task", ["tenant", "agent", "id"])
    op.create_index("uq_task_idempotency_key", "task", ["tenant", "idempotency_key"], unique=True)
    op.create_table(
        "task_label",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", "task_id", name="pk_task_label"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_task_label", ondelete="CASCADE"),
    )
    op.create_index("ix_task_label_task", "task_label", ["task_id"])
    op.create_table(
        "step",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "seq", name="pk_step"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_step", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Remove the three tables."""
    op.drop_table("step")
    op.drop_table("task_label")
    op.drop_table("task")
