"""The phrases about files and texts, and the calls they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentkit.models.offline.calls import Argument, Call, calculation
from agentkit.models.offline.tokens import Cursor, Kind, Parsed, Token

_UNITS = {
    "word": "words",
    "words": "words",
    "line": "lines",
    "lines": "lines",
    "sentence": "sentences",
    "sentences": "sentences",
    "character": "characters",
    "characters": "characters",
    "char": "characters",
    "chars": "characters",
}
_TEXTS = (
    "following text",
    "following sentence",
    "text",
    "sentence",
    "phrase",
    "string",
    "paragraph",
    "following",
)
_IN_TOTAL = ("in total", "altogether", "all together", "combined", "together")
_ALL_FILES = (
    "all the files",
    "all files",
    "the files",
    "any file",
    "every file",
    "each file",
    "files",
    "here",
)
_FOLDERS = ("folder", "directory")
_BARE_FILES = frozenset({"makefile", "dockerfile", "readme", "changelog", "license", "contributing"})
_AND = (", and", ",", "and", "&", "as well as")


@dataclass(frozen=True, slots=True)
class Source:
    """Where there is something to count."""

    text: str
    is_file: bool


def several(cursor: Cursor, parse: Callable[[], Parsed | None], *separators: str) -> list[Parsed]:
    """What ``parse`` finds, once or more, with separators between; empty where it finds nothing."""

    def another() -> Parsed | None:
        return parse() if cursor.accept(*separators) else None

    found: list[Parsed] = []
    following = cursor.attempt(parse)
    while following is not None:
        found.append(following)
        following = cursor.attempt(another)
    return found


# --- counting ----------------------------------------------------------------------------------------------------


def counts(cursor: Cursor) -> list[Call] | None:
    """``how many words are in …``, ``count the lines of …``, ``the number of times that … occurs in …``."""
    return cursor.attempt(lambda: _statistics(cursor)) or cursor.attempt(lambda: _occurrences(cursor))


def _statistics(cursor: Cursor) -> list[Call] | None:
    asked = cursor.accept("count up", "count", "how many", "determine", "find out", "get")
    wanted = _units(cursor)
    if not wanted:
        return None
    together = cursor.accept(*_IN_TOTAL)
    if asked == "how many" and (found := cursor.attempt(lambda: _that_has(cursor))):
        pass
    else:
        cursor.skip("are", "is", "there", "were", "contained")
        together = cursor.accept(*_IN_TOTAL) or together
        found = sources(cursor) if cursor.accept("in", "of", "from", "for", "within", "inside") else []
    if not found:
        return None
    together = cursor.accept(*_IN_TOTAL) or together
    calls = [_statistic(source, unit) for source in found for unit in wanted]
    return [total(calls)] if together and len(calls) > 1 else calls


def _that_has(cursor: Cursor) -> list[Source] | None:
    """As in ``how many words does notes.txt have``."""
    verb = cursor.accept("does", "do", "has", "have")
    found = sources(cursor) if verb else []
    if not found or (verb in {"does", "do"} and not cursor.accept("have", "contain", "hold")):
        return None
    return found


def _units(cursor: Cursor) -> list[str]:
    cursor.skip("the")
    if cursor.accept("word count", "word counts"):
        return ["words"]
    if cursor.accept("line count", "line counts"):
        return ["lines"]

    def unit() -> str | None:
        cursor.skip("the", "total", "number of", "amount of", "all")
        token = cursor.take(Kind.WORD)
        return _UNITS.get(token.low) if token is not None else None

    return several(cursor, unit, *_AND)


def _statistic(source: Source, unit: str) -> Call:
    if source.is_file:
        return Call("file_statistics", (("path", source.text),), unit)
    return Call("text_statistics", (("text", source.text),), unit)


def total(calls: list[Call]) -> Call:
    """The sum of the calls' results."""
    pieces = [piece for call in calls for piece in (" + ", call)]
    return calculation(*pieces[1:])


def _occurrences(cursor: Cursor) -> list[Call] | None:
    verb = cursor.accept("how often", "how many times")
    if verb:
        cursor.skip("does", "do", "is", "are", "was", "can")
    else:
        cursor.skip("count", "how many", "the", "number of", "all")
        if not cursor.accept("occurrences of", "mentions of", "appearances of"):
            return None
    whole, wanted = _wanted(cursor)
    if wanted is None:
        return None
    cursor.skip(
        "there", "are", "is", "occur", "occurs", "appear", "appears", "mentioned", "used", "found", "come up"
    )
    if not cursor.accept("in", "within", "inside"):
        return None
    if (folder := cursor.attempt(lambda: place(cursor))) is not None:
        return [_search(wanted, folder, whole=whole)]
    return [_occurrence(wanted, source, whole=whole) for source in sources(cursor)] or None


def _wanted(cursor: Cursor) -> tuple[bool, str | None]:
    """What is looked for, and whether it is meant as a whole word."""
    cursor.skip("the")
    whole = cursor.accept("word", "words", "term") is not None
    cursor.skip("text", "phrase", "string")
    token = cursor.take(Kind.QUOTED) or cursor.take(Kind.WORD)
    return whole, token.text if token is not None and token.text else None


def _occurrence(wanted: str, source: Source, *, whole: bool) -> Call:
    if source.is_file:
        return _search(wanted, source.text, whole=whole)
    option: tuple[tuple[str, Argument], ...] = (("whole_words", True),) if whole else ()
    return Call("count_occurrences", (("text", source.text), ("wanted", wanted), *option))


