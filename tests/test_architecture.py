"""Statements of ARCHITECTURE.md that the code could outgrow: the layers, the paths it names, folders and circles."""

import re
import tomllib
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SOURCES = {"agentkit": ROOT / "packages/agentkit/src", "ops_core": ROOT / "packages/ops-core/src"}
FOLDER_MODULES = 20


def table_of_the_page() -> dict[str, list[list[str]]]:
    """The rows below the name of each package in the block of the section on layers."""
    block = PAGE.split("\n## The layers\n")[1].split("```")[1]
    tables: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in filter(None, block.splitlines()):
        if not line.startswith(" "):
            rows = tables.setdefault(line, [])
        else:
            rows.append(line.strip().split(" · "))
    return {name: rows for name, rows in tables.items() if name in SOURCES}


def table_of_the_linter() -> dict[str, list[list[str]]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return {
        contract["containers"][0]: [re.findall(r"\w+", row) for row in contract["layers"]]
        for contract in contracts["contracts"]
        if contract["type"] == "layers"
    }


def test_the_table_of_layers_is_that_of_the_linter() -> None:
    assert table_of_the_page() == table_of_the_linter()


def places(name: str) -> list[Path]:
    """Where a path of the page may be: from the root, or below a package, whose name may be left out."""
    return [ROOT / name, *(source / name for source in SOURCES.values())] + [
        source / package / name for package, source in SOURCES.items()
    ]


@pytest.mark.parametrize(
    "name", sorted({*re.findall(r"`([\w/]+(?:\.py|/))`", PAGE), *re.findall(r"\]\(([^):]+)\)", PAGE)})
)
def test_a_path_that_the_page_names_exists(name: str) -> None:
    assert any(place.exists() for place in places(name)), (
        f"ARCHITECTURE.md names {name}, which does not exist"
    )


def test_a_folder_can_be_read_at_a_glance() -> None:
    modules = Counter(
        path.parent.relative_to(source).as_posix()
        for source in SOURCES.values()
        for path in source.rglob("*.py")
        if path.name != "__init__.py" and "_pb2" not in path.name and path.parent.name != "versions"
    )
    crowded = {folder: count for folder, count in modules.items() if count > FOLDER_MODULES}
    assert not crowded, f"a folder holds at most {FOLDER_MODULES} modules; split it by meaning"


def test_imports_run_in_no_circle() -> None:
    """Those inside functions count; a package's face does not: loading a module of it loads the face first anyhow."""
    graph = grimp.build_graph("agentkit", "ops_core", cache_dir=None)
    imported = {
        module: {
            other
            for other in graph.find_modules_directly_imported_by(module)
            if not module.startswith(f"{other}.")
        }
        for module in graph.modules
    }
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' → '.join(reversed(error.args[1]))}", pytrace=False)
