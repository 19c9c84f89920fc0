"""docs/explanation/failure-modes.md names tests and provocations: each of them exists."""

import re
from pathlib import Path

from .provocations import ALL

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "failure-modes.md").read_text()


def test_every_test_that_the_page_names_exists():
    sources = [
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("packages/*/tests/**/*.py"),
        *ROOT.glob("packages/*/src/*/testing/**/*.py"),
    ]
    there = set(re.findall(r"(?:def|class) ([Tt]est\w+)", "\n".join(path.read_text() for path in sources)))
    named = set(re.findall(r"`([Tt]est_?\w+)`", PAGE))
    assert len(named) > 50
    assert named <= there, sorted(named - there)


def test_every_provocation_is_on_the_page_and_the_other_way_round():
    named = {
        name
        for cell in re.findall(r"chaos ((?:`[a-zA-Z ]+`,? ?)+)", PAGE)
        for name in re.findall(r"`([^`]+)`", cell)
    }
    assert named == {provocation.name for provocation in ALL} - {"nothing"}
