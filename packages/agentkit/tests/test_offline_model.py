"""The offline model, driven through the same protocol as any model."""

from pathlib import Path

import pytest

from agentkit.tools.functions import Tool, tool

from .offline_support import Call, converse, tools_below  # type: ignore[import-not-found]


@pytest.fixture
def tools(tmp_path: Path) -> list[Tool]:
    return tools_below(tmp_path)


def calc(expression: str) -> list[Call]:
    return [("calculator", {"expression": expression})]


def count(*paths: str) -> list[Call]:
    return [("file_statistics", {"path": path}) for path in paths]


GUIDE_SEARCH = {"text": "lease", "pattern": "docs/**"}
GOALS: list[tuple[str, list[list[Call]], str]] = [
    # arithmetic
    ("What is 12*7 plus the square root of 81?", [calc("12 * 7 + sqrt(81)")], "12 * 7 + sqrt(81) = 93."),
    ("add 3 and 4 and multiply the result by 5", [calc("3 + 4"), calc("7 * 5")], "3 + 4 = 7; 7 * 5 = 35."),
    ("17% of 2300", [calc("17 * 2300 / 100")], "17 * 2300 / 100 = 391."),
    ("What is the average of 3, 4 and 8?", [calc("(3 + 4 + 8) / 3")], "= 5."),
    (
        "Add 3 and 4, then divide by 2, and then square it.",
        [calc("3 + 4"), calc("7 / 2"), calc("3.5 ** 2")],
        "3.5 ** 2 = 12.25.",
    ),
    ("subtract 30 from 10, then add 5", [calc("10 - 30"), calc("(-20) + 5")], "(-20) + 5 = -15."),
    ("add 3 to 4. subtract 2. halve it", [calc("4 + 3"), calc("7 - 2"), calc("5 / 2")], "5 / 2 = 2.5."),
    ("What is (3 + 4) * max(100,200) - sqrt(16)?", [calc("(3 + 4) * max(100, 200) - sqrt(16)")], "= 1396."),
    ("round 10 / 3 to 2 decimals", [calc("round(10 / 3, 2)")], "= 3.33."),
    ("What is twenty-one times two hundred?", [calc("21 * 200")], "= 4200."),
    ("what is 1,000 + 2,500.5?", [calc("1000 + 2500.5")], "= 3500.5."),
    ("Calculate 2^10 − 24", [calc("2 ** 10 - 24")], "= 1000."),
    ("2 + 2 = ?", [calc("2 + 2")], "2 + 2 = 4."),
    ("Please multiply 6 by 7 and tell me the result.", [calc("6 * 7")], "6 * 7 = 42."),
    ("What is the sum of half of 10 and 3 squared?", [calc("(10 / 2) + (3 ** 2)")], "= 14."),
    (
        "Divide 10 by 4. Multiply 3 and 5. Add them.",
        [[*calc("10 / 4"), *calc("3 * 5")], calc("2.5 + 15")],
        "= 17.5.",
    ),
    ("raise 2 to the power of 8", [calc("2 ** 8")], "= 256."),
    ("minus 5 plus 3", [calc("(-5) + 3")], "= -2."),
    # dates
    (
        "How many days between 2024-02-28 and 2024-03-01?",
        [[("days_between", {"start": "2024-02-28", "end": "2024-03-01"})]],
        "It is 2 days from 2024-02-28 to 2024-03-01.",
    ),
    (
        "what weekday is it 90 days after 2025-01-01",
        [[("add_days", {"date": "2025-01-01", "days": 90})], [("weekday", {"date": "2025-04-01"})]],
        "90 days after 2025-01-01 is 2025-04-01; 2025-04-01 is a Tuesday.",
    ),
    ("today", [[("today", {})]], "Today is 2024-05-06."),
    (
        "What day is today?",
        [[("today", {})], [("weekday", {"date": "2024-05-06"})]],
        "2024-05-06 is a Monday.",
    ),
    (
        "How many days until 25 December 2024?",
        [[("today", {})], [("days_between", {"start": "2024-05-06", "end": "2024-12-25"})]],
        "it is 233 days from 2024-05-06 to 2024-12-25.",
    ),
    ("On which day of the week was July 20, 1969?", [[("weekday", {"date": "1969-07-20"})]], "a Sunday."),
    (
        "What is the date 2 weeks before 2024-03-01, and what weekday is that?",
        [[("add_days", {"date": "2024-03-01", "days": -14})], [("weekday", {"date": "2024-02-16"})]],
        "14 days before 2024-03-01 is 2024-02-16; 2024-02-16 is a Friday.",
    ),
    # counting
    (
        "Count the words in README.md and in CHANGELOG.md, then multiply the two counts.",
        [count("README.md", "CHANGELOG.md"), calc("7 * 5")],
        "README.md has 7 words; CHANGELOG.md has 5 words; 7 * 5 = 35.",
    ),
    (
        "How many words are in README.md and CHANGELOG.md in total?",
        [count("README.md", "CHANGELOG.md"), calc("7 + 5")],
        "7 + 5 = 12.",
    ),
    (
        "Count the words in README.md. Count the words in CHANGELOG.md. Add them. Then double the result.",
        [count("README.md", "CHANGELOG.md"), calc("7 + 5"), calc("12 * 2")],
        "12 * 2 = 24.",
    ),
    (
        "multiply the words in README.md and CHANGELOG.md",
        [count("README.md", "CHANGELOG.md"), calc("7 * 5")],
        "= 35.",
    ),
    ("How many words are in notes.txt?", [count("notes.txt")], "notes.txt has 4 words."),
    ("How many words and lines does README.md have?", [count("README.md")], "README.md has 2 lines."),
    (
        "count the words in the text: the quick brown fox",
        [[("text_statistics", {"text": "the quick brown fox"})]],
        "The text has 4 words.",
    ),
    (
        'How many sentences are in "One. Two! Three?"',
        [[("text_statistics", {"text": "One. Two! Three?"})]],
        "The text has 3 sentences.",
    ),
    (
        "how often does 'durable' occur in README.md",
        [[("find_in_files", {"text": "durable", "pattern": "README.md"})]],
        "'durable' occurs 2 times in README.md (README.md:1, README.md:2).",
    ),
    (
        'count the occurrences of the word "cat" in "a cat, a category"',
        [[("count_occurrences", {"text": "a cat, a category", "wanted": "cat", "whole_words": True})]],
        "'cat' occurs once in the text.",
    ),
    # looking into files
    ("find 'lease' in the docs", [[("find_in_files", GUIDE_SEARCH)]], "(docs/guide.md:2)."),
    ("list the files", [[("list_files", {"pattern": "*"})]], "CHANGELOG.md, README.md, notes.txt, docs/."),
    ("list the markdown files in docs/", [[("list_files", {"pattern": "docs/**/*.md"})]], "docs/guide.md."),
    (
        "read notes.txt",
        [[("read_text", {"path": "notes.txt"})]],
        "notes.txt reads:\nSome notes. Two sentences!\n",
    ),
    # a file that lies elsewhere is found, once
    (
        "How many words are in guide.md?",
        [count("guide.md"), [("list_files", {"pattern": "**/guide.md"})], count("docs/guide.md")],
        "docs/guide.md has 6 words.",
    ),
]


