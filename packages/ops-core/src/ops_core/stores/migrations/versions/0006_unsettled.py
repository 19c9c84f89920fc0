"""Reservations of a task for calls whose cost is unknown."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add a sum that workers of the release before leave as it is."""
    op.add_column("task", sa.Column("unsettled", sa.BigInteger, nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    """Forget it; the steps still tell."""
    op.drop_column("task", "unsettled")
