"""Language of the source: how module docstrings begin, words that they avoid, names of modules.

A stranger searches by the words of the field, so they are the words of the code (CONTRIBUTING.md). A package is added
to ``CLEAN`` when its docstrings keep the rule, and stays there.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"agentkit": "packages/agentkit/src", "ops_core": "packages/ops-core/src"}
CLEAN = ("agentkit",)

QUESTION = re.compile(r"(how|what|when|where|whether|which|who|whose|why)\b", re.IGNORECASE)
DIALECT = re.compile(r"\b(anybody|in no hand|nobody|so many|somebody|told|whoever)\b", re.IGNORECASE)
FIELD_NOUNS = {"finding", "framing", "planning", "spending", "testing", "tracing"}

# "nobody" is a value of agentkit.errors.Actor: no one has to act on such an error
EXCEPTIONS = {"agentkit/errors.py": {"nobody"}}


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    source = ROOT / PACKAGES[package]
    for path in sorted((source / package).rglob("*.py")):
        yield path.relative_to(source).as_posix(), path


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@pytest.mark.parametrize("package", CLEAN)
def test_module_docstrings_begin_with_a_noun(package: str) -> None:
    """A module docstring names its subject; it does not begin like an indirect question."""
    questions = {
        name: docstring.split("\n", 1)[0]
        for name, path in _modules(package)
        if QUESTION.match(docstring := _docstring(path))
    }
    assert not questions


@pytest.mark.parametrize("package", CLEAN)
def test_module_docstrings_use_plain_words(package: str) -> None:
    """A module docstring says who acts: a caller, a process, a person."""
    words = {
        name: found
        for name, path in _modules(package)
        if (
            found := {word.lower() for word in DIALECT.findall(_docstring(path))}
            - EXCEPTIONS.get(name, set())
        )
    }
    assert not words


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_named_by_nouns(package: str) -> None:
    """A module is a noun; the gerunds among them are nouns of the field."""
    parts = {part for name, _ in _modules(package) for part in name.removesuffix(".py").split("/")}
    gerunds = {part for part in parts if part.endswith("ing")}
    numbered = {
        part for part in gerunds if re.match(r"\d{4}_", part)
    }  # migrations keep the names they were applied by
    assert gerunds - numbered <= FIELD_NOUNS
