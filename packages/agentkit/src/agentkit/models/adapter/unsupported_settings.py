"""Settings that a model does not take: known to its adapter, or read from the provider's refusal.

A provider names the setting in the field ``param`` of its error, at the beginning of a sentence, or within one; what
each calls it, and how it refuses it, is in the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentkit.errors import UnsupportedSetting
from agentkit.messages import ModelRequest
from agentkit.models.adapter.json import as_text
from agentkit.models.settings import SETTINGS

_NAMES: Mapping[str, str] = {
    "temperature": r"temperature",
    "top_p": r"top[_-]?p",
    "seed": r"(?:random_)?seed",
    "reasoning_effort": r"(?:reasoning|thinking)[_. ]?effort|output_config\.effort|thinking[_. ]?(?:level|config\w*)",
    "tool_choice": r"tool[_ ]?choice|function_?calling_?config|allowed_?function_?names",
    "stop": r"stop[_ ]?sequences?",
    "max_tokens": r"max_?(?:completion_?|output_?|new_?)?tokens",
}
_ORDINARY: Mapping[str, str] = {"reasoning_effort": "effort|thinking|reasoning", "stop": "stop"}
"""Names that are ordinary words as well: they count in quotes, before a colon, and where a parameter is spoken of."""

_SPOKEN_OF = (
    r"(?:[\"'`](?:{0})[\"'`]|(?:^|\bbody\.)(?:{0})(?=:)|\b(?:{0}) (?:parameter|argument|field|option)\b"
    r"|(?:parameters?|arguments?|fields?|options?|model:|not support) (?:the )?(?:{0})\b)"
)
_PLAIN = r"(?<!\w)(?:{0})(?!\w)"
_TAKEN = "supported|allowed|permitted|available|accepted|valid|compatible|enabled|recogni[sz]ed|set"
_REFUSED = (  # compiled when an error is read
    r"(?i)unsupported|un(?:known|recogni[sz]ed|expected)|deprecated|no longer|removed|invalid|illegal"
    rf"|not (?:be )?(?:currently |yet )?(?:{_TAKEN})|(?:not|n[o'’]t) (?:support|accept|allow|take)"
    r"|(?:must|should|has to|can only|may only|can ?not)(?: both)? be|only (?:the default|supports|accepts|one of)"
    r"|extra (?:inputs|fields)|extra_forbidden|cannot find field|out of|range|too (?:large|high|low|big)"
    r"|(?:less|greater|larger|more) than|at most|exceed|maximum|> ?\d|不支持|无效"
)
_OF_A_TOOL = r"(?i)\b(tools|functions?|messages|schema|properties|input|contents)\b[\w.\[\]/']*[./\]]['\"`]?$"
_KNOWN_ONES = (
    r"(?i)\b(?:supported|valid|allowed|available|accepted|permitted|expected) "
    r"(?:values|param\w*|fields|arguments|options|keys)"
)
_STATUSES = frozenset({400, 422})


def unsupported(model: str, setting: str, why: str = "") -> UnsupportedSetting:
    """Return the error for a setting that the adapter knows not to be taken.

    Args:
        model: ``provider:name``.
        setting: its field in :class:`~agentkit.models.settings.ModelSettings`.
        why: what of it is not taken, and what to do instead.
    """
    what = f"{setting} {why}" if why else setting
    said = f"{model} does not take the setting {what}: leave it out of the agent's settings"
    return UnsupportedSetting(said, setting=setting)


def sampling(request: ModelRequest, model: str, *, taken: bool) -> dict[str, float]:
    """Return ``temperature`` and ``top_p`` of a request; 1, the default of both, is left out where they are not taken.

    Raises:
        UnsupportedSetting: another value is asked for, of a model that takes none.
    """
    given = {"temperature": request.temperature, "top_p": request.top_p}
    found = {name: value for name, value in given.items() if value is not None and (taken or value != 1)}
    if found and not taken:
        raise unsupported(model, next(iter(found)))
    return found


def refused_setting(error: Mapping[str, Any], text: str, status: int) -> str | None:
    """Return the setting that a provider's refusal is about; ``None`` where it is about something else.

    Args:
        error: the provider's error object.
        text: its words.
        status: of the HTTP response.
    """
    if status not in _STATUSES:
        return None
    if param := as_text(error.get("param")):
        last = param.removeprefix("body.").removeprefix("generation_config.")
        return next((name for name in SETTINGS if re.fullmatch(_any_name(name), last, re.IGNORECASE)), None)
    text = re.split(_KNOWN_ONES, text)[0]
    if not re.search(_REFUSED, text):
        return None
    return min(_places(text), default=(0, None))[1]


def _any_name(setting: str) -> str:
    return "|".join(filter(None, (_NAMES[setting], _ORDINARY.get(setting))))


def _places(text: str) -> Iterator[tuple[int, str]]:
    """Where each setting is named first; a tool's own parameter of such a name is none."""
    for setting in SETTINGS:
        patterns = [_PLAIN.format(_NAMES[setting])]
        if setting in _ORDINARY:
            patterns.append(_SPOKEN_OF.format(_ORDINARY[setting]))
        for found in re.finditer("|".join(patterns), text, re.IGNORECASE):
            if not re.search(_OF_A_TOOL, text[: found.start()]):
                yield found.start(), setting
                break


def named_bound(text: str, sent: object) -> int | None:
    """Return the longest reply that a refusal allows: the largest number in it below the one that was asked for."""
    asked = (
        re.search(rb'"max\w*?tokens"\s*:\s*(\d+)', sent, re.IGNORECASE) if isinstance(sent, bytes) else None
    )
    numbers = [int(each.replace(",", "")) for each in re.findall(r"(?<![\w.,])\d[\d,]{0,11}(?![\w])", text)]
    return (
        None if asked is None else max((each for each in numbers if 1 < each < int(asked[1])), default=None)
    )
