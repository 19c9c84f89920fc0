"""Usage of a call, read from each provider's figures as a whole and checked against the provider's own sum.

Field by field the figures say different things at different servers: some count reasoning within the tokens written,
some beside them and only in their total. Parts that have a price of their own are counted by kind, and figures that
are not all there are marked, since a cost reckoned from them would be too low.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentkit.messages import Usage
from agentkit.models.adapter.json import as_amount, as_count, as_list, as_object, as_text

UNCOUNTED = Usage(partial=True)
"""Of a call whose figures did not come."""

_TICKS_OF_A_DOLLAR = 10**10  # xAI
_CACHED = re.compile(r"(^|_)(cached_tokens|cache_hit_tokens|cache_read(_input)?_tokens)")
_FALLBACK = "fallback_message"  # the round that served, where another model has taken over
_OF_THE_REPLY = frozenset({"message", _FALLBACK})


# --- Chat Completions and Responses ------------------------------------------------------------------------------


def openai_usage(usage: Mapping[str, Any], *, routed: bool = False) -> Usage:
    """What a completion or a response has used, by its ``usage``; :data:`UNCOUNTED` where there is none.

    Where ``total_tokens`` exceeds the tokens read and written, the rest is what the details name: reasoning that is
    counted beside the tokens written (xAI, Gemini's OpenAI endpoint), audio or cached tokens beside the tokens read.
    A rest that nothing explains counts as written, which is the dearer side.

    Args:
        usage: the provider's figures.
        routed: they are OpenRouter's, whose ``cost`` is in dollars.
    """
    if not any(value for value in usage.values() if not isinstance(value, Mapping)):
        return UNCOUNTED
    counts = _Counts.of(usage)
    read, written = counts.read, counts.written
    on_input = counts.rest_on_input()
    read, written = read + on_input, written + counts.rest - on_input
    if not counts.total:
        written = max(written, counts.reasoning)  # it cannot be within fewer tokens
    cached = min(counts.cached, read)
    return Usage(
        input_tokens=read,
        output_tokens=written,
        cached_tokens=cached,
        reasoning_tokens=min(counts.reasoning, written),
        cost_usd=_stated_cost(usage, routed=routed),
        cache_write_tokens=min(counts.cache_written, read - cached),
        by_kind=_openai_kinds(usage, counts, read, written),
        partial=not (counts.read or counts.written) or (counts.written_missing and not counts.total),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    read: int
    written: int
    total: int
    cached: int
    cache_written: int
    reasoning: int
    audio_read: int
    heard: bool
    read_missing: bool
    written_missing: bool

    @classmethod
    def of(cls, usage: Mapping[str, Any]) -> _Counts:
        input_details, output_details = _details(usage)
        read, written = (
            _first(usage, "prompt_tokens", "input_tokens"),
            _first(usage, "completion_tokens", "output_tokens"),
        )
        return cls(
            read=as_count(read),
            written=as_count(written),
            total=as_count(usage.get("total_tokens")),
            cached=_cached(usage, input_details),
            cache_written=as_count(
                _first(input_details, "cache_write_tokens", "cache_creation_tokens")
                or usage.get("cache_creation_input_tokens")
            ),
            reasoning=as_count(output_details.get("reasoning_tokens") or usage.get("reasoning_tokens")),
            audio_read=as_count(input_details.get("audio_tokens")),
            heard=bool(usage.get("prompt_audio_seconds")),  # Mistral
            read_missing=read is None,
            written_missing=written is None,
        )

    @property
    def rest(self) -> int:
        """What the provider's sum holds beyond the tokens read and written."""
        return max(0, self.total - self.read - self.written)

    def rest_on_input(self) -> int:
        """How much of the rest was read."""
        rest = self.rest
        if not rest or rest == self.reasoning:
            return 0
        beside = self.cached + self.cache_written
        if (
            self.read_missing
            or self.heard
            or rest == self.audio_read
            or (beside > self.read and rest in (self.cached, beside))
        ):
            return rest
        # audio that the tokens read cannot hold is beside them
        return min(rest, self.audio_read) if self.audio_read > self.read else 0


def _details(usage: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return (
        as_object(_first(usage, "prompt_tokens_details", "input_tokens_details", "prompt_token_details")),
        as_object(_first(usage, "completion_tokens_details", "output_tokens_details")),
    )


def _first(found: Mapping[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _cached(usage: Mapping[str, Any], details: Mapping[str, Any]) -> int:
    """Cached tokens, wherever they are put: Mistral, Moonshot and DeepSeek have fields of their own."""
    found = (
        as_count(value) for part in (usage, details) for name, value in part.items() if _CACHED.search(name)
    )
    return max(found, default=0)


def _stated_cost(usage: Mapping[str, Any], *, routed: bool) -> float | None:
    """Dollars, where the provider says what it bills: OpenRouter, xAI and Perplexity do."""
    ticks = as_amount(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / _TICKS_OF_A_DOLLAR
    itemised = as_object(usage.get("cost"))
    if "total_cost" in itemised and "input_tokens_cost" in itemised:
        return as_amount(itemised["total_cost"])
    if not routed:  # elsewhere in whatever unit
        return None
    cost = as_amount(usage.get("cost"))
    if not usage.get("is_byok"):
        return cost
    upstream = _upstream_cost(as_object(usage.get("cost_details")))  # billed by that provider, beside the fee
    return None if upstream is None else (cost or 0.0) + upstream


def _upstream_cost(details: Mapping[str, Any]) -> float | None:
    whole = as_amount(details.get("upstream_inference_cost"))
    if whole is not None:
        return whole
    parts = [as_amount(details.get(f"upstream_inference_{side}_cost")) for side in ("prompt", "completions")]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _openai_kinds(usage: Mapping[str, Any], counts: _Counts, read: int, written: int) -> dict[str, int]:
    input_details, output_details = _details(usage)
    audio = counts.audio_read or (counts.rest_on_input() if counts.heard else 0)
    cached_audio = as_object(input_details.get("cached_tokens_details")).get("audio_tokens")
    searches = as_object(_first(usage, "server_tool_use", "server_tool_use_details")).get(
        "web_search_requests"
    )
    return _kinds(
        input_audio_tokens=min(audio, read),
        cache_audio_read_tokens=min(as_count(cached_audio), audio, counts.cached),
        output_audio_tokens=min(as_count(output_details.get("audio_tokens")), written),
        output_image_tokens=min(as_count(output_details.get("image_tokens")), written),
        web_searches=as_count(searches) or as_count(_first(usage, "num_search_queries", "num_sources_used")),
    )


def _kinds(**counts: int) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if count}


_TOOL_ITEMS: Mapping[str, str] = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "output_images",
}


def response_usage(body: Mapping[str, Any]) -> Usage:
    """What a response of the Responses wire has used; the provider's own tools in its ``output`` are billed apart."""
    counted = openai_usage(as_object(body.get("usage")))
    kinds = dict(counted.by_kind)
    for item in map(as_object, as_list(body.get("output"))):
        kind = _TOOL_ITEMS.get(as_text(item.get("type")))
        if kind == "web_searches" and as_object(item.get("action")).get("type", "search") != "search":
            continue  # to open a page that was found is not billed as a search
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
    return _with_kinds(counted, kinds)


def _with_kinds(usage: Usage, kinds: Mapping[str, int]) -> Usage:
    return replace(usage, by_kind=kinds) if kinds != usage.by_kind else usage


# --- Anthropic ---------------------------------------------------------------------------------------------------


def anthropic_usage(usage: Mapping[str, Any], model: str) -> Usage:
    """What a message has used.

    The figures on top are those of the reply; what the provider did besides is in ``iterations`` only, and is billed:
    its own compaction, an advisor, and what a model had written before it declined and another one took over. A model
    that declined at once is not billed. Rounds of another model than ``model`` have that model's price.
    """
    rounds = [each for each in map(as_object, as_list(usage.get("iterations"))) if each]
    falls_back = any(each.get("type") == _FALLBACK for each in rounds)
    of_the_reply = [each for each in rounds if each.get("type") in _OF_THE_REPLY]
    besides = [each for each in rounds if each.get("type") not in _OF_THE_REPLY]
    counted = _anthropic_round(usage)
    if falls_back:
        own = {model, *(as_text(each.get("model")) for each in of_the_reply if each.get("type") == _FALLBACK)}
        besides += [each for each in of_the_reply if _has_declined_late(each, own)]
    else:
        summed = sum(map(_anthropic_round, of_the_reply), Usage())
        counted = max(counted, summed, key=lambda each: each.tokens)
    others = [each for each in besides if as_text(each.get("model")) not in {"", model}]
    searches = as_object(usage.get("server_tool_use")).get("web_search_requests")
    apart = _kinds(
        web_searches=as_count(searches),
        other_model_tokens=sum(_anthropic_round(each).tokens for each in others),
    )
    missing = usage.get("output_tokens") is None or not counted.tokens
    last = _anthropic_round(of_the_reply[-1]) if of_the_reply else counted
    counted = sum(map(_anthropic_round, besides), counted)
    return replace(
        counted,
        by_kind={**counted.by_kind, **apart},
        partial=missing,
        context_tokens=last.input_tokens if last.input_tokens < counted.input_tokens else 0,
    )


def _has_declined_late(each: Mapping[str, Any], own: set[str]) -> bool:
    """Whether a round is of a model that has written something, and then declined."""
    by_another = as_text(each.get("model")) not in {"", *own}
    return each.get("type") != _FALLBACK and by_another and as_count(each.get("output_tokens")) > 0


def _anthropic_round(usage: Mapping[str, Any]) -> Usage:
    read, written = (
        as_count(usage.get("cache_read_input_tokens")),
        as_count(usage.get("cache_creation_input_tokens")),
    )
    for_an_hour = as_object(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")
    output = as_count(usage.get("output_tokens"))
    thinking = as_count(as_object(usage.get("output_tokens_details")).get("thinking_tokens"))
    return Usage(
        input_tokens=as_count(usage.get("input_tokens")) + read + written,  # it counts them apart
        output_tokens=output,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(thinking, output),
        by_kind=_kinds(cache_write_1h_tokens=min(as_count(for_an_hour), written)),
    )


# --- Google ------------------------------------------------------------------------------------------------------


def google_usage(usage: Mapping[str, Any], searches: int = 0) -> Usage:
    """What a generated content has used; thoughts and what tools were told are counted beside the rest.

    Args:
        usage: the provider's figures, in the names of its SDK.
        searches: queries that the provider has made for the reply.
    """
    if not any(as_count(value) for value in usage.values()):
        return UNCOUNTED
    thoughts = as_count(usage.get("thoughts_token_count"))
    read = as_count(usage.get("prompt_token_count")) + as_count(usage.get("tool_use_prompt_token_count"))
    written = as_count(usage.get("candidates_token_count")) + thoughts
    rest = max(0, as_count(usage.get("total_token_count")) - read - written)
    written += rest
    cached = min(as_count(usage.get("cached_content_token_count")), read)
    audio = min(_of_modality(usage, "prompt_tokens_details", "AUDIO"), read)
    return Usage(
        input_tokens=read,
        output_tokens=written,
        cached_tokens=cached,
        reasoning_tokens=thoughts,
        by_kind=_kinds(
            input_audio_tokens=audio,
            cache_audio_read_tokens=min(_of_modality(usage, "cache_tokens_details", "AUDIO"), audio, cached),
            output_audio_tokens=min(_of_modality(usage, "candidates_tokens_details", "AUDIO"), written),
            output_image_tokens=min(_of_modality(usage, "candidates_tokens_details", "IMAGE"), written),
            web_searches=searches,
        ),
    )


def _of_modality(usage: Mapping[str, Any], field: str, modality: str) -> int:
    details = map(as_object, as_list(usage.get(field)))
    return sum(
        as_count(each.get("token_count"))
        for each in details
        if as_text(getattr(each.get("modality"), "value", each.get("modality"))) == modality
    )
