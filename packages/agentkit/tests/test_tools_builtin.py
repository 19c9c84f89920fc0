"""The tools that every installation has: what they answer, and what they refuse."""

import asyncio
import math
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import BadArguments, ToolError, UnknownTool
from agentkit.messages import Effect, ToolCall
from agentkit.ports import ToolContext
from agentkit.tools import files
from agentkit.tools.everyday import everyday_tools
from agentkit.tools.files import DirectoryReader
from agentkit.tools.functions import FunctionToolset, Tool


def use(tools: list[Tool], name: str, **arguments: Any) -> Any:
    """Call a tool as an agent does: through the toolset, with JSON arguments."""
    context: ToolContext[Any] = ToolContext(deps=None, run_id="run", call_id="call", idempotency_key="key")
    return asyncio.run(
        FunctionToolset(tools).call(ToolCall(id="call", name=name, arguments=arguments), context)
    )


def everyday(name: str, **arguments: Any) -> Any:
    return use(everyday_tools(), name, **arguments)


def calculate(expression: str) -> Any:
    return everyday("calculator", expression=expression)


def test_the_everyday_tools_change_nothing_and_describe_themselves():
    tools = everyday_tools()
    assert [tool.name for tool in tools] == [
        *(
            "calculator",
            "today",
            "now",
            "days_between",
            "add_days",
            "weekday",
            "text_statistics",
            "count_occurrences",
        ),
        *("list_files", "read_text", "file_statistics", "find_in_files"),
    ]
    for tool in tools:
        assert tool.spec.effect is Effect.PURE
        assert tool.spec.description
        for parameter in tool.spec.parameters["properties"].values():
            assert parameter.get("description"), (tool.name, parameter)


# --- calculator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression, value",
    [
        ("12*7 + sqrt(81)", 93),
        ("6/2", 3),
        ("7/2", 3.5),
        ("7 // 2", 3),
        ("-7 % 3", 2),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("2 ** 0", 1),
        ("3 × 4 ÷ 2 − 1", 5),
        ("sqrt(2)", math.sqrt(2)),
        ("sqrt(10**40)", 10**20),
        ("min(3, 1, 2) + max([4, 5])", 6),
        ("sum(1, 2, 3) + sum([4, 5])", 15),
        ("round(2.567, 2)", 2.57),
        ("round(1234, -2)", 1200),
        ("floor(2.5) + ceil(2.5)", 5),
        ("abs(-3)", 3),
        ("2 * pi", 2 * math.pi),
        ("e", math.e),
        ("1e3", 1000.0),
        ("1_000 + .5", 1000.5),
        ("+5", 5),
        ("(1 + 2) * (3 + 4)", 21),
        ("10 ** 400 / 10 ** 399", 10),
        ("1 ** 10 ** 300", 1),
        (" 1\n+ 1 ", 2),
    ],
)
def test_the_calculator_calculates(expression, value):
    result = calculate(expression)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "expression, words",
    [
        ("", "empty"),
        ("   ", "empty"),
        ("1 +", "not complete"),
        ("(1 + 2", "not complete"),
        ("1 2", "not complete"),
        ("1/0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("2 ^ 3", "**"),
        ("9**9**9", "too large"),
        ("9**9**9**9", "too large"),
        ("(-9)**9**9", "too large"),
        ("10 ** 4000", "too large"),
        ("(10 ** 1000) * (10 ** 1000)", "too large"),
        ("9" * 999 + "*" + "9", "longer than"),
        ("10.0 ** 400", "too large"),
        ("1e308 * 10", "finite"),
        ("1e999", "finite"),
        ("10 ** 400 * 1.5", "too large"),
        ("(-8) ** (1/3)", "negative"),
        ("sqrt(-1)", "negative"),
        ("round(5, -10**9)", "at most"),
        ("round(5, 1.5)", "at most"),
        ("round()", "round takes"),
        ("sqrt()", "exactly one"),
        ("sqrt(1, 2)", "exactly one"),
        ("max()", "at least one"),
        ("max([])", "at least one"),
        ("sqrt", "parentheses"),
        ("x + 1", "no variables"),
        ("True + 1", "not arithmetic"),
        ("1j", "letter"),
        ("0x10", "letter"),
        ("2x", "letter"),
        ("1if 1else 2", "letter"),
        ("1e5or 2", "letter"),
        ("2(3)", "write *"),
        ("(2)(3)", "write *"),
        ("1,000 + 1", "comma"),
        ("log(2)", "not known"),
        ("round(2.5, ndigits=1)", "does not belong"),
        ("__import__('os')", "does not belong"),
        ("__import__(os)", "not known"),
        ("(1).real", "not arithmetic"),
        ("pi.real", "not arithmetic"),
        ("sqrt.__class__", "not arithmetic"),
        ("'a' * 3", "does not belong"),
        ("(x := 1)", "does not belong"),
        ("lambda: 1", "does not belong"),
        ("[x for x in [1]]", "not arithmetic"),
        ("[1][0]", "not arithmetic"),
        ("[1, 2]", "not arithmetic"),
        ("max(*[1, 2])", "not arithmetic"),
        ("1 if 2 else 3", "not arithmetic"),
        ("1 and 2", "not arithmetic"),
        ("not 1", "not arithmetic"),
        ("await pi", "not"),
        ("1 << 10**9", "does not belong"),
        ("1 < 2", "does not belong"),
        ("~1", "does not belong"),
        ("{1}", "does not belong"),
        ("f'{1}'", "does not belong"),
        ("1; 2", "does not belong"),
        ("1 # 2", "does not belong"),
        ("1\0", "does not belong"),
        ("𝟏 + 1", "does not belong"),
        ("(" * 150 + "1" + ")" * 150, None),
        ("-" * 900 + "1", "nested"),
        ("+".join(["1"] * 400), "nested"),
        ("sum(" + "1," * 480 + "1)", None),
        ("sum(" + "1," * 499 + "1)", "longer than"),
        ("max(" * 90 + "1" + ")" * 90, None),
        ("max(" * 120 + "1" + ")" * 120, "nested"),
    ],
)
@pytest.mark.timeout(30)  # computed instead of refused, some would never end
def test_the_calculator_says_what_is_wrong(expression, words):
    if words is None:  # large, but harmless: answered or refused, never anything else
        with suppress(ToolError):
            assert calculate(expression) in {1, 481}
    else:
        with pytest.raises(ToolError) as refused:
            calculate(expression)
        assert words in str(refused.value)
        assert len(str(refused.value)) < 300


