"""An endpoint's ``body`` at Gemini, as the SDK adds it to a request.

The SDK lets these fields replace its own, and a list as a whole. So what the adapter writes is left out here, and tools
that the provider runs go along with those of the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentkit.messages import JsonObject
from agentkit.models.adapter.json import as_list, as_object


def extra_body(body: JsonObject, config: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``body`` for one request.

    Args:
        body: of the endpoint, in the words of the wire.
        config: what the adapter writes, in the words of the SDK; what goes along here is taken out of it.
    """
    extra = _in_camels(body)
    if "tools" in extra and "tools" in config:
        declared = config.pop("tools")[0]["function_declarations"]
        extra["tools"] = [{"functionDeclarations": list(map(_in_camels, declared))}, *as_list(extra["tools"])]
    if "generationConfig" in extra:
        extra["generationConfig"] = _generation(_in_camels(as_object(extra["generationConfig"])), config)
    return extra


def _generation(given: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    bound = given.get("maxOutputTokens")
    if isinstance(bound, int) and "max_output_tokens" in config:
        config["max_output_tokens"] = min(bound, config["max_output_tokens"])
    thinking = _in_camels(config.pop("thinking_config", {}))
    if thinking or "thinkingConfig" in given:
        given["thinkingConfig"] = {**_in_camels(as_object(given.get("thinkingConfig"))), **thinking}
    written = set(_in_camels(config))
    return {name: value for name, value in given.items() if name not in written}


def _in_camels(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}
