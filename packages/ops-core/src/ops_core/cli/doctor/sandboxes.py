"""Sandboxes of this machine, for ``opspawn doctor``: tried, not guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agentkit.errors import AgentkitError
from agentkit.sandbox import Capabilities, State, open_sandbox
from ops_core.cli.doctor.finding import Finding

_SECONDS = 20.0


async def examine_sandboxes() -> AsyncIterator[Finding]:
    """One finding for each sandbox, with each control and how it is held."""
    for name in ("pool", "jail"):
        try:
            async with asyncio.timeout(_SECONDS), open_sandbox(name, allow_degraded=True, ahead=0) as sandbox:
                yield _finding(sandbox.capabilities)
        except AgentkitError as error:
            text = f"{error}; tools that need it are refused"
            yield Finding(about="Sandbox", name=name, state="warning", text=text)
        except TimeoutError:
            text = f"it cannot be opened within {_SECONDS:g} s"
            yield Finding(about="Sandbox", name=name, state="warning", text=text)


def _finding(found: Capabilities) -> Finding:
    by_state = {
        state: [control for control, held in found.controls.items() if held is state] for state in State
    }
    text = "; ".join(f"{state}: {', '.join(controls)}" for state, controls in by_state.items() if controls)
    text = f"{text} (by {found.means})"
    if found.missing:
        text += "; tools are refused, unless `[sandbox]` says `allow_degraded = true`"
    return Finding(about="Sandbox", name=found.backend, state="warning" if found.missing else "ok", text=text)
