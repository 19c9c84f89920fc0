"""Results that workers report after they have lost their leases."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "late_result",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("call_id", sa.String(200), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("tool", sa.String(200), nullable=False),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("shown", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "call_id", "epoch", name="pk_late_result"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_late_result", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("late_result")
