"""Tables of the database. The migrations create them; a test compares the two.

Times are seconds since the epoch by the database's clock, as double precision: one arithmetic for both databases.
JSON is stored as text, as it was written: it is never searched, and a ``jsonb`` column refuses NUL characters.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    literal_column,
    text,
)

from ops_core.stores.dialects import by_moment, bytewise

REVISION = "0016"
"""The schema that this release works with: the head of the migrations."""

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s", "fk": "fk_%(table_name)s"}
)

_OPEN = "status IN ('pending', 'waiting')"
_OPEN_WITH_DEADLINE = f"deadline_at IS NOT NULL AND {_OPEN}"

task = Table(
    "task",
    metadata,
    Column("id", String(36), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("agent", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text),
    Column("error", Text),
    Column("labels", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("run_after", Double),
    Column("timeout_seconds", Double),
    Column("deadline_at", Double),
    Column("budget", Text),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("steps", Integer, nullable=False, server_default=text("0")),
    Column("steps_at_claim", Integer, nullable=False, server_default=text("0")),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("lease_owner", String(200)),
    Column("lease_until", Double),
    Column("model_calls", Integer, nullable=False, server_default=text("0")),
    Column("tool_calls", Integer, nullable=False, server_default=text("0")),
    Column("input_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("output_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_usd", Double),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("thread_id", String(128)),
    # nano-dollars that were reserved for calls whose cost nobody knows (yet)
    Column("unsettled", BigInteger, nullable=False, server_default=text("0")),
    # of who has submitted it: traceparent and tracestate
    Column("trace", String(600)),
    # the task that carries it on: a task is retried once
    Column("retried_as", String(36)),
    # so often in a row it was handed over in good order without progress
    Column("handovers", Integer, nullable=False, server_default=text("0")),
    # when it became running or waiting; no index may hold it for other tasks, since a change of an indexed column costs
    Column("status_since", Double),
    PrimaryKeyConstraint("id", name="pk_task"),
    # due tasks, line by line
    Index(
        "ix_task_due",
        "agent",
        "tenant",
        "priority",
        "run_after",
        "id",
        sqlite_where=text(_OPEN),
        postgresql_where=text(_OPEN),
    ),
    # what the sweeper looks at; not the end of the lease, so that to renew it touches no index
    Index(
        "ix_task_lease",
        "lease_owner",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
    Index(
        "ix_task_deadline",
        "deadline_at",
        sqlite_where=text(_OPEN_WITH_DEADLINE),
        postgresql_where=text(_OPEN_WITH_DEADLINE),
    ),
    # the oldest task of each agent that waits
    Index(
        "ix_task_waiting",
        "agent",
        "status_since",
        sqlite_where=text("status = 'waiting'"),
        postgresql_where=text("status = 'waiting'"),
    ),
    # what retention looks at
    Index(
        "ix_task_finished",
        "finished_at",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
    Index(
        "uq_task_idempotency_key",
        "tenant",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

_listed = bytewise(task.c.tenant)
_made = by_moment(task.c.id)
Index("ix_task_listed", _listed, _made)
Index("ix_task_listed_by_status", _listed, bytewise(task.c.status), _made)
Index("ix_task_listed_by_agent", _listed, bytewise(task.c.agent), _made)


def checked(column: ColumnElement[str]) -> ColumnElement[str]:
    """The value of a column for a condition that only checks a row which its key has found.

    It is written so that no index can serve it and no partial one is implied: planners otherwise prefer them to
    the primary key where statistics are missing or old.
    """
    return column.op("||", return_type=Text())(literal_column("''"))


_zero: ColumnElement[float] = literal_column("0", cast("Double[float]", Double()))
counted_at = task.c.run_after + _zero
counted_status = checked(task.c.status)
"""When a task is due, and its status, as :mod:`ops_core.stores.sql.stats` alone says them: nothing else can be planned
on its index, and it on no other."""

# how many wait, and since when
_COUNTED = "status || '' IN ('pending', 'waiting')"
Index(
    "ix_task_counted",
    counted_status,
    counted_at,
    sqlite_where=text(_COUNTED),
    postgresql_where=text(_COUNTED),
)


def is_one_of(of: FromClause, *statuses: str) -> ColumnElement[bool]:
    """Rows of the table, or of an alias of it, in one of these statuses.

    The statuses are written into the statement: a parameter would hide from the planner that a partial index will do.
    """
    named: list[ColumnElement[str]] = [literal_column(f"'{status}'", String()) for status in statuses]
    return of.c.status.in_(named) if len(named) > 1 else of.c.status == named[0]


def open_in(of: FromClause) -> ColumnElement[bool]:
    """Rows whose task nobody holds and that has not ended."""
    return is_one_of(of, "pending", "waiting")


is_open = open_in(task)
is_running = is_one_of(task, "running")
is_still_running = checked(task.c.status) == literal_column("'running'", Text())
"""As :data:`is_running`, for a row that is found by its id."""

task_label = Table(
    "task_label",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(256), nullable=False),
    Column("task_id", String(36), nullable=False),
    PrimaryKeyConstraint("tenant", "key", "task_id", name="pk_task_label"),
    ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_task_label", ondelete="CASCADE"),
    Index("ix_task_label_task", "task_id"),
)

step = Table(
    "step",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("task_id", String(36), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("task_id", "seq", name="pk_step"),
    ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_step", ondelete="CASCADE"),
    # questions to people, and their answers
    Index(
        "ix_step_approval",
        "task_id",
        "seq",
        sqlite_where=text("kind IN ('approval_asked', 'approval_given')"),
        postgresql_where=text("kind IN ('approval_asked', 'approval_given')"),
    ),
)

thread = Table(
    "thread",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(128), nullable=False),
    Column("turns", Integer, nullable=False),
    Column("current_task", String(36)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    PrimaryKeyConstraint("tenant", "id", name="pk_thread"),
    Index("ix_thread_listed", "tenant", "updated_at", "id"),
    # what the sweeper looks at
    Index(
        "ix_thread_current",
        "current_task",
        sqlite_where=text("current_task IS NOT NULL"),
        postgresql_where=text("current_task IS NOT NULL"),
    ),
)

turn = Table(
    "turn",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("thread_id", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("task_id", String(36), nullable=False),
    # what its run is shown: the turns from one number on, up to another, which it does not include
    Column("seen_from", Integer, nullable=False),
    Column("seen_until", Integer, nullable=False),
    # not before this moment, once it has its turn
    Column("run_at", Double),
    PrimaryKeyConstraint("tenant", "thread_id", "number", name="pk_turn"),
    ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_turn", ondelete="CASCADE"),
    Index("ix_turn_task", "task_id"),
)

note = Table(
    "note",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("agent", String(200), nullable=False),
    Column("key", String(256), nullable=False),
    Column("id", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("embedder", String(200), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "agent", "key", "id", name="pk_note"),
)

spending = Table(
    "spending",
    metadata,
    # since 1970, UTC; money in whole nano-dollars
    Column("day", Integer, nullable=False),
    Column("tenant", String(64), nullable=False),
    # for calls under way, and for those whose end nobody has recorded
    Column("reserved", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "tenant", name="pk_spending"),
)

halt = Table(
    "halt",
    metadata,
    Column("id", String(36), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("target", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", String(200), nullable=False),
    Column("at", Double, nullable=False),
    Column("lifted_at", Double),
    Column("lifted_by", String(200)),
    Column("lifted_reason", Text),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),
    PrimaryKeyConstraint("id", name="pk_halt"),
    Index("ix_halt_listed", "tenant", "id"),
    Index(
        "uq_halt_idempotency_key",
        "tenant",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    # what holds runs now
    Index(
        "ix_halt_in_force",
        "kind",
        "target",
        sqlite_where=text("lifted_at IS NULL"),
        postgresql_where=text("lifted_at IS NULL"),
    ),
)

# what all processes know of the work that any of them does
upkeep = Table(
    "upkeep",
    metadata,
    Column("name", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Column("held_until", Double),
    PrimaryKeyConstraint("name", name="pk_upkeep"),
)

worker = Table(
    "worker",
    metadata,
    # the owner of its leases
    Column("name", String(200), nullable=False),
    Column("version", String(64), nullable=False),
    # names, as JSON
    Column("agents", Text, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    # it counts as alive until then
    Column("until", Double, nullable=False),
    PrimaryKeyConstraint("name", name="pk_worker"),
)

# what came of calls, from workers that had lost their leases by then: no steps, and nothing that a run goes by
late_result = Table(
    "late_result",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("task_id", String(36), nullable=False),
    Column("call_id", String(200), nullable=False),
    # of the lease under which the call was begun
    Column("epoch", Integer, nullable=False),
    Column("tool", String(200), nullable=False),
    Column("worker", String(200), nullable=False),
    Column("at", Double, nullable=False),
    Column("failed", Boolean, nullable=False),
    # the beginning of the outcome, for lists
    Column("shown", Text, nullable=False),
    # the result as the step that could not be recorded
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("task_id", "call_id", "epoch", name="pk_late_result"),
    ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_late_result", ondelete="CASCADE"),
)
