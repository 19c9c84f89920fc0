"""Context-length errors: recognition of a conversation that does not fit the model's context.

Hardly two servers say it alike, and most have no code for it. So first comes the code, then the field that the error is
about, then the words. What is too long may also be something else: a description of a tool, a bound of the reply, a
picture, the tokens of a minute. None of these gets better when the conversation is shortened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentkit.models.adapter.json import as_text

_CODES = (
    r"(model_)?(max_)?(context|prompt|input|conversation)_?(length|window|size|tokens?)?_?(limit_)?(is_)?"
    r"(exceeded|exceeds|overflow|too_long|too_large)(_error)?"
    r"|(exceed|exceeds|exceeded)_(max_|the_)?(context|prompt|input)(_\w+)?"
    r"|too_many_(prompt_|input_|context_)tokens"
    r"|1261"  # z.ai
)
_LONG_FIELD = frozenset({"string_above_max_length", "array_above_max_length"})
_FIELD = re.compile(r"[\w.\[\]]+")
_LONG_TEXT = re.compile(r"(messages|input|prompt)(\[\d+\])?(\.(content|output|text|arguments)(\[\d+\])?)*")
_CONVERSATION = re.compile(
    r"(messages?|inputs?|prompt|contents?|conversation|history)\b(?!.*(tool|schema|format))"
)
_PARAM_IN_TEXT = re.compile(r"invalid (?:value for )?'([\w.\[\]]+)'", re.IGNORECASE)


def _any_of(*patterns: str) -> str:
    """One pattern, compiled when an error is read: they are many, and most processes read none."""
    return "|".join(patterns)


_BY_THE_MINUTE = _any_of(
    r"per[ -](minute|min|day|hour|second)",
    r"rate.?limit|\b(tpm|rpm|tpd|itpm|otpm)\b|throttl|please wait|quota",
)
_A_PICTURE = _any_of(
    r"\b(image|picture|file|audio|video|attachment|document|pdf|page)s?\b[^.]{0,60}(size|dimension|exceed|too |limit)",
    r"\b(image|picture|file|audio|video|attachment|document|pdf|page)s?\b[^.]{0,60}(large|maximum)",
    r"(too many|number of) (images|pictures|files|documents|pages|tools|functions|messages allowed)",
)
_SOMETHING_NAMED = _any_of(
    r"\b(tools?|functions?|descriptions?|schemas?|enum|propert(y|ies)|parameters?)\b[^.:]{0,80}too (long|large|many)",
    r"\b(tools?|functions?|descriptions?|schemas?|enum|property|properties|parameters?)\b[^.:]{0,80}(exceed|at most)",
    r"\b(metadata|stop sequences?|identifiers?|file ?name|url|header|user|names?)\b[^.:]{0,80}(too (long|many)|exceed)",
    r"\b(tools?|functions?|descriptions?|schemas?|metadata|identifiers?|names?)\b[^.:]{0,80}(maximum length|at most)",
    r"tool_call_id[^.:]{0,80}(too long|maximum length)",
)
_BOUND_OF_THE_REPLY = _any_of(
    r"max_?(completion_?|output_?|new_?)?tokens?\W{0,3}\b[^.]{0,80}(too large|exceed|greater than|larger than|must be)",
    r"max_?(completion_?|output_?|new_?)?tokens?\W{0,3}\b[^.]{0,80}(can(not| ?not) be|should be|at most|out of range)",
    r"max_?(completion_?|output_?|new_?)?tokens?\W{0,3}\b[^.]{0,80}(less than|> \d|invalid)",
    r"at most \d+ (completion|output) tokens|maximum (allowed )?(number of )?(output|completion|new) tokens",
    r"maximum tokens you requested",
)
_WORDS = _any_of(
    # what is full
    r"(context|sequence)[ _-]?(length|window|size|limit)[^.]{0,80}(exceed|too (small|short)|overflow|is only|increas)",
    r"(context|sequence)[ _-]?(length|window|size|limit)[^.]{0,80}(reached|full)",
    r"(exceed|overflow|larger than|longer than|greater than|beyond|over|above|outside)[^.]{0,80}context",
    r"fit (in(to)?|within)[^.]{0,80}context|(context|tokens)[^.]{0,40}(does|do) ?n[o']t fit",
    r"(exceed|longer than|greater than|over|above)[^.]{0,80}max(imum)?[_ -]?(model|seq(uence)?|prompt|input)[_ -]?len",
    r"maximum (context|prompt|model|sequence|input) (length|window|size) (is|of)\b|maximum context length",
    r"(larger|longer|greater|more)( tokens)? than (the )?(model.{0,3}s? )?(maximum|max|context|limit)",
    r"too (long|large|big) for (the |this |requested |a )?(model|context)",
    r"(model|token)('s)? (token )?limit( has been| was)? exceeded|exceed\w* (the )?model('s)? token limit",
    r"max(imum)? tokens of \d+ exceeded",  # Snowflake
    r"but the (configured |maximum )?(context|model)[^.]{0,30} is|at most \d+ (tokens of )?context",
    # what is too long
    r"(prompt|inputs?|messages?|conversation|request|query|context)\b[^.]{0,60}\b(is|are|was)? ?too long",
    r"(prompt|inputs?|messages?|conversation|context)\b[^.]{0,80}(exceed|(longer|greater) than)[^.]{0,60}(max|limit)",
    r"(prompt|inputs?|messages?|conversation|context)\b[^.]{0,80}(exceed|longer than|over)[^.]{0,60}(length|window)",
    r"(prompt|inputs?|messages?|conversation|context)\b[^.]{0,80}(exceed|longer than|over the)[^.]{0,60}allowed",
    r"tokens?( count)?\b[^.]{0,60}exceed\w*[^.]{0,60}(max|limit|length|allowed|\d{4})",
    r"tokens?( count)?\b[^.]{0,60}(only supports|supports up to|over)[^.]{0,60}(max|limit|length|\d{4})",  # Vertex
    r"too many (input |prompt )?tokens|input tokens? exceed",  # Bedrock, Cohere
    r"(prompt|input|query|request)( token)? (length|size)\b[^.]{0,60}(exceed|surpass)[^.]{0,60}(\d{3,}|limit)",
    r"(prompt|input|query|request|messages?)( token)? (length|size)\b[^.]{0,60}(exceed|surpass)[^.]{0,60}max",
    r"(prompt|messages?|input|request)\b[^.]{0,40}\d{3,} tokens\b[.,;]? (but )?(the|this model's) (limit|max)",
    r"(prompt|inputs?)\b.{0,80}(must|should)(n't| not) exceed[^.]{0,40}(tokens|length)",  # TensorRT-LLM
    r"request(ed)? (contains?|has|with)? ?(too many tokens|exceed\w* (the )?(maximum|model|token))",
    r"range of input length should be",  # DashScope
    r"`?inputs`? (tokens|must have less than)[^.]{0,80}(must be <=|less than|tokens)",  # TGI
    r"reduce (the )?(length|size|number of tokens)( of| in)? (the |your )?(messages?|prompt|input|conversation)",
    r"reduce your (prompt|input|message)",
    r"(输入|上下文|提示词|消息|prompt|token)[^。]{0,20}(超长|超过|超出|过长)",  # z.ai and others
    r"超(过|出)[^。]{0,20}(上下文|最大长度|token)",
)
_LIMIT = re.compile(r"(?:length|window|limit|size)\D{0,30}?(\d{3,})|> (\d{3,})")
_READ = re.compile(
    r"(\d+)(?: tokens?)?(?: \w+){0,3}? (?:messages|prompt|input)|(\d+) input tokens|: (\d+) \+ \d+ >"
)
_WRITTEN = re.compile(
    r"(\d+)(?: tokens?)?(?: \w+){0,3}? (?:completion|output)|too large: (\d+)|: \d+ \+ (\d+) >"
)


def is_too_long(error: Mapping[str, Any], message: str, status: int) -> bool:
    """Whether an error is about the length of the conversation.

    Args:
        error: the provider's error object.
        message: its words, those of an upstream provider included.
        status: of the HTTP response, or the one that the error tells.
    """
    text = re.sub(r"(?<=\d)[,_](?=\d{3})", "", " ".join(message[:1500].lower().split()))
    told = as_text(error.get("param"))
    param = told if _FIELD.fullmatch(told) else "".join(_PARAM_IN_TEXT.findall(message[:300])[:1])
    about_it = not param or _CONVERSATION.match(param.lower()) is not None or "input_tokens" in param
    if not about_it:
        return False
    words = {_snake(error.get(name)) for name in ("code", "type")}
    if any(re.fullmatch(_CODES, word) for word in words):
        return not _is_bound_of_the_reply(text)
    if words & _LONG_FIELD:
        return _LONG_TEXT.fullmatch(param) is not None if param else not re.search(_SOMETHING_NAMED, text)
    if status not in {200, 400, 413, 422, 500, 502} or re.search(_BY_THE_MINUTE, text):
        return False
    if not re.search(r"context|prompt", text) and (
        re.search(_A_PICTURE, text) or re.search(_SOMETHING_NAMED, text)
    ):
        return False
    return re.search(_WORDS, text) is not None and not _is_bound_of_the_reply(text)


def _snake(word: object) -> str:
    """A word of an error in the form that most have; ``ContextWindowExceededError`` is one of LiteLLM."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(word) if isinstance(word, str | int) else "").lower()


def _is_bound_of_the_reply(text: str) -> bool:
    """Whether what does not fit is the reply that was asked for: no conversation is short enough for it."""
    read, written, limit = _last(_READ, text), _last(_WRITTEN, text), _last(_LIMIT, text)
    if written and limit:
        return written * 5 >= limit * 4
    if read and written:
        return written > 3 * read
    return re.search(_BOUND_OF_THE_REPLY, text) is not None and not re.search(r"input|prompt|messages", text)


def _last(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return 0 if found is None else int(next(group for group in found.groups() if group))
