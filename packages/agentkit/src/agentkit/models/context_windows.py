"""Context windows of models by name, in tokens, as their providers publish them (2026-11).

Only well-known models are in the table. For the others nothing is known until the user says it (``Context.window``) or
the provider refuses a conversation.
"""

from __future__ import annotations

import re
from functools import lru_cache

_K, _M = 1_000, 1_000_000

_WINDOWS: tuple[tuple[str, int], ...] = (
    # OpenAI
    (r"gpt-6|gpt-5\.6|gpt-5\.4(?!-mini|-nano)", 1_050 * _K),
    (r"gpt-5\.5|gpt-4\.1", _M),
    (r"gpt-5\.3(?!-codex)|gpt-5(\.\d)?-chat", 128 * _K),
    (r"gpt-5", 400 * _K),
    (r"gpt-oss", 131_072),
    (r"gpt-4o-(mini-)?(transcribe|realtime)", 16 * _K),
    (r"gpt-4o|gpt-4-turbo|gpt-4-vision|gpt-audio|o1-(mini|preview)|chatgpt-4o", 128 * _K),
    (r"gpt-4-32k", 32 * _K),
    (r"gpt-4(?![.o\w])", 8_192),
    (r"gpt-3\.5-turbo", 16_385),
    (r"o[134](?!\w)", 200 * _K),
    # Anthropic; some resellers write a dot in the version
    (r"claude-(opus|sonnet)-4[.-][6-9]", _M),
    (r"claude-(opus|sonnet|haiku|fable|mythos)-([5-9]|\d\d)(?!\d)", _M),
    (r"claude", 200 * _K),
    # Google
    (r"gemini-2\.5-(flash-lite-preview-tts|flash-tts|pro-tts)|gemini-embedding", 8_192),
    (r"gemini-(3\.8-)?live", 131_072),
    (r"gemini-(1\.5|2|3|4)", _M),
    (r"gemma-4", 262_144),
    # others
    (r"deepseek-v4|deepseek-flash", _M),
    (r"deepseek-v3", 128 * _K),
    (r"mistral-large-4|kimi-k3", 1_048_576),
    (r"mistral-(large|medium|small)-\d|devstral|ministral-(8|14)b|kimi-k2(?!-0711|-instruct)", 262_144),
    (r"codestral", 256 * _K),
    (r"ministral-3b|kimi-k2", 131_072),
    (r"grok-4-(1-)?fast", 2 * _M),
    (r"grok-4\.[23]", _M),
    (r"grok-4\.[4-9]", 500 * _K),
    (r"grok-4|grok-code|grok-build", 256 * _K),
    (r"grok-3", 131_072),
    (r"llama-?4-maverick", 131_072),
)
_PATTERNS = tuple((re.compile(pattern), window) for pattern, window in _WINDOWS)


@lru_cache(maxsize=256)
def window_of(name: str) -> int | None:
    """The window of the model called ``provider:name`` in tokens, its reply included; ``None`` where nobody knows.

    A vendor's path before the name (``meta-llama/llama-4-maverick``) does not matter.
    """
    model = name.partition(":")[2].rpartition("/")[2].lower()
    return next((window for pattern, window in _PATTERNS if pattern.match(model)), None)
