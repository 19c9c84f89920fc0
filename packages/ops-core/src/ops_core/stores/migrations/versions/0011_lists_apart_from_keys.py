"""Indexes of lists that cannot serve a look-up by id: on PostgreSQL their ids have the collation "C"."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

LISTS = {
    "ix_task_listed": ["tenant"],
    "ix_task_listed_by_status": ["tenant", "status"],
    "ix_task_listed_by_agent": ["tenant", "agent"],
}


def upgrade() -> None:
    """Make them anew; SQLite's are as they were."""
    _make('id COLLATE "C"')


def downgrade() -> None:
    """Make them as they were."""
    _make("id")


def _make(last: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for name, columns in LISTS.items():
        op.drop_index(name, "task")
        op.create_index(name, "task", [*columns, sa.text(last)])
