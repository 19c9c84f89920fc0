"""The page about models says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from agentkit import errors
from agentkit.models import NamedEndpoint
from agentkit.models.endpoints import PROVIDERS, Kind

PAGES = Path(__file__).parents[3] / "docs"
PAGE = (PAGES / "reference" / "models.md").read_text(encoding="utf-8")


def rows(title: str, page: str = PAGE) -> list[list[str]]:
    """The cells of the table below a title, without the marks of code."""
    section = page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def test_providers() -> None:
    told = {
        row[0].removesuffix(":NAME"): (row[1], tuple(row[2].split(", ")), row[3]) for row in rows("Providers")
    }
    assert told == {
        name: (each.kind, each.key_variables, each.url_variable) for name, each in PROVIDERS.items()
    }


def test_fields_of_an_endpoint() -> None:
    told = {row[0]: row[1] for row in rows("`[endpoints.NAME]`")}
    assert set(told) == {field.name for field in fields(NamedEndpoint)}
    assert set(re.findall(r"[a-z-]+", rows("`[endpoints.NAME]`")[0][2].split(":")[1])) == set(get_args(Kind))


def test_errors() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ModelError)
    ]
    expected = {
        kind.__name__: [kind.code, str(kind.actor), "yes" if kind.transient else "no"]
        for kind in kinds
        if kind is not errors.ModelError
    }
    assert {row[0]: row[1:] for row in rows("Errors")} == expected
    page = (PAGES / "how-to" / "use-a-model.md").read_text(encoding="utf-8")
    assert {row[0] for row in rows("What can go wrong", page)} == set(expected)
