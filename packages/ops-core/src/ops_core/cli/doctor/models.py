"""``opspawn doctor --live``: one small call of every model that the agents name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from agentkit.errors import AgentkitError
from agentkit.messages import ModelReply, ModelRequest, UserMessage
from agentkit.ports import Model
from ops_core.cli.doctor.finding import Finding, State
from ops_core.cli.terminal.step_lines import counted
from ops_core.cli.terminal.text import one_line
from ops_core.config.catalog import Catalog

ABOUT = "Models"
CALL_SECONDS = 60.0
"""So long an answer is waited for."""

REQUEST = ModelRequest(
    messages=(UserMessage(text="Reply with the word OK and nothing else."),),
    max_tokens=16,  # the least that every provider takes; a reply that is cut there is a reply, too
)


async def call_models(catalog: Catalog) -> AsyncIterator[Finding]:
    """Call each model once, and say how it went and what it took. Models in this process are not called: they cost
    nothing, and cannot be away.
    """
    models: dict[str, str | Model] = {}
    for name in catalog.names:
        model = catalog.get(name).agent.model
        models.setdefault(model if isinstance(model, str) else model.name, model)
    called = {name: model for name, model in models.items() if not name.startswith("offline:")}
    if not called:
        yield Finding(
            about=ABOUT, name="calls", state="note", text="none: no agent has a model outside of this process"
        )
        return
    text = f"{counted(len(called), 'small call')}, one for each model; the provider bills it"
    yield Finding(about=ABOUT, name="calls", state="note", text=text)
    for name, model in called.items():
        yield await _called(catalog, name, model)


async def _called(catalog: Catalog, name: str, model: str | Model) -> Finding:
    began = time.monotonic()
    try:
        async with asyncio.timeout(CALL_SECONDS), catalog.opened(model) as open_model:
            reply = await open_model.reply(REQUEST)
    except TimeoutError:
        text = f"no answer within {CALL_SECONDS:g} s"
        return Finding(about=ABOUT, name=one_line(name), state="missing", text=text)
    except AgentkitError as error:
        # whoever is only busy is there, and knows the key
        state: State = "warning" if error.transient else "missing"
        return Finding(about=ABOUT, name=one_line(name), state=state, text=f"{error.code}: {error}")
    text = f"answered in {time.monotonic() - began:.1f} s ({_taken(reply)})"
    if reply.model not in {"", name}:
        text += f", as {one_line(reply.model)}"
    return Finding(about=ABOUT, name=one_line(name), state="ok", text=text)


def _taken(reply: ModelReply) -> str:
    usage = reply.usage
    cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.6f}"
    return f"{usage.input_tokens} + {usage.output_tokens} tokens{cost}"
