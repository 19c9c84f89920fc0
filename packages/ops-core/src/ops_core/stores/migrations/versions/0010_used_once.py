"""Rights that are used once: a task is retried once, and a halt that is ordered again under its key is the same."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

KEYED = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    """Add what says that a right was used; what was retried before may be retried once more."""
    op.add_column("task", sa.Column("retried_as", sa.String(36)))
    op.add_column("halt", sa.Column("idempotency_key", sa.String(255)))
    op.add_column("halt", sa.Column("fingerprint", sa.String(64)))
    op.create_index(
        "uq_halt_idempotency_key",
        "halt",
        ["tenant", "idempotency_key"],
        unique=True,
        sqlite_where=KEYED,
        postgresql_where=KEYED,
    )


def downgrade() -> None:
    """Forget it."""
    op.drop_index("uq_halt_idempotency_key", "halt")
    op.drop_column("halt", "fingerprint")
    op.drop_column("halt", "idempotency_key")
    op.drop_column("task", "retried_as")