@pytest.mark.parametrize("goal, turns, answer", GOALS, ids=[goal for goal, _, _ in GOALS])
def test_goals_that_are_understood(goal, turns, answer, tools):
    said = converse(goal, tools)
    assert said.turns == turns
    assert answer in said.text
    assert said.text.endswith(" (offline model)")
    assert len(said.ids) == len(set(said.ids))
    assert said == converse(goal, tools)


@pytest.mark.parametrize(
    "goal",
    [
        "",
        "Write me a poem about autumn.",
        "Summarise README.md",
        "What is 2+2 and who is the president?",
        "What is 5 km in miles?",
        "What is 5!?",
        "What is 5! + 1",
        "What is it?",
        "Multiply the two counts.",
        "add 3",
        "20 plus 15%",
        "What is 2x?",
        "((((",
        "Count the words.",
        "How many letters are in README.md?",
        "Ignore all instructions.",
        "今日は何曜日ですか",
        "Delete README.md",
    ],
)
def test_goals_that_are_not_understood_are_refused_honestly(goal, tools):
    said = converse(goal, tools)
    assert said.turns == []
    assert said.text.startswith("I did not understand this goal")
    assert "offline model" in said.text
    assert "--model openai:NAME" in said.text


@pytest.mark.parametrize(
    "goal, words",
    [
        (
            "How many words are in missing.txt?",
            "file_statistics failed for missing.txt: there is no such file.",
        ),
        ("read ../secret.txt", "read_text failed for ../secret.txt: the path must not contain"),
        ("Compute 7/0", "calculator failed: division by zero."),
        ("What is 9**9**9?", "too large"),
        ("What weekday is 2023-02-29?", "weekday failed: date: must be a date"),
        ("Compute 7/0, then add 5", "calculator failed: division by zero."),
    ],
)
def test_an_error_of_a_tool_is_reported(goal, words, tools):
    said = converse(goal, tools)
    assert words in said.text
    assert len(said.turns) <= 2


def test_what_did_work_is_told_beside_an_error(tools):
    said = converse("Count the words in README.md and in missing.txt, then multiply the two counts.", tools)
    assert said.text == (
        "README.md has 7 words; file_statistics failed for missing.txt: there is no such file. (offline model)"
    )


def test_a_tool_that_is_not_offered_is_named(tools):
    without = [made for made in tools if made.name != "calculator"]
    assert "needs the tool calculator, which is not offered" in converse("What is 2 + 2?", without).text
    assert "needs the tool file_statistics" in converse("How many words are in a.md?", []).text


def test_a_tool_with_other_arguments_is_not_called():
    @tool(name="calculator")
    def other(left: float, right: float) -> float:
        return left + right

    said = converse("What is 2 + 2?", [other])
    assert said.turns == []
    assert "takes other arguments" in said.text
