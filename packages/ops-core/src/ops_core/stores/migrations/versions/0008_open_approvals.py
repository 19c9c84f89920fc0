"""Open approvals, found without reading all steps."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

APPROVALS = sa.text("kind IN ('approval_asked', 'approval_given')")


def upgrade() -> None:
    """Change nothing that workers of the release before see: they go on."""
    op.create_index(
        "ix_step_approval",
        "step",
        ["task_id", "seq"],
        sqlite_where=APPROVALS,
        postgresql_where=APPROVALS,
    )


def downgrade() -> None:
    """They are looked for among all steps again."""
    op.drop_index("ix_step_approval", "step")
