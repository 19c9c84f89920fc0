"""The shape of the source: sizes, who reads the environment, where imports stand, what the repository holds.

Why there are budgets, and how one is raised: docs/decisions/0009-layers-and-size-budgets-are-checked.md.
Layers are held by import-linter (pyproject.toml).
"""

import ast
import io
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agentkit", "ops_core")

FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 7
WIDER = {
    "agentkit.tools.functions": 9,
    "ops_core.journal": 9,
    "ops_core.cli.commands.approvals": 8,
}  # declarations: each parameter is a property of a tool, or an option of a command
PORT_METHODS = 16

MAY_READ_THE_ENVIRONMENT = {
    "ops_core/settings.py",
    "agentkit/models/__init__.py",
    "agentkit/sandbox/confined/function_call.py",  # it makes that of a child, from nothing
    "agentkit/mcp/pool.py",
}

# (where, what, why): imports of our own code that may stand inside a function; both are beginnings of names.
LATE_IMPORTS = [
    (
        "ops_core.assembly",
        "ops_core.stores.migrations",
        "Alembic is a fifth of the start, and hardly ever needed",
    ),
    ("ops_core.dispatchers", "ops_core.dispatchers.", "the client of RabbitMQ loads when a URL asks for it"),
    ("ops_core.cli", "ops_core.", "a command loads only what it needs: `opspawn --help` is quick"),
    ("ops_core.cli", "agentkit", "as above"),
    ("ops_core.service", "ops_core.config.catalog", "reading a store loads no part of an agent"),
    ("ops_core.service", "ops_core.memory", "as above"),
    ("ops_core.service", "ops_core.schemas.agent_description", "as above"),
    ("ops_core.stores", "ops_core.observability.metrics", "its type alone; a command counts nothing"),
    (
        "agentkit.models",
        "agentkit.models.",
        "an adapter loads an SDK that may not be installed",
    ),
    ("agentkit.agent", "agentkit.", "declaring an agent loads nothing that only a run needs"),
    ("agentkit.sandbox.manager", "agentkit.sandbox.", "what only Linux has"),
    ("agentkit.mcp.pool", "agentkit.mcp.connection", "the SDK may not be installed"),
    ("agentkit.tools", "agentkit.net.http_client", "the HTTP client may not be installed"),
    ("agentkit.memories", "agentkit.models.adapter.http", "the HTTP client may not be installed"),
    (
        "agentkit.memories.embeddings",
        "agentkit.memories.",
        "a provider's wire loads when its embeddings are opened",
    ),
    (
        "agentkit.planning.react",
        "agentkit.planning.react_parser",
        "native planning needs none of its patterns",
    ),
    ("ops_core.client", "ops_core.client.grpc", "gRPC may not be installed"),
    ("ops_core.processes.server", "ops_core.rpc.serve", "as above"),
    ("ops_core.processes.server", "ops_core.mcp_server.", "the SDK of MCP may not be installed"),
    (
        "ops_core.stores",
        "ops_core.stores.",
        "drivers and migrations load when a URL asks for them",
    ),
]

ROOT_ENTRIES = {
    *{".ci", ".editorconfig", ".github", ".gitattributes", ".gitignore", ".pre-commit-config.yaml"},
    *{"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"},
    *{"Dockerfile", ".dockerignore", "Makefile", "compose.yaml", "pyproject.toml", "requirements.lock"},
    *{"benchmarks", "docs", "examples", "packages", "proto", "tests"},
}

# In pieces, so that this file does not find itself.
FORBIDDEN_TEXTS = [
    *("/" + folder + "/" for folder in ("work", "root")),
    *(name + "." + "org" for name in ("pypi", "pythonhosted", "registry.npmjs", "deb.debian")),
    "archive.ubuntu" + "." + "com",
]