def _search(wanted: str, pattern: str, *, whole: bool) -> Call:
    option: tuple[tuple[str, Argument], ...] = (("whole_words", True),) if whole else ()
    return Call("find_in_files", (("text", wanted), ("pattern", pattern), *option), "occurrences")


def sources(cursor: Cursor) -> list[Source]:
    """Files and quoted texts: ``README.md and in "some text"``; empty where there are none."""

    def source() -> Source | None:
        cursor.skip("in", "of", "both", "each of", "from")
        return _source(cursor)

    return several(cursor, source, *_AND)


def _source(cursor: Cursor) -> Source | None:
    cursor.skip("the", "this", "my")
    if cursor.accept("file", "document", "files"):
        token = cursor.take(Kind.PATH) or cursor.take(Kind.QUOTED) or cursor.take(Kind.WORD)
        return Source(token.text, is_file=True) if token is not None else None
    if cursor.accept(*_TEXTS):
        cursor.skip(":", "text", "is")
        token = cursor.take(Kind.QUOTED)
        return Source(token.text, is_file=False) if token is not None else None
    token = cursor.take(Kind.PATH) or cursor.take(Kind.QUOTED) or cursor.take(Kind.WORD)
    return _meant(token) if token is not None else None


def _meant(token: Token) -> Source | None:
    """A quoted file name is a file; a word is one only if everybody calls a file so."""
    if token.kind is Kind.WORD:
        return Source(token.text, is_file=True) if token.low in _BARE_FILES else None
    stem, dot, extension = token.text.rpartition(".")
    named = bool(stem and dot) and extension.isalnum() and extension[0].isalpha() and not stem[-1].isspace()
    looks_like_file = named and len(extension) < 9 and len(token.text.split()) == 1
    return Source(token.text, is_file=token.kind is Kind.PATH or looks_like_file)


# --- looking into files ------------------------------------------------------------------------------------------


def place(cursor: Cursor) -> str | None:
    """A pattern for ``the docs``, ``the folder src``, ``all files``, ``*.md``; not for one single file."""
    if cursor.accept(*_ALL_FILES, "this folder", "this directory", "the folder", "the directory"):
        token = cursor.take(Kind.WORD) if cursor.accept("called", "named") else None
        return f"{token.text}/**" if token is not None else "**/*"
    cursor.skip("the", *_FOLDERS)
    token = cursor.take(Kind.PATH)
    if token is not None:
        if "*" in token.text:
            return token.text
        is_folder = cursor.accept(*_FOLDERS) or token.text.endswith("/")
        return token.text.rstrip("/") + "/**" if is_folder else None
    token = cursor.take(Kind.WORD)
    if token is None or token.low in _BARE_FILES or token.low in _TEXTS or token.low == "file":
        return None
    cursor.skip(*_FOLDERS)
    return f"{token.text}/**"


def search(cursor: Cursor) -> list[Call] | None:
    """``find 'lease' in the docs``, ``where is the word lease used``."""
    if cursor.accept("where is", "where are", "where does", "where do") is None and not cursor.accept(
        "find", "search for", "look for", "grep for", "grep"
    ):
        return None
    cursor.skip("all", "occurrences of", "mentions of")
    whole, wanted = _wanted(cursor)
    if wanted is None:
        return None
    cursor.skip("mentioned", "used", "found", "occur", "appear")
    if not cursor.accept("in", "within", "inside"):
        return (
            [_search(wanted, "**/*", whole=whole)]
            if cursor.next is None or cursor.next.low in "?.!"
            else None
        )
    if (folder := cursor.attempt(lambda: place(cursor))) is not None:
        return [_search(wanted, folder, whole=whole)]
    return [_occurrence(wanted, source, whole=whole) for source in sources(cursor) if source.is_file] or None


def listing(cursor: Cursor) -> list[Call] | None:
    """``list the files``, ``which files are in docs/``."""
    asked = cursor.accept("list", "show me", "show", "what", "which")
    if asked is None:
        return None
    cursor.skip("me", "all", "the", "of")
    extension = cursor.attempt(lambda: _file_type(cursor))
    if not cursor.accept("files", "file names"):
        return None
    cursor.skip("are", "there", "do", "we", "you", "i", "have", "exist", "lie")
    folder = ""
    if cursor.accept("in", "of", "under", "within"):
        pattern = place(cursor)
        if pattern is None or (extension and "*." in pattern):
            return None
        folder = pattern.removesuffix("**/*").removesuffix("**")
        if "*" in folder:
            return [Call("list_files", (("pattern", pattern),))]
    cursor.skip("here")
    name = f"**/*.{extension}" if extension else "*"
    return [Call("list_files", (("pattern", folder + name),))]


def _file_type(cursor: Cursor) -> str | None:
    token = cursor.take(Kind.WORD)
    known = {
        "markdown": "md",
        "python": "py",
        "text": "txt",
        "md": "md",
        "py": "py",
        "txt": "txt",
        "toml": "toml",
    }
    return known.get(token.low) if token is not None else None


def reading(cursor: Cursor) -> list[Call] | None:
    """``read notes.txt``, ``show me the contents of notes.txt``."""
    if not cursor.accept(
        "read", "show me", "show", "print", "display", "open", "cat", "what is in", "what's in"
    ):
        return None
    cursor.skip("me", "the", "contents of", "content of", "text of")
    found = sources(cursor)
    if not found or not all(source.is_file for source in found):
        return None
    return [Call("read_text", (("path", source.text),)) for source in found]
