"""Phase of loading a command: its options alone, or all that it needs to run.

A module of commands imports what only a run of them needs under ``if TYPE_CHECKING or phase.to_run:``. So options are
parsed, and help is printed, before any of that is loaded; :mod:`ops_core.cli.lazy` sets the phase.
"""

from __future__ import annotations

to_run = True
"""Import everything; what imports a module of commands as any other one needs it whole."""
