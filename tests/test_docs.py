"""Every example in README.md and docs/ runs.

A page is one test. Its ```python blocks are scripts that share one namespace. Its ```console blocks are shell
sessions: lines after ``$`` are run, the lines below a command are its output (``...`` stands for anything).
Both run in the same empty directory, without provider keys. A block that cannot run says why, directly above
its fence:

    <!-- not run: needs a provider key -->
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KNOWN_COMMANDS = {"opspawn", "python", "make"}
REFUSED_LANGUAGES = {"py", "python3", "pycon", "sh", "bash", "zsh", "shell", "shell-session"}

NOT_RUN = re.compile(r"<!-- not run: \S[^>]{8,} -->\s*\Z")
FENCE = re.compile(r"^[ \t]*`{3,}(?P<language>[\w-]+)[ \t]*$", re.MULTILINE)
COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_python(example: Example) -> None:
    if not excused(example.document.text, example.start):
        PythonEvaluator()(example)


def run_console(example: Example) -> str | None:
    """Run one session; answer what went wrong, or nothing."""
    if excused(example.document.text, example.start):
        return None
    for command, expected in session(example.parsed):
        words = [word for word in shlex.split(command, comments=True) if not re.match(r"[A-Z_]+=", word)]
        if not words or words[0] not in KNOWN_COMMANDS:
            return f"`{command}`: not one of {sorted(KNOWN_COMMANDS)}; run it, or say above the block why not"
        if problem := run_command(command, words[0], expected):
            return problem
    return None


def run_command(command: str, program: str, expected: str) -> str | None:
    if program == "make":  # the target exists; running it would run these tests again
        command = f"cd {shlex.quote(str(ROOT))} && {command} --dry-run --no-print-directory"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"`{command}` ended with {done.returncode}:\n{done.stdout}"
    if program != "make" and expected and not matches(expected, done.stdout):
        return f"`{command}` printed\n{done.stdout}\nand the page says\n{expected}"
    return None


def session(source: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows for it."""
    joined = re.sub(r"\\\n(?:> ?)?[ \t]*", "", source)
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command.strip(), output.strip()


def matches(expected: str, printed: str) -> bool:
    wanted = expected.replace("…", "...")
    return doctest.OutputChecker().check_output(wanted + "\n", printed.strip() + "\n", COMPARE)


def excused(text: str, start: int) -> bool:
    return NOT_RUN.search(text[:start]) is not None


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An empty directory, this environment's programs, no keys, and a fresh ``__main__``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("OPSPAWN_", "MAKE", "MFLAGS")):
            monkeypatch.delenv(name)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, stage: types.ModuleType) -> None:
    parsers = CodeBlockParser("python", run_python), CodeBlockParser("console", run_console)
    document = Document.parse(str(page), *parsers)
    document.namespace = vars(stage)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_example_hides_behind_another_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT)
    hidden = [
        f"{name}:{text.count(chr(10), 0, fence.start()) + 1}: ```{fence['language']} is not run; "
        "write ```python or ```console, or say above the block why it is not run"
        for fence in FENCE.finditer(text)
        if fence["language"] in REFUSED_LANGUAGES and not excused(text, fence.start())
    ]
    if hidden:
        pytest.fail("\n".join(hidden), pytrace=False)
