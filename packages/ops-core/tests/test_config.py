"""What opspawn.toml may say: its page is held against the code, and what it may not say is told with its place."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agentkit.sandbox.terms import CallLimits
from ops_core.config.loader import read_catalog
from ops_core.config.tables import ConfigFile
from ops_core.errors import ConfigError

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "opspawn-toml.md"
NAMES = {
    "endpoints": "NAME", "agents": "NAME", "tools": "NAME", "servers": "NAME",
    "prices": '"PROVIDER:NAME"', "limits": "PROVIDER",
}  # fmt: skip
SCHEMA = ConfigFile.model_json_schema()
Told = Mapping[str, Any]


def resolved(schema: Told) -> Told:
    """A part of the schema without a reference, and without the way to leave it out."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) == 1:
        return resolved({**schema, **kinds[0], "anyOf": ()})
    name = schema.get("$ref", "").rpartition("/")[2]
    return (
        {**SCHEMA["$defs"][name], **{key: schema[key] for key in schema if key != "$ref"}} if name else schema
    )


def kind_of(schema: Told) -> str:
    """The type of a value, in the words of the page."""
    told = resolved(schema)
    if kinds := told.get("anyOf"):
        return " or ".join(dict.fromkeys(map(kind_of, kinds)))
    if "enum" in told:
        return ", ".join(f"`{json.dumps(value)}`" for value in told["enum"])
    if "const" in told:
        return f"`{json.dumps(told['const'])}`"
    match told.get("type"):
        case "array":
            return f"list: {kind_of(told['items'])}"
        case "object" if "properties" in told:
            return f"table: {', '.join(f'`{key}`' for key in told['properties'])}"
        case "object":
            return f"table: {kind_of(told['additionalProperties'])}"
        case "integer" | "number" as name:
            bounds = {"exclusiveMinimum": ">", "minimum": "≥", "maximum": "≤"}
            held = [f"{sign} {told[bound]:g}" for bound, sign in bounds.items() if bound in told]
            return " ".join([name, ", ".join(held)]).strip()
        case "boolean":
            return "boolean"
        case "string":
            return "text"
        case _:
            return "anything"


def tables(schema: Told, path: str = "") -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each table of the file, with its keys: name, type and default."""
    rows, below = list[tuple[str, str, str]](), list[tuple[Told, str]]()
    for key, given in schema["properties"].items():
        inner, place = resolved(given), f"{path}.{key}".strip(".")
        each = inner.get("additionalProperties") if "properties" not in inner else None
        items = resolved(inner.get("items", {}))
        if isinstance(each, Mapping) and "properties" in resolved(each):
            below.append((resolved(each), f"[{place}.{NAMES.get(key, 'NAME')}]"))
        elif "properties" in inner:
            below.append((inner, f"[{place}]"))
        elif "properties" in items:
            below.append((items, f"[[{place}]]"))
        else:
            default = given.get("default")
            shown = "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"
            rows.append((key, kind_of(given), "required" if key in schema.get("required", ()) else shown))
    if rows:
        yield path, rows
    for inner, place in below:
        for found, keys in tables(inner, place.strip("[]")):
            yield f"[{found}]" if place.startswith("[[") and found == place.strip("[]") else found, keys


def test_the_page_lists_every_table_and_key_with_type_and_default():
    page = PAGE.read_text(encoding="utf-8")
    listed: dict[str, list[tuple[str, str, str]]] = {}
    for heading, text in re.findall(r"^## `\[(.*)\]`.*\n((?:(?!## ).*\n?)*)", page, re.MULTILINE):
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.+) \|$", text, re.MULTILINE)
        listed[heading] = [(key, kind, default) for key, kind, default, _meaning in rows]
    assert listed == dict(tables(SCHEMA))


def test_the_page_tells_what_a_call_may_use_where_nothing_is_said():
    _before, _heading, text = PAGE.read_text(encoding="utf-8").partition("## `[sandbox.limits]`")
    told = dict(re.findall(r"^\| `(\w+)` \|.*; (\d+) where not given", text, re.MULTILINE))
    assert told == {name: f"{value:.0f}" for name, value in asdict(CallLimits()).items()}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("agent = 3", "agent: there is no 'agent' in this file; did you mean 'agents'?"),
        (
            "[agents.a]\nmodle = 'x'",
            "agents.a.modle: there is no 'modle' in [agents.a]; did you mean 'model'?",
        ),
        (
            "[agents.model.budget]\ndollars = 3",
            "dollars: there is no 'dollars' in [agents.model.budget]; there are: steps, tokens, seconds, usd",
        ),
        (
            "[[agents.a.policy.rules]]\ntools = ['x']\nargument = 'y'\nat_moost = 3",
            "0.at_moost: there is no 'at_moost' in [agents.a.policy.rules.0]; did you mean 'at_most'?",
        ),
        ("[agents.a.memory]\nrecal = 3", "in [agents.a.memory]; did you mean 'recall'?"),
        ("[tools.x]\nurll = 'http://x'", "in [tools.x]; did you mean 'url'?"),
        ("[mcp.serve.agents.a]\ntask = 'never'", "in [mcp.serve.agents.a]; did you mean 'tasks'?"),
        ("[sandbox.tools.x]\nhosts = [{ host = 'h', prot = 3 }]", "did you mean 'port'?"),
        (
            "[circuit]\nseconds = 3\nmax_seconds = 2",
            "circuit: seconds (3) must not be more than max_seconds (2)",
        ),
    ],
)
def test_a_key_that_is_none_is_told_with_the_one_that_was_meant(tmp_path: Path, text: str, problem: str):
    file = tmp_path / "opspawn.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_catalog(file)
    assert problem in str(refused.value)
