"""Halts."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

IN_FORCE = sa.text("lifted_at IS NULL")


def upgrade() -> None:
    """Change nothing that workers of the release before see: they go on, and know of no halt."""
    op.create_table(
        "halt",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("lifted_at", sa.Double()),
        sa.Column("lifted_by", sa.String(200)),
        sa.Column("lifted_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_halt"),
    )
    op.create_index("ix_halt_listed", "halt", ["tenant", "id"])
    op.create_index(
        "ix_halt_in_force", "halt", ["kind", "target"], sqlite_where=IN_FORCE, postgresql_where=IN_FORCE
    )


def downgrade() -> None:
    """Nothing is halted any more."""
    op.drop_table("halt")