NUMBERS = st.integers(0, 10**6).map(str) | st.floats(0, 1e6).map(lambda value: repr(round(value, 3)))
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        )
        | inner.map(lambda text: f"-({text})")
        | st.tuples(inner, st.integers(0, 3)).map(lambda parts: f"({parts[0]}) ** {parts[1]}")
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"max([{', '.join(parts)}])")
        | inner.map(lambda text: f"abs({text})")
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_the_calculator_agrees_with_python(expression):
    from agentkit.tools.calculator import evaluate

    try:
        expected = eval(expression)
    except (ArithmeticError, ValueError):
        expected = None
    try:
        result = evaluate(expression)
    except ToolError as refused:
        result, why = None, str(refused)
    if result is None:
        assert expected is None or any(words in why for words in ("too large", "finite", "longer"))
        return
    assert expected is not None
    assert result == expected or math.isclose(result, expected, rel_tol=1e-9)


@given(st.text(alphabet="0123456789.+-*/%()[], episqrtumaxjxand^_\"':=", max_size=40))
def test_the_calculator_answers_whatever_it_is_given(text):
    from agentkit.tools.calculator import evaluate

    try:
        value = evaluate(text)
    except ToolError:
        return
    assert type(value) in {int, float}
    assert math.isfinite(value)


# --- dates ---------------------------------------------------------------------------------------------------------


def test_dates_are_counted_by_the_calendar():
    assert everyday("days_between", start="2024-02-28", end="2024-03-01") == 2
    assert everyday("days_between", start="2024-03-01", end="2024-02-28") == -2
    assert everyday("add_days", date="2025-01-01", days=90) == "2025-04-01"
    assert everyday("add_days", date="2024-03-01", days=-1) == "2024-02-29"
    assert everyday("weekday", date="1969-07-20") == "Sunday"


