"""Reply parts beside the text: sources that it refers to, images, and recordings.

Each provider has fields of its own for them; they become parts of the reply, bounded in number and size.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agentkit.messages import MAX_ATTACHMENT_BYTES, Attachment, Part, Source, Text
from agentkit.models.adapter.json import as_list, as_object, as_text, mend

MAX_SOURCES = 200
MAX_MEDIA_BYTES = 2 * MAX_ATTACHMENT_BYTES
"""Of all images and recordings of a reply together: they are stored with the run."""

_LONGEST_URL, _LONGEST_TEXT = 2048, 500
_URLS = ("url", "uri", "source", "file_id", "filename")
_TITLES = ("title", "document_title", "filename")
_QUOTES = ("cited_text", "content", "snippet")


def sources(found: Iterable[object]) -> Iterator[Source]:
    """Each source once, in the order in which they are named.

    Args:
        found: addresses, or citations in the words of some provider.
    """
    seen: set[tuple[str, str]] = set()
    for each in found:
        fields = {"url": each} if isinstance(each, str) else as_object(each)
        inner = as_object(fields.get(as_text(fields.get("type"))))  # OpenAI's wire has them one level below
        fields = {**fields, **inner}
        url, title = _first(fields, _URLS)[:_LONGEST_URL], _first(fields, _TITLES)[:_LONGEST_TEXT]
        if (url or title) and (url, title) not in seen and len(seen) < MAX_SOURCES:
            seen.add((url, title))
            yield Source(url=url, title=title, quote=_first(fields, _QUOTES)[:_LONGEST_TEXT])


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((mend(text) for name in names if (text := as_text(fields.get(name)))), "")


def media(given: Iterable[tuple[str, bytes | str]]) -> Iterator[Part]:
    """Images and recordings as attachments; one that is too large, or is none, is named in words.

    Args:
        given: the media type of each, and what is in it, or its address: ``data:`` or ``https:``.
    """
    size = 0
    for media_type, content in given:
        attachment = _attachment(media_type, content)
        size += len(attachment.data or b"")
        if attachment.problem is None and size <= MAX_MEDIA_BYTES:
            yield attachment
        else:
            size -= len(attachment.data or b"")
            yield Text(
                text=f"[{media_type[:80] or 'something'} that could not be kept: too large, or not readable]"
            )


def _attachment(media_type: str, content: bytes | str) -> Attachment:
    if isinstance(content, bytes):
        return Attachment(media_type=media_type, data=content)
    if not content.startswith("data:"):
        return Attachment(media_type=media_type, url=content)
    head, _, encoded = content.removeprefix("data:").partition(",")
    return Attachment(media_type=head.partition(";")[0] or media_type, data=decoded(encoded))


def decoded(encoded: str) -> bytes:
    """The bytes of a base64 text; none where it is none."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def of_chat(message: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[Part]:
    """The sources and media of a message of Chat Completions.

    Args:
        message: whole, or what a stream has added up to.
        body: around it; Perplexity and others name their sources there.
    """
    named = as_list(body.get("search_results")) or as_list(body.get("citations"))
    yield from sources([*named, *as_list(message.get("annotations")), *as_list(message.get("citations"))])
    images = [as_object(as_object(image).get("image_url")) for image in as_list(message.get("images"))]
    yield from media(("image/png", as_text(image.get("url"))) for image in images)
    if spoken := as_text(as_object(message.get("audio")).get("data")):
        yield from media([("audio/wav", decoded(spoken))])


def of_gemini(candidate: Mapping[str, Any]) -> Iterator[Source]:
    """The sources of a candidate of Gemini: what it has searched, and what it repeats."""
    chunks = [
        as_object(each)
        for each in as_list(as_object(candidate.get("grounding_metadata")).get("grounding_chunks"))
    ]
    cited = as_list(as_object(candidate.get("citation_metadata")).get("citations"))
    read = as_list(as_object(candidate.get("url_context_metadata")).get("url_metadata"))
    kinds = ("web", "retrieved_context", "maps")
    searched = [as_object(chunk[kind]) for chunk in chunks for kind in kinds if chunk.get(kind)]
    yield from sources([*searched, *cited, *(as_text(as_object(each).get("retrieved_url")) for each in read)])
