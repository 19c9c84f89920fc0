"""Transaction that writes: its connection, and what other processes are notified of once it is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import CursorResult

from ops_core.ports import Hint
from ops_core.stores.bulk_statements import BulkInsert, BulkStatement, Found, Given


@dataclass(slots=True)
class Transaction:
    """What a verb that writes is given.

    Attributes:
        connection: in a transaction.
        due: a task may be claimed that could not be claimed before.
        cancelled: ids of tasks whose workers are to be told to cancel them.
        ended: ids of tasks that have ended.
        halts: something was halted, or a halt was lifted.
    """

    connection: Connection
    due: bool = False
    cancelled: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])
    halts: bool = False

    @property
    def takes_arrays(self) -> bool:
        """Whether statements can read rows from arrays."""
        return self.connection.dialect.name == "postgresql"

    def execute(self, statement: Executable, given: Any = None) -> CursorResult[Any]:
        """Carry out a statement."""
        return self.connection.execute(statement, given)

    def found(self, statement: BulkStatement, rows: Sequence[Given]) -> list[Found | None]:
        """Carry out a statement for many rows; for each the row that it answers, or ``None``."""
        return statement.found(self.connection, rows)

    def do(self, statement: BulkStatement, rows: Sequence[Given]) -> None:
        """Carry out a statement that answers nothing for many rows."""
        statement.do(self.connection, rows)

    def add(self, rows: BulkInsert, added: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table."""
        rows.add(self.connection, added)

    @property
    def hint(self) -> Hint:
        """What is to be told."""
        return Hint(due=self.due, cancelled=tuple(self.cancelled), ended=tuple(self.ended), halts=self.halts)
