"""HTTP requests to an endpoint, and the errors of the way there.

This module and lanes import httpx2, so adapters import it when they are constructed.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2

from agentkit.errors import ModelBadResponse, ModelError, ModelTimeout, ModelUnreachable
from agentkit.models.adapter.connection_pool import KEPT, Body, Lanes

MAX_BYTES = 64 * 1024 * 1024
"""A longer reply is refused: about ten times what 128,000 tokens take when each is an event of its own."""

_CONNECT_SECONDS = 10.0
_DRAIN_SECONDS = 0.25


class Endpoint:
    """Posts to one address.

    Holds one HTTP client for each event loop that uses it, made on first use: connections belong to their loop, and
    ``asyncio.run`` makes a new loop each time. A client that is passed in is used as it is and never closed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        client: httpx2.AsyncClient | None,
    ) -> None:
        self._url = url
        self._headers = headers
        self._timeout = httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS))
        self._client = client
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        self._lanes: weakref.WeakKeyDictionary[httpx2.AsyncClient, Lanes] = weakref.WeakKeyDictionary()
        self._extensions = {"timeout": self._timeout.as_dict()}
        self._where = urlsplit(url).netloc

    async def aclose(self) -> None:
        """Close the client of this event loop; the next request makes a new one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def post(self, body: bytes) -> AsyncGenerator[httpx2.Response, None]:
        """The response, its body still unread; leaving the block early closes the connection.

        Raises:
            ModelUnreachable, ModelTimeout: there is none.
        """
        client = self.client()
        with self._our_errors():
            lanes = self._lanes.get(client)
            response = await (self._by_client(client, body) if lanes is None else self._by_lanes(lanes, body))
        try:
            yield response
        finally:
            await response.aclose()

    async def _by_client(self, client: httpx2.AsyncClient, body: bytes) -> httpx2.Response:
        request = client.build_request(
            "POST", self._url, content=body, headers=self._headers, timeout=self._timeout
        )
        # A redirect would carry key and prompt elsewhere; `auth=None` keeps our header from being replaced.
        return await client.send(request, stream=True, auth=None, follow_redirects=False)

    async def _by_lanes(self, lanes: Lanes, body: bytes) -> httpx2.Response:
        """Without what a client does besides: cookies, redirects, merging of its headers with ours."""
        url, head = self._prepared
        request = httpx2.Request(
            "POST",
            url,
            headers=[*head, (b"Content-Length", b"%d" % len(body))],
            stream=httpx2.ByteStream(body),
            extensions=self._extensions,
        )
        request.read()  # what an error quotes of it
        response = await lanes.handle_async_request(request)
        response.request = request
        return response

    @cached_property
    def _prepared(self) -> tuple[httpx2.URL, Sequence[tuple[bytes, bytes]]]:
        """The address, and the headers that are the same in each request."""
        url = httpx2.URL(self._url)
        return url, [(b"Host", url.netloc), *httpx2.Headers(self._headers).raw]

    async def chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.

        Raises:
            ModelUnreachable, ModelTimeout: it broke off.
            ModelBadResponse: it is longer than :data:`MAX_BYTES`.
        """
        size = 0
        with self._our_errors():
            body, is_encoded = response.stream, "content-encoding" in response.headers
            pieces = body if isinstance(body, Body) and not is_encoded else response.aiter_bytes()
            async for chunk in pieces:
                size += len(chunk)
                if size > MAX_BYTES:
                    raise ModelBadResponse(f"{self._where} sent more than {MAX_BYTES} bytes")
                yield chunk

    async def read(self, response: httpx2.Response) -> bytes:
        """The whole body; raises as :meth:`chunks` does."""
        return b"".join([chunk async for chunk in self.chunks(response)])

    async def drain(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the little that may follow the last event, so that the connection can be used again.

        Whoever keeps it open longer loses the connection, not the reply.
        """
        with suppress(TimeoutError, ModelError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in chunks:
                    pass

    def client(self) -> httpx2.AsyncClient:
        """The client of this event loop."""
        if self._client is not None:
            return self._client
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._new_client()
        return client

    def _new_client(self) -> httpx2.AsyncClient:
        # No cap on connections: how many runs there are at once is decided elsewhere, and a run that waited for a free
        # connection here would look like a provider that does not answer.
        if any(
            getproxies().get(scheme) for scheme in ("http", "https", "all")
        ):  # which httpx2 knows how to use
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT)
            return httpx2.AsyncClient(limits=limits, timeout=self._timeout)
        tls = httpx2.create_ssl_context() if self._url.startswith("https:") else None
        lanes = Lanes(tls)
        client = httpx2.AsyncClient(transport=lanes, timeout=self._timeout)
        self._lanes[client] = lanes
        return client

    @contextmanager
    def _our_errors(self) -> Generator[None, None, None]:
        """Errors of the connection, as ours. Their words are not passed on where they may hold what was sent."""
        try:
            yield
        except httpx2.TimeoutException as error:
            raise ModelTimeout(f"{self._where} did not answer in time ({type(error).__name__})") from None
        except httpx2.ConnectError as error:
            refused = ModelUnreachable(f"cannot connect to {self._where}: {str(error)[:200]}")
            refused.billed = (0, 0)
            raise refused from None
        except httpx2.DecodingError:
            raise ModelBadResponse(f"{self._where} sent a body that cannot be decompressed") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ModelUnreachable(
                f"the connection to {self._where} failed ({type(error).__name__})"
            ) from None
