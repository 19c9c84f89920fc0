"""SDK clients of the adapters: one for each event loop, on an HTTP client of ours."""

from __future__ import annotations

import asyncio
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from agentkit.errors import ModelError, UsageError
from agentkit.models.adapter.body import Wire
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.redaction import secrets_of
from agentkit.models.credentials import Extras, checked_key, checked_url
from agentkit.models.provider_errors.classification import Refusal, sent_with, to_model_error

if TYPE_CHECKING:
    import httpx2


class SdkModel(ABC):
    """A model, or embeddings, reached through an SDK.

    Use it as an async context manager, or call :meth:`aclose`. One object serves any number of runs at once, and event
    loops one after the other. The SDK's retries and its own tracing are off; redirects are never followed.

    Args:
        name: the model's name at the provider.
        api_key: the key; ``None`` for a server that wants none.
        base_url: the provider's address; its own where not given.
        provider: what comes before the colon in :attr:`name`; the adapter's own word where not given.
        timeout: seconds of silence after which a call is given up.
        client: an ``httpx2.AsyncClient`` to use in place of an own one; it stays open.
        extras: headers and fields of each request.

    Raises:
        UsageError: the key, the address or a header cannot be right, or the SDK is not installed.
    """

    own_name: ClassVar[str]
    own_url: ClassVar[str]
    wire: ClassVar[Wire | None] = None
    """Which one a model speaks."""

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str | None = None,
        provider: str | None = None,
        timeout: float = 300.0,
        client: httpx2.AsyncClient | None = None,
        extras: Extras | None = None,
    ) -> None:
        if not name:
            raise UsageError("a model needs a name")
        if not (math.isfinite(timeout) and timeout > 0):
            raise UsageError("timeout must be a number of seconds above zero")
        self._extras = (extras or Extras()).checked(self.wire)
        self._base_url = checked_url(base_url or self.own_url)
        self._secret = checked_key(api_key)
        self.secrets = secrets_of(self._secret, self._extras.headers)
        self._timeout = timeout
        more = self._extras.body
        self._dialect = Dialect(
            provider=provider or self.own_name,
            model=name,
            base_url=self._base_url,
            official=False,
            more=more,
        )
        try:
            from agentkit.models.adapter.http import Endpoint

            self._sdk: Any = self._load()
        except ModuleNotFoundError:
            extra = f"opspawn-agentkit[{self.own_name}]"
            raise UsageError(f"{self.own_name} needs its SDK: pip install '{extra}'") from None
        self._endpoint = Endpoint(self._base_url, headers={}, timeout=timeout, client=client)
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    @abstractmethod
    def _load(self) -> Any:
        """The SDK."""

    @abstractmethod
    def _made(self) -> Any:
        """A client of the SDK for this event loop."""

    @property
    def name(self) -> str:
        """``provider:name``."""
        return self._dialect.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop. Calling again is harmless."""
        self._clients.pop(asyncio.get_running_loop(), None)
        await self._endpoint.aclose()

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = self._made()
        return self._clients[loop]

    def _error(
        self,
        error: Mapping[str, Any],
        status: int,
        headers: Mapping[str, str],
        response: object = None,
        sent: object = None,
    ) -> ModelError:
        return to_model_error(
            Refusal(
                model=self.name,
                status=status,
                error=error,
                headers=headers,
                secret=self._secret,
                sent=sent_with(response) or sent,
                also_secret=tuple(self._extras.headers.values()),
            )
        )
