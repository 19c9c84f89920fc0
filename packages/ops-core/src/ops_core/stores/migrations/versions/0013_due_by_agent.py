"""Due tasks by agent first: a claim meets no line of agents that its worker does not run."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

OPEN = sa.text("status IN ('pending', 'waiting')")


def upgrade() -> None:
    """Make the index anew; workers of the release before go on, with slower claims."""
    _make("agent", "tenant")


def downgrade() -> None:
    """Make it as it was."""
    _make("tenant", "agent")


def _make(*first: str) -> None:
    op.drop_index("ix_task_due", "task")
    columns = [*first, "priority", "run_after", "id"]
    op.create_index("ix_task_due", "task", columns, sqlite_where=OPEN, postgresql_where=OPEN)
