"""Trace context of the caller that submitted a task."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a column that workers of the release before do not look at."""
    op.add_column("task", sa.Column("trace", sa.String(600)))


def downgrade() -> None:
    """Forget the traces."""
    op.drop_column("task", "trace")
