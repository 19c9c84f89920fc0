"""Hand-overs without progress, and the time of the last sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add a counter, and a table of a few rows."""
    op.add_column("task", sa.Column("handovers", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "upkeep",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("held_until", sa.Double()),
        sa.PrimaryKeyConstraint("name", name="pk_upkeep"),
    )


def downgrade() -> None:
    """Forget both."""
    op.drop_table("upkeep")
    op.drop_column("task", "handovers")
