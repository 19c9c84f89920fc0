"""What the database itself has seen of each task: every change of status, written down by a trigger."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text

from ops_core.task import TRANSITIONS, TaskStatus
from ops_core.testing.servers.postgresql import PostgresServer

TRIGGER = """
CREATE TABLE history (
    number bigint GENERATED ALWAYS AS IDENTITY, task_id text, before text, after text, epoch int, expired boolean
);
CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (task_id, before, after, epoch, expired) VALUES (
        NEW.id, OLD.status, NEW.status, NEW.epoch,
        coalesce(OLD.lease_until < extract(epoch FROM statement_timestamp()), false)
    );
    RETURN NULL;
END $$;
CREATE TRIGGER write_down AFTER UPDATE ON task FOR EACH ROW
    WHEN (OLD.status <> NEW.status OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION write_down()
"""
READ = "SELECT task_id, before, after, epoch, expired FROM history WHERE task_id = ANY(:ids) ORDER BY number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A task went from one status to another one.

    Attributes:
        expired: its lease had run out when it was changed.
    """

    before: TaskStatus
    after: TaskStatus
    epoch: int
    expired: bool

    @property
    def allowed(self) -> bool:
        return self.after in TRANSITIONS[self.before].values()

    @property
    def interrupted(self) -> bool:
        """Somebody took it from a worker that was silent: whatever that worker was doing has no record."""
        return self.before is TaskStatus.RUNNING and self.expired


def keep_history(server: PostgresServer, database: str) -> None:
    """Write down what happens from now on."""
    server.execute(TRIGGER, database)


def history_of(server: PostgresServer, database: str, task_ids: Collection[str]) -> dict[str, list[Change]]:
    """Every change of these tasks, in order."""
    found: dict[str, list[Change]] = defaultdict(list)
    with server.connected(database) as connection:
        for task_id, before, after, epoch, expired in connection.execute(text(READ), {"ids": list(task_ids)}):
            change = Change(before=TaskStatus(before), after=TaskStatus(after), epoch=epoch, expired=expired)
            found[task_id].append(change)
    return found
