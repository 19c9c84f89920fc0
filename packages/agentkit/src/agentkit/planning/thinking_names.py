"""Names of thinking tags, and the patterns of the tags that model families write."""

from __future__ import annotations

import re
from functools import cache

FOREIGN = (
    r"denken|nachdenken|gedanken?|überlegung(?:en)?|r[ée]flexions?|pens[ée]es?|raisonnement|pensamientos?|razonamiento"
    r"|pensiero|ragionamento|raciocínio|мысл[иь]|размышлени[ея]|рассуждени[ея]|思考|思维|推理|想法|생각|추론"
)
NAME = rf"""
    (?:[a-z0-9.\-_]{{1,24}}[:_\-]|ant|inner|internal|my)?
    (?:think(?:ing)?|thoughts?|reasoning|reflect(?:ions?|ing)?|scratch_?pad|monologue|cot|deliberations?|pondering|{FOREIGN})
    (?:[_\-](?:process|steps?|trace|block|start|begin|end|stop))?
"""
FLAGS = re.VERBOSE | re.IGNORECASE
CORE = re.compile(
    r"think|thought|reasoning|reflect|scratch|monologue|cot|deliberation|pondering", re.IGNORECASE
)
MAY_HOLD_A_TAG = re.compile(
    f"{CORE.pattern}|channel|<unused9|{FOREIGN}", re.IGNORECASE
)  # most replies hold none of these words


@cache  # compiled when the first tag is seen: most replies hold none
def thinking_tag() -> re.Pattern[str]:
    """Return the pattern of a whole tag."""
    return re.compile(
        rf"""
    [<◁⟨〈]\s{{0,3}}\|?\s{{0,3}}(?P<slash>/?)\s{{0,3}}(?P<name>{NAME})
        (?:\s(?:"[^"\n]{{0,200}}"|'[^'\n]{{0,200}}'|[^<>▷⟩〉"'\n]){{0,200}})?
        \s{{0,3}}(?P<empty>/?)\s{{0,3}}\|?\s{{0,3}}[>▷⟩〉]
    |\[\s?(?P<slash2>/?)\s?(?P<name2>{NAME})\s?\](?![(:\[])
    |(?:<\|start\|>\w{{0,20}})?<\|channel\|?>\s?(?P<channel>analysis|commentary|final|thoughts?|thinking|\w{{1,20}})
        (?:[^<\n]{{0,80}}(?:<\|constrain\|>\w{{0,20}}\s?)?<\|message\|>)?
    |<unused9(?P<unused>[45])>
    |(?P<over><\|(?:end|return|call)\|>|<channel\|>)
    |(?P<header><\|start\|>\w{{0,20}}|<\|message\|>)
    """,
        FLAGS,
    )


@cache  # compiled when the first tag is seen: most replies hold none
def unfinished_tag() -> re.Pattern[str]:
    """Return the pattern of what may become a tag."""
    return re.compile(
        rf"""
    [<◁⟨〈]\s{{0,3}}\|?\s{{0,3}}/?\s{{0,3}}(?:[\w.:\-]{{0,60}}|{NAME}(?:\s[^<>▷⟩〉\n]{{0,400}})?)[\s/|]{{0,8}}
    |\[\s?/?\s?[\w.:\-]{{0,60}}\s?\]?
    |(?:<\|start\|>\w{{0,20}})?
        (?:<(?:\|(?:\w{{0,10}}\|?)?)?|<\|channel\|?>[^<\n]{{0,100}}(?:<\|?[\w|]{{0,12}}>?\w{{0,20}}){{0,3}})?
    """,
        FLAGS,
    )
