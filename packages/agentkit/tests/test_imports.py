"""What imports of the library load: lists of modules, since a time would depend on the machine."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import agentkit
import agentkit.memories
import agentkit.policies
import agentkit.sandbox
import agentkit.tools

LATE = {
    *("pydantic", "pydantic_core", "typing_extensions", "httpx2", "anyio", "mcp", "openai", "anthropic"),
    *("google.genai", "genai_prices", "opentelemetry"),
    # of the standard library, what takes long and is needed by few
    *(
        "bz2",
        "email",
        "html",
        "http",
        "lzma",
        "mimetypes",
        "platform",
        "shutil",
        "tempfile",
        "uuid",
        "sqlite3",
    ),
    *("multiprocessing", "random", "sysconfig", "unittest", "xml"),
    *("agentkit.mcp", "agentkit.memories.local", "agentkit.models.openai.client", "agentkit.models.offline"),
    *(
        "agentkit.models.adapter.json",
        "agentkit.models.provider_errors.classification",
        "agentkit.planning.react_parser",
    ),
    *(
        "agentkit.sandbox.backends.pool",
        "agentkit.sandbox.backends.jail",
        "agentkit.net.http_client",
        "agentkit.testing",
    ),
    *(
        "agentkit.policies.paths",
        "agentkit.policies.hosts",
        "agentkit.tools.http",
        "agentkit.tools.openapi",
    ),
    *("agentkit.sandbox.port", "agentkit.sandbox.backends.base", "agentkit.sandbox.manager"),
    # of a run
    *(
        "agentkit.budget.account",
        "agentkit.run.model_turn",
        "agentkit.run.tool_call",
        "agentkit.transcript.journals",
        "agentkit.run.loop",
    ),
    *(
        "agentkit.models.resilience.model",
        "agentkit.models.context_windows",
        "agentkit.run.next_step",
        "agentkit.run.memory",
    ),
}
"""Modules that load when they are needed, and not when an agent can be declared."""

LOADED = """
import json, sys
before = set(sys.modules)
{}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

PACKAGES = [agentkit, agentkit.memories, agentkit.policies, agentkit.sandbox, agentkit.tools]


def loaded_by(statement: str) -> set[str]:
    program = LOADED.format(statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return set(json.loads(done.stdout))


def test_importing_the_library_loads_nothing_of_it():
    loaded = loaded_by("import agentkit")
    assert {name for name in loaded if name.startswith("agentkit")} == {"agentkit", "agentkit.exports"}
    assert not loaded & {"asyncio", "dataclasses", "inspect", "json", "logging", "ssl"}


def test_a_module_of_the_library_does_not_load_the_others():
    loaded = loaded_by("import agentkit.errors")
    assert {name for name in loaded if name.startswith("agentkit.")} == {
        *("agentkit.errors", "agentkit.exports", "agentkit.recorded_text")
    }


def test_what_declares_an_agent_loads_nothing_that_only_a_run_needs():
    loaded = loaded_by("from agentkit import Agent, Limits, SecurityPolicy, tool")
    assert not loaded & LATE
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert foreign == {"agentkit"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_package_exports_what_type_checkers_see(package: ModuleType):
    tree = ast.parse(Path(package.__file__ or "").read_text())
    (choice,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in choice.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    exported = set(package.__all__)
    assert exported == set(seen)
    for name, module in seen.items():
        assert getattr(package, name) is getattr(import_module(module or ""), name)
    assert exported <= set(dir(package))


def test_modules_of_the_library_can_be_reached_as_attributes():
    program = "import agentkit; print(agentkit.errors.UsageError.__name__, agentkit.policies.SecurityPolicy.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["UsageError", "SecurityPolicy"]


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'agentkit' has no attribute 'Agnet'"):
        _ = agentkit.Agnet  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Agnet'"):
        exec("from agentkit import Agnet")
