"""Reading files in one directory, and no others."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import BadArguments, ToolError, UnknownTool
from agentkit.tools.builtin import files
from agentkit.tools.builtin.files import DirectoryReader

from .builtin_tools import use  # type: ignore[import-not-found]


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
