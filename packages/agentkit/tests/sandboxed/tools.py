"""Tools as a user writes them, at the top of a module."""

import datetime as dt
import os
import sys
from typing import Any

from pydantic import BaseModel

from agentkit import ToolContext, ToolError, tool


class Place(BaseModel):
    """A place."""

    city: str
    since: dt.date


@tool(effect="pure", sandbox="pool")
def describe(place: Place, context: ToolContext[Any]) -> dict[str, Any]:
    """Describe a place."""
    context.report(f"looking at {place.city}")
    told = {"process": os.getpid(), "key": context.idempotency_key, "year": place.since.year}
    return {**told, "seconds_left": (context.seconds_left() or 0) > 0}


async def twice(number: int) -> int:
    """Twice a number."""
    return number * 2


def refuse() -> None:
    """Refuse."""
    raise ToolError("not today")


def explode(text: str) -> None:
    """Explode."""
    raise ValueError(text)


@tool(timeout=0.3)
def hang() -> None:
    """Never end."""
    while True:
        pass


def needs(context: ToolContext[dict[str, str]]) -> str:
    """Look at what the run was given."""
    return context.deps["name"]


def speak(key: str) -> str:
    """Speak."""
    print(f"key {os.environ['SBX_KEY']}\nforged\x1b[2J\u202e", flush=True)
    print("x" * 5000, file=sys.stderr)
    if key == "fail":
        raise ValueError(key)
    return key