def test_today_and_now_know_time_zones():
    before = everyday("now")
    assert before.endswith("+00:00")
    assert everyday("today") in {before[:10], everyday("now")[:10]}
    try:
        local = everyday("now", timezone="Asia/Tokyo")
    except ToolError:
        assert sys.platform == "win32"  # no time zone database
    else:
        assert local.endswith("+09:00")


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("weekday", {"date": "2023-02-29"}, "date: must be a date"),
        ("weekday", {"date": "tomorrow"}, "date: must be a date"),
        ("days_between", {"start": "2024-01-01", "end": ""}, "end: must be a date"),
        ("days_between", {"start": "2024-01-01T10:00", "end": "2024-01-01"}, "start: must be a date"),
        ("add_days", {"date": "9999-12-31", "days": 1}, "years"),
        ("add_days", {"date": "2024-01-01", "days": 10**12}, "years"),
        ("now", {"timezone": "Middle/Earth"}, "timezone"),
        ("now", {"timezone": "../../etc/passwd"}, "timezone"),
        ("now", {"timezone": "Europe"}, "timezone"),
        ("now", {"timezone": ""}, "timezone"),
        ("today", {"timezone": "\0"}, "timezone"),
    ],
)
def test_dates_that_are_none_are_refused(name, arguments, words):
    with pytest.raises(ToolError, match=words):
        everyday(name, **arguments)


# --- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, characters, words, lines, sentences",
    [
        ("", 0, 0, 0, 0),
        ("one", 3, 1, 1, 1),
        ("One. Two! Three?", 16, 3, 1, 3),
        ("a b\nc\n", 6, 3, 2, 1),
        ("\n\n", 2, 0, 2, 0),
        ("Version 3.14 is out... Really?!", 31, 5, 1, 2),
        ("naïve café 🙂", 12, 3, 1, 1),
    ],
)
def test_text_statistics(text, characters, words, lines, sentences):
    assert everyday("text_statistics", text=text) == {
        "characters": characters,
        "words": words,
        "lines": lines,
        "sentences": sentences,
    }


def test_occurrences_are_counted_literally():
    assert everyday("count_occurrences", text="A cat, a category.", wanted="cat") == 2
    assert everyday("count_occurrences", text="A cat, a category.", wanted="cat", whole_words=True) == 1
    assert everyday("count_occurrences", text="Cat cat", wanted="cat", ignore_case=False) == 1
    assert everyday("count_occurrences", text="a.b axb (", wanted="a.b") == 1
    assert everyday("count_occurrences", text="aaaa", wanted="aa") == 2
    with pytest.raises(ToolError, match="empty"):
        everyday("count_occurrences", text="x", wanted="")


@given(st.text(), st.text(min_size=1, max_size=2))
def test_occurrences_agree_with_python(text, wanted):
    from agentkit.tools.text import literal

    found = literal(wanted, whole_words=False, ignore_case=False).findall(text)
    assert len(found) == text.count(wanted)


