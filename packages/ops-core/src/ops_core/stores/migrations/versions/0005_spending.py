"""Spending of tenants in a day."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a table that workers of the release before do not look at."""
    op.create_table(
        "spending",
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("day", "tenant", name="pk_spending"),
    )


def downgrade() -> None:
    """Forget what was spent."""
    op.drop_table("spending")
