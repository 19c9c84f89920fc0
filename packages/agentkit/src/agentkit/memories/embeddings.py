"""Embeddings by name, ``provider:name``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from agentkit.errors import UsageError
from agentkit.memories.hash_embeddings import HashEmbeddings
from agentkit.models import NO_ENDPOINTS, NamedEndpoint, access_of
from agentkit.models.credentials import GOOGLE_URL, OPENAI_URL
from agentkit.models.endpoints import extras_of
from agentkit.ports import Embeddings

OFFLINE = "offline:hash"


def open_embeddings(name: str, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS) -> Embeddings:
    """The embeddings called ``provider:name``. Nothing is sent yet.

    Args:
        name: ``offline:hash``, ``offline:hash-N`` (N dimensions), ``openai:NAME``, ``google:NAME``, or
            ``ENDPOINT:NAME``.
        endpoints: servers of your own, by name; of the kind ``openai`` or ``google``.

    Raises:
        UsageError: there are none of this name.
        ModelAuthError: a key is needed, and there is none.
    """
    provider, _colon, model = name.partition(":")
    if provider == "offline" and model == "hash":
        return HashEmbeddings()
    if (
        provider == "offline"
        and model.startswith("hash-")
        and model[5:].isdecimal()
        and 0 < int(model[5:]) <= 65_536
    ):
        return HashEmbeddings(int(model[5:]))
    if model and (provider in ("openai", "google") or provider in endpoints):
        return _of_a_provider(provider, model, endpoints)
    raise UsageError(
        f"unknown embeddings {name!r}; "
        f"embeddings are {OFFLINE}, {OFFLINE}-N, openai:NAME, google:NAME or ENDPOINT:NAME"
    )


def _of_a_provider(provider: str, model: str, endpoints: Mapping[str, NamedEndpoint]) -> Embeddings:
    endpoint, key = access_of(provider, endpoints)
    extras = extras_of(endpoint)
    match endpoint.kind:
        case "openai" | "openai-chat" | "openai-responses":
            from agentkit.memories.openai import OpenAIEmbeddings

            url = endpoint.base_url or OPENAI_URL
            return OpenAIEmbeddings(model, api_key=key, base_url=url, provider=provider, extras=extras)
        case "google":
            from agentkit.memories.google import GoogleEmbeddings

            url = endpoint.base_url or GOOGLE_URL
            return GoogleEmbeddings(model, api_key=key, base_url=url, provider=provider, extras=extras)
        case other:
            raise UsageError(
                f"the endpoint {provider} is of the kind {other}; embeddings need the kind openai or google"
            )


@asynccontextmanager
async def opened_embeddings(
    embeddings: str | Embeddings, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS
) -> AsyncGenerator[Embeddings]:
    """``embeddings``, ready for use. What is opened here, from a name, is closed again.

    Raises:
        UsageError, ModelAuthError: as :func:`open_embeddings`.
    """
    if not isinstance(embeddings, str):
        yield embeddings
        return
    own = open_embeddings(embeddings, endpoints)
    if isinstance(own, AbstractAsyncContextManager):
        async with own:
            yield own
    else:
        yield own