@pytest.mark.timeout(30)  # taken for sentences one by one, it would be read for minutes
def test_a_long_row_of_dots_is_read():
    everyday("text_statistics", text="." * 1_000_000 + "x")


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    inside = tmp_path / "inside"
    (inside / "docs" / "deep").mkdir(parents=True)
    (inside / "README.md").write_text("one two\nThe lease, a LEASE.\n", encoding="utf-8")
    (inside / "docs" / "guide.md").write_text("leases\nhere\nlease\n", encoding="utf-8")
    (inside / "docs" / "deep" / "code.py").write_text("print('ü')\n", encoding="utf-8")
    (inside / "picture.bin").write_bytes(b"\0\1lease")
    (inside / "latin.txt").write_bytes(b"caf\xe9\n")
    (inside / "marked.txt").write_bytes(b"\xef\xbb\xbfabc")
    (inside / ".env").write_text("KEY=lease", encoding="utf-8")
    (inside / ".git").mkdir()
    (inside / ".git" / "config.txt").write_text("lease", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("lease of the outside", encoding="utf-8")
    return inside


def look(root: Path, name: str, **arguments: Any) -> Any:
    return use(DirectoryReader(root).tools, name, **arguments)


def link(path: Path, target: Path | str, **options: Any) -> None:
    try:
        path.symlink_to(target, **options)
    except (OSError, NotImplementedError):
        pytest.skip("this system lets nobody make links here")


@pytest.fixture(params=["relative", "checked"])
def way(request, monkeypatch):
    """Both ways to open a file: relative to its directory, and, for systems without that, after a check."""
    if request.param == "relative" and not files._RELATIVE:
        pytest.skip("this system cannot open relative to a directory")
    monkeypatch.setattr(files, "_RELATIVE", request.param == "relative")


@pytest.mark.usefixtures("way")
class TestFiles:
    @pytest.mark.parametrize(
        "pattern, found, folders",
        [
            ("*", ["README.md", "latin.txt", "marked.txt", "picture.bin"], ["docs"]),
            ("*.md", ["README.md"], []),
            ("**/*.md", ["README.md", "docs/guide.md"], []),
            ("docs/*", ["docs/guide.md"], ["docs/deep"]),
            ("docs/**", ["docs/guide.md", "docs/deep/code.py"], ["docs", "docs/deep"]),
            ("**/code.??", ["docs/deep/code.py"], []),
            ("./docs//guide.md", ["docs/guide.md"], []),
            ("nothing", [], []),
            ("**/**/**/*.py", ["docs/deep/code.py"], []),
        ],
    )
    def test_files_are_listed_by_pattern(self, root, pattern, found, folders):
        listed = look(root, "list_files", pattern=pattern)
        assert listed == {"files": found, "folders": folders, "complete": True}

    def test_a_file_is_read_in_parts(self, root):
        (root / "long.txt").write_text("0123456789" * 3, encoding="utf-8")
        assert look(root, "read_text", path="docs/guide.md") == "leases\nhere\nlease\n"
        first = look(root, "read_text", path="long.txt", max_characters=12)
        assert first == "012345678901\n[cut: 30 characters in all; read on with start=12]"
        assert look(root, "read_text", path="long.txt", start=12) == "234567890123456789"
        assert look(root, "read_text", path="long.txt", start=99) == ""
        with pytest.raises(ToolError, match="at least"):
            look(root, "read_text", path="long.txt", max_characters=0)

    def test_encodings(self, root):
        assert look(root, "read_text", path="latin.txt") == "caf\N{REPLACEMENT CHARACTER}\n"
        assert look(root, "read_text", path="marked.txt") == "abc"
        with pytest.raises(ToolError, match="not a text file"):
            look(root, "read_text", path="picture.bin")

    def test_statistics_of_a_file(self, root):
        statistics = look(root, "file_statistics", path="docs/guide.md")
        assert statistics == {"characters": 18, "words": 3, "lines": 3, "sentences": 1}

    def test_files_are_searched(self, root):
        found = look(root, "find_in_files", text="lease")
        assert found["occurrences"] == 4
        assert [(match["path"], match["line"]) for match in found["matches"]] == [
            *(("README.md", 2), ("docs/guide.md", 1), ("docs/guide.md", 3)),
        ]
        assert found["matches"][0]["text"] == "The lease, a LEASE."
        assert found["complete"]
        assert (
            look(root, "find_in_files", text="lease", pattern="docs/**", whole_words=True)["occurrences"] == 1
        )
        assert (
            look(root, "find_in_files", text="lease", pattern="*.md", ignore_case=False)["occurrences"] == 1
        )
        assert look(root, "find_in_files", text="absent")["matches"] == []
        with pytest.raises(ToolError, match="no such file"):
            look(root, "find_in_files", text="lease", pattern="missing.md")

    @pytest.mark.parametrize(
        "path",
        [
            *(
                "../secret.txt",
                "docs/../../secret.txt",
                "..",
                "docs/..",
                "/etc/passwd",
                "//etc/passwd",
                "~/x",
                "~root",
            ),
            *(
                ".env",
                ".git/config.txt",
                "docs/.hidden",
                "",
                ".",
                "docs",
                "missing.txt",
                "README.md/x",
                "a\0b",
                "\ud800",
            ),
            *("x" * 5000, "docs/" * 900 + "x", "README.md/../README.md"),
        ],
    )
    def test_what_is_not_a_file_of_the_directory_is_refused(self, root, path):
        for name in ("read_text", "file_statistics"):
            with pytest.raises(ToolError) as refused:
                look(root, name, path=path)
            assert "secret" not in str(refused.value)
            assert str(root.parent) not in str(refused.value)

    @pytest.mark.parametrize(
        "pattern", ["../*", "/etc/*", "**/../*", "~/*", ".*", ".git/*", "x" * 400, "a\0"]
    )
    def test_patterns_stay_inside(self, root, pattern):
        for name, more in (("list_files", {}), ("find_in_files", {"text": "lease"})):
            with pytest.raises(ToolError):
                look(root, name, pattern=pattern, **more)

    def test_links_are_never_followed(self, root):
        link(root / "out.txt", root.parent / "secret.txt")
        link(root / "away", root.parent, target_is_directory=True)
        link(root / "same.txt", "README.md")
        link(root / "round", "round")
        for path in ("out.txt", "away/secret.txt", "same.txt", "round", "away"):
            with pytest.raises(ToolError, match=r"link|no such file"):
                look(root, "read_text", path=path)
        listed = look(root, "list_files", pattern="**/*")
        assert not {"out.txt", "away", "same.txt", "round"} & {*listed["files"], *listed["folders"]}
        assert look(root, "find_in_files", text="outside")["occurrences"] == 0
        with pytest.raises(ToolError):
            look(root, "find_in_files", text="lease", pattern="away/*")

    def test_the_directory_itself_may_be_a_link(self, root):
        link(root.parent / "entrance", root, target_is_directory=True)
        assert look(root.parent / "entrance", "read_text", path="marked.txt") == "abc"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_only_regular_files_are_read(self, root):
        os.mkfifo(root / "pipe.txt")
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(root)  # a socket's path is short
            try:
                server.bind("socket.txt")
            finally:
                os.chdir(here)
            for path in ("pipe.txt", "socket.txt"):
                with pytest.raises(ToolError):
                    look(root, "read_text", path=path)
        assert "pipe.txt" not in look(root, "list_files")["files"]
        assert look(root, "find_in_files", text="lease", pattern="*")["occurrences"] == 2

    def test_sizes_are_bounded(self, root, monkeypatch):
        monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
        with pytest.raises(ToolError, match="larger than 10 bytes"):
            look(root, "read_text", path="README.md")
        monkeypatch.setattr(files, "MAX_LISTED", 2)
        assert (
            look(root, "list_files") == {"files": ["README.md"], "folders": ["docs"], "complete": False}
            or not (look(root, "list_files")["complete"])
        )
        monkeypatch.setattr(files, "MAX_ENTRIES", 3)
        assert not look(root, "find_in_files", text="nothing", pattern="**")["complete"]

    def test_searching_is_bounded(self, root, monkeypatch):
        (root / "many.txt").write_text("lease lease\n" * 500, encoding="utf-8")
        (root / "wide.txt").write_text("x" * 10_000 + "lease" + "y" * 10_000, encoding="utf-8")
        found = look(root, "find_in_files", text="lease", pattern="many.txt")
        assert (found["occurrences"], len(found["matches"])) == (1000, 100)
        (match,) = look(root, "find_in_files", text="lease", pattern="wide.txt")["matches"]
        assert "lease" in match["text"]
        assert len(match["text"]) <= 200
        monkeypatch.setattr(files, "MAX_SEARCHED_CHARACTERS", 100)
        assert not look(root, "find_in_files", text="lease")["complete"]

    def test_a_directory_that_is_not_there(self, tmp_path):
        for name, arguments in (
            ("list_files", {}),
            ("read_text", {"path": "x"}),
            ("find_in_files", {"text": "x"}),
        ):
            with pytest.raises(ToolError) as refused:
                look(tmp_path / "missing", name, **arguments)
            assert str(tmp_path) not in str(refused.value)


def test_an_exchanged_folder_is_not_followed(root):
    """Between two calls a folder becomes a link to the outside: the next call sees the link."""
    if not files._RELATIVE:
        pytest.skip("this system cannot open relative to a directory")
    reader = DirectoryReader(root).tools
    assert use(reader, "read_text", path="docs/guide.md").startswith("leases")
    (root / "docs").rename(root / "old")
    (root.parent / "guide.md").write_text("outside", encoding="utf-8")
    link(root / "docs", root.parent, target_is_directory=True)
    with pytest.raises(ToolError):
        use(reader, "read_text", path="docs/guide.md")


@pytest.mark.timeout(30)  # tried in all ways, these would never end
def test_no_pattern_goes_on_for_ever(root):
    (root / ("a" * 200)).write_text("x", encoding="utf-8")
    look(root, "list_files", pattern="*a" * 100 + "b")
    look(root, "list_files", pattern="**/" * 90 + "x")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only there")
def test_names_that_are_no_text_are_shown_all_the_same(root):
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_text("x", encoding="utf-8")
    except OSError:
        pytest.skip("this file system refuses such names")
    assert "\N{REPLACEMENT CHARACTER}.txt" in look(root, "list_files")["files"]


def test_wrong_arguments_are_named(root):
    with pytest.raises(BadArguments, match="path"):
        look(root, "read_text")
    with pytest.raises(UnknownTool):
        look(root, "write_text", path="x")