SKIPPED_TOKENS = {
    *{tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT},
    *{tokenize.ENCODING, tokenize.ENDMARKER},
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """One module: its tree, and the numbers of its lines that hold code (no blank, comment or docstring)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.inside = "/".join(path.relative_to(ROOT).parts[3:])  # below packages/*/src
        self.module = self.inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.code = self._lines_of_code()

    def _lines_of_code(self) -> set[int]:
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in SKIPPED_TOKENS:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        return lines

    def size(self, function: Function) -> int:
        return len(
            self.code.intersection(range(function.lineno, (function.end_lineno or function.lineno) + 1))
        )

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def at(self, node: ast.AST | None = None) -> str:
        line = getattr(node, "lineno", 1)
        return f"{self.path.relative_to(ROOT).as_posix()}:{line}"

    @property
    def is_generated(self) -> bool:
        return "_generated" in self.inside or self.path.stem.endswith(("_pb2", "_pb2_grpc"))

    @property
    def is_migration(self) -> bool:
        return "/migrations/" in self.inside


def is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    """A string that stands alone: of a module, class, function or attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def sources() -> list[Source]:
    return [Source(path) for path in sorted(ROOT.glob("packages/*/src/**/*.py"))]


@cache
def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git repository: there is no list of files to look at")
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def report(problems: list[str]) -> None:
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


# ------------------------------------------------------------------------------------------------------ sizes


def test_a_file_is_one_noun() -> None:
    report(
        [
            f"{source.at()}: {len(source.code)} code lines, the budget of a file is {FILE_LINES}"
            for source in sources()
            if not source.is_generated and len(source.code) > FILE_LINES
        ]
    )


def test_a_function_is_one_verb() -> None:
    report(
        [
            f"{source.at(function)}: {function.name} has {source.size(function)} code lines, "
            f"the budget of a function is {FUNCTION_LINES}"
            for source in sources()
            if not source.is_generated and not source.is_migration
            for function in source.functions()
            if source.size(function) > FUNCTION_LINES
        ]
    )


def test_a_function_takes_few_parameters() -> None:
    report(
        [
            f"{source.at(function)}: {function.name} takes {count} parameters, the budget is {budget}"
            for source in sources()
            if not source.is_generated
            for function in source.functions()
            if (count := parameters(function)) > (budget := WIDER.get(source.module, PARAMETERS))
        ]
    )


def parameters(function: Function) -> int:
    """How many there are, self and cls not counted."""
    arguments = function.args
    positional = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    if positional[:1] in (["self"], ["cls"]):
        del positional[0]
    stars = [star for star in (arguments.vararg, arguments.kwarg) if star]
    return len(positional) + len(arguments.kwonlyargs) + len(stars)


def test_a_port_is_small() -> None:
    report(
        [
            f"{source.at(port)}: {port.name} has {count} methods, the budget of a port is {PORT_METHODS}"
            for source in sources()
            if source.path.name == "ports.py"
            for port in ast.walk(source.tree)
            if isinstance(port, ast.ClassDef) and is_protocol(port)
            if (count := sum(isinstance(member, Function) for member in port.body)) > PORT_METHODS
        ]
    )


def is_protocol(definition: ast.ClassDef) -> bool:
    return any(ast.unparse(base).split("[")[0].endswith("Protocol") for base in definition.bases)


# ------------------------------------------------------------------------------- the environment, the imports


def test_only_settings_read_the_environment() -> None:
    report(
        [
            f"{source.at(node)}: reads the environment; only {sorted(MAY_READ_THE_ENVIRONMENT)} may"
            for source in sources()
            if source.inside not in MAY_READ_THE_ENVIRONMENT
            for node in ast.walk(source.tree)
            if reads_the_environment(node)
        ]
    )


def reads_the_environment(node: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "putenv"}
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in names for alias in node.names)
    return isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os"


def test_our_own_modules_are_imported_at_the_top() -> None:
    report(
        [
            f"{source.at(node)}: imports {name} inside a function or under TYPE_CHECKING; "
            "move the shared thing down, or add it to LATE_IMPORTS with its reason"
            for source in sources()
            for node in late_imports(source.tree)
            if not is_export(node, source)
            for name in imported(node, source)
            if name.split(".")[0] in PACKAGES and not may_be_late(source.module, name)
        ]
    )


def late_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    for scope in ast.walk(tree):
        if isinstance(scope, Function) or (
            isinstance(scope, ast.If) and "TYPE_CHECKING" in ast.unparse(scope.test)
        ):
            yield from (node for node in ast.walk(scope) if isinstance(node, ast.Import | ast.ImportFrom))


def is_export(node: ast.AST, source: Source) -> bool:
    """What a package imports for type checkers alone, and exports by :mod:`agentkit.exports` to everybody else."""
    return (
        any(
            isinstance(one, ast.If)
            and ast.unparse(one.test) == "TYPE_CHECKING"
            and one.orelse
            and node in one.body
            for one in source.tree.body
        )
        and source.path.name == "__init__.py"
    )


def imported(node: ast.Import | ast.ImportFrom, source: Source) -> list[str]:
    """The full names of the modules (or of the things in them) that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parent = node.module or ""
    if node.level:
        package = source.module.split(".")
        up = node.level - (source.path.name == "__init__.py")
        parent = ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])
    return [f"{parent}.{alias.name}" for alias in node.names]


def may_be_late(module: str, name: str) -> bool:
    return any(
        f"{module}.".startswith(f"{where}.") and name.startswith(what) for where, what, _ in LATE_IMPORTS
    )


# --------------------------------------------------------------------------------------------- the repository


def test_the_root_holds_what_is_known() -> None:
    unknown = sorted({path.parts[0] for path in tracked()} - ROOT_ENTRIES)
    report([f"{name}:1: not an entry of the root; move it, or add it to ROOT_ENTRIES" for name in unknown])


def test_no_file_names_a_machine_or_a_package_index() -> None:
    problems = []
    for path in tracked():
        content = (ROOT / path).read_bytes()
        for text in FORBIDDEN_TEXTS:
            if (position := content.find(text.encode())) >= 0:
                line = content.count(b"\n", 0, position) + 1
                problems.append(f"{path.as_posix()}:{line}: holds {text!r}: one machine's, or an index's")
    report(problems)
