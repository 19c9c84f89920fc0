"""Embeddings of OpenAI, and of every server that speaks its wire (Ollama, vLLM, llama.cpp and company)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from agentkit.errors import ModelBadResponse, ModelError, UsageError
from agentkit.messages import Usage
from agentkit.models.adapter.json import as_count, as_list, as_object, dump_json, load_json
from agentkit.models.credentials import OPENAI_URL, Extras, checked_key, checked_url
from agentkit.models.provider_errors.bodies import error_object
from agentkit.models.provider_errors.classification import Refusal, to_model_error
from agentkit.ports import UNCOUNTED, Meter

if TYPE_CHECKING:
    import httpx2

TOGETHER = 512
"""So many texts go into one request."""

EMPTY = "(empty)"
"""In the place of a text without a word, which providers refuse."""


class OpenAIEmbeddings:
    """Embeddings behind ``POST {base_url}/embeddings``; use it as an async context manager.

    Args:
        name: of the embeddings at the provider, for example ``text-embedding-3-small``.
        api_key: sent as a bearer token; ``None`` for servers that want none.
        base_url: the address up to, and without, ``/embeddings``.
        provider: what comes before the colon in :attr:`name`.
        timeout: seconds of silence after which a call is given up.
        client: an ``httpx2.AsyncClient`` to use in place of an own one; it stays open.
        extras: headers and fields of each request.

    Raises:
        UsageError: the key or the address cannot be right, or httpx2 is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str = OPENAI_URL,
        provider: str = "openai",
        timeout: float = 60.0,
        client: httpx2.AsyncClient | None = None,
        extras: Extras | None = None,
    ) -> None:
        if not name:
            raise UsageError("embeddings need a name")
        try:
            from agentkit.models.adapter.http import Endpoint
        except ModuleNotFoundError as error:
            if error.name != "httpx2":
                raise
            raise UsageError("the OpenAI wire needs httpx2: pip install 'opspawn-agentkit[openai]'") from None
        extras = (extras or Extras()).checked("embeddings")
        self._name = f"{provider}:{name}"
        self._model = name
        self._more = extras.body
        self._secret = checked_key(api_key)
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._secret is not None:
            headers["authorization"] = f"Bearer {self._secret}"
        headers.update({each.lower(): value for each, value in extras.headers.items()})
        url = checked_url(base_url).rstrip("/") + "/embeddings"
        self._endpoint = Endpoint(url, headers=headers, timeout=timeout, client=client)

    @property
    def name(self) -> str:
        """``provider:name``."""
        return self._name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoint.aclose()

    async def embed(self, texts: Sequence[str], meter: Meter = UNCOUNTED) -> Sequence[Sequence[float]]:
        """A vector for each text.

        Raises:
            ModelError: the subclass that says who must act.
        """
        vectors: list[Sequence[float]] = []
        for first in range(0, len(texts), TOGETHER):
            some = [text if text.strip() else EMPTY for text in texts[first : first + TOGETHER]]
            async with meter.call(self.name, some) as call:
                found = await self._asked(some)
                vectors += self._vectors(found, len(some))
                call.usage = _used(found)
        if len({len(vector) for vector in vectors}) > 1:
            raise ModelBadResponse(f"{self.name} sent vectors of different lengths")
        return vectors

    async def _asked(self, texts: Sequence[str]) -> Mapping[str, Any]:
        body = {**self._more, "model": self._model, "input": texts, "encoding_format": "float"}
        async with self._endpoint.post(dump_json(body).encode()) as response:
            if response.status_code != 200:
                raise await self._refusal(response)
            text = await self._endpoint.read(response)
        try:
            found = as_object(load_json(text))
        except ValueError:
            found = as_object(None)
        if error := error_object(found):
            raise self._error(error, response)
        return found

    def _vectors(self, found: Mapping[str, Any], count: int) -> list[Sequence[float]]:
        vectors: dict[int, Sequence[float]] = {}
        for place, item in enumerate(as_list(found.get("data"))):
            vector = as_object(item).get("embedding")
            if is_vector(vector):
                vectors[as_object(item).get("index", place)] = cast("Sequence[float]", vector)
        if vectors.keys() != set(range(count)):
            raise ModelBadResponse(f"{self.name} sent no vector of numbers for each text")
        return [vectors[place] for place in range(count)]

    async def _refusal(self, response: httpx2.Response) -> ModelError:
        try:
            found = load_json(await self._endpoint.read(response))
        except (ValueError, ModelError):
            found = None
        return self._error(error_object(found) or as_object(found), response)

    def _error(self, error: Mapping[str, Any], response: httpx2.Response) -> ModelError:
        return to_model_error(
            Refusal(
                model=self.name,
                status=response.status_code,
                error=error,
                headers=response.headers,
                secret=self._secret,
            )
        )


def _used(found: Mapping[str, Any]) -> Usage | None:
    usage = as_object(found.get("usage"))
    tokens = as_count(usage.get("prompt_tokens", usage.get("total_tokens")))
    return Usage(input_tokens=tokens) if tokens else None


def is_vector(found: object) -> bool:
    if not isinstance(found, list) or not found:
        return False
    numbers = cast("list[object]", found)
    return all(type(value) in (int, float) and isfinite(cast("float", value)) for value in numbers)
