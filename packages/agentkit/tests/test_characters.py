"""The table of characters that people do not see: what it holds, and where honest text may use them."""

import unicodedata

import pytest

from agentkit.untrusted.text import hidden_in, legible, visible

DEFAULT_IGNORABLE = [  # Unicode 16.0, DerivedCoreProperties.txt
    *(0x00AD, 0x034F, 0x061C, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x115F, 0x1161),
    *range(0x17B4, 0x17B6),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
]
FURTHER = [0x00, 0x1B, 0x7F, 0x9B, 0x2028, 0x2029, 0x2800, 0xFFF9, 0xFFFB, 0x1D159, 0xD800, 0xDFFF]


def test_the_table_holds_all_that_unicode_gives_no_shape():
    for code in (*DEFAULT_IGNORABLE, *FURTHER):
        text = f"a{chr(code)}b"
        assert hidden_in(text) == f"U+{code:04X}"
        assert chr(code) not in visible(text)


def test_what_has_a_shape_is_left_alone():
    unseen = {*DEFAULT_IGNORABLE, *FURTHER}
    shaped = [chr(code) for code in range(0x20, 0x30000) if code not in unseen]
    assert hidden_in("x".join(char for char in shaped if unicodedata.category(char)[0] in "LNPSZ")) is None


HONEST = {
    "a family": "👩\u200d👩\u200d👧",
    "a heart between": "👩\u200d❤\ufe0f\u200d👨 ❤\ufe0f",
    "a key": "1\ufe0f\u20e3 #\ufe0f\u20e3",
    "Persian": "می\u200cخواهم",
    "Devanagari": "क्\u200dष",
    "lines": "a\tb\nc\r\n",
}


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST)
def test_joiners_and_selectors_have_their_place(text):
    assert hidden_in(text) is None
    assert visible(text) == text


SMUGGLED = {
    "joiners behind a letter": "a\u200d\u200cb",
    "joiners behind a picture": "👩\u200d\u200c\u200d👧",
    "a joiner at the end": "é\u200d",
    "selectors behind a picture": "😀\ufe0f\ufe0e",
    "a selector behind a letter": "a\ufe0f",
    "numbered selectors": "😀\U000e0141\U000e0152",
    "a flag": "\U0001f3f4\U000e0067\U000e0062\U000e007f",
}


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED)
def test_they_have_it_nowhere_else(text):
    assert hidden_in(text) is not None
    assert hidden_in(visible(text)) is None


def test_models_get_the_text_as_it_is_but_for_invisible_letters():
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    kept = f"\ufeffa\u200b\u202e\u2028\u00ad\ufe0f\x1b {flag}"
    assert legible({kept: [kept]}) == {kept: [kept]}
    assert legible("send\U000e0041\U000e0042 it") == "send\\U000e0041\\U000e0042 it"
    assert legible(f"{flag}\U000e0041") == f"{flag}\\U000e0041"
