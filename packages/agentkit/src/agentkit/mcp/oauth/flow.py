"""OAuth flows of the SDK, adapted to workers and to people: tokens are requested and sent with each call.

What the SDK leaves open is closed here. Its lock is held while a call is answered, so calls of one connection would
wait for each other: a call with a valid token passes by it. It does not keep when a token ends, nor who gave it, so
after a restart a token that has ended could not be made fresh: both are kept. And where no person can log in,
no client is registered and no browser is opened.

This module imports the SDK; it is imported when a connection is opened.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.auth.utils import extract_field_from_www_auth, issuers_match
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import AnyUrl, ValidationError

from agentkit.errors import McpUnavailable, UsageError
from agentkit.mcp.oauth.tokens import Login, McpOAuth, TokenFolder
from agentkit.mcp.servers import McpServer
from agentkit.untrusted.secrets import Secrets

_SDK = logging.getLogger("mcp.client.auth.oauth2")
_CODE = re.compile(r'"error"\s*:\s*"([a-z_]{1,40})"')
_NOWHERE = "http://127.0.0.1/callback"
_EARLY_SECONDS = 10.0
"""So long before its end a token counts as ended: a call should not meet its end on the way."""

_MAX_SENT = 4
"""Tokens that are remembered, so that a server which repeats one tells nobody."""

Flow = AsyncGenerator[httpx2.Request, httpx2.Response]


def sent_by(auth: httpx2.Auth | None) -> Sequence[str]:
    """The tokens that were sent with what :func:`auth_of` gave."""
    return auth.sent if isinstance(auth, _Swift) else ()


def auth_of(server: McpServer, tokens: TokenFolder, login: Login | None) -> httpx2.Auth | None:
    """How requests to a resolved server are authorized; ``None`` for not at all.

    Args:
        server: with a url.
        tokens: where is kept what people have granted.
        login: a person who may be asked now.
    """
    if server.oauth is None:
        given: httpx2.Auth | None = server.auth
        return given
    if _quiet not in _SDK.filters:
        _SDK.addFilter(_quiet)
    if server.oauth.grant == "client_credentials":
        return _Program(server)
    return _Person(server, tokens, login)


def words_of(error: OAuthFlowError) -> str:
    """What went wrong, without what an authorization server has sent: it may repeat what it was given."""
    if type(error) is OAuthFlowError:
        return f"authorization failed: {error}"
    code = _CODE.search(str(error))
    return f"the authorization server refuses{f': {code[1]}' if code else ''}"


def _quiet(record: logging.LogRecord) -> bool:
    """The SDK logs what authorization servers answer, with traces; whoever called is told what went wrong."""
    return record.levelno < logging.WARNING


class _Swift(OAuthClientProvider):
    """Adds a token that is valid, and goes the long way only where there is none, or it is not taken."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._sent: deque[str] = deque(maxlen=_MAX_SENT)

    @property
    def sent(self) -> Sequence[str]:
        """Tokens that the server knows by now, the latest."""
        return tuple(self._sent)

    def _add_auth_header(self, request: httpx2.Request) -> None:
        super()._add_auth_header(request)
        token = self.context.current_tokens
        if token is not None and token.access_token not in self._sent:
            self._sent.append(token.access_token)
            Secrets([("token", token.access_token), ("token", token.refresh_token or "")])

    async def _auth_flow(self, request: httpx2.Request) -> Flow:
        used: OAuthToken | None = None
        if not self._initialized:
            await self._initialize()
        if self.context.is_token_valid():
            used = self.context.current_tokens
            self._add_auth_header(request)
            response = yield request
            if not _is_refused(response):
                return
            if response.status_code == httpx2.codes.UNAUTHORIZED and used is self.context.current_tokens:
                self.context.clear_tokens()
            await response.aread()
        flow = self._long_way(request, used)
        try:
            outgoing = await anext(flow)
            while True:
                response = yield outgoing
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()

    def _long_way(self, request: httpx2.Request, used: OAuthToken | None) -> Flow:
        return super()._auth_flow(request)


class _Program(_Swift, ClientCredentialsOAuthProvider):
    """In the name of the program itself. Its tokens are kept by nobody: they are asked for anew."""

    def __init__(self, server: McpServer) -> None:
        oauth = _declared(server)
        assert server.url is not None
        assert oauth.client_id is not None
        assert oauth.client_secret is not None
        super().__init__(
            server.url,
            _Nowhere(),
            oauth.client_id,
            oauth.client_secret,
            "client_secret_basic" if oauth.client_auth == "basic" else "client_secret_post",
            oauth.scope,
            oauth.issuer,
        )
        self._scope = oauth.scope

    async def _perform_authorization(self) -> httpx2.Request:
        self.context.client_metadata.scope = self._scope or self.context.client_metadata.scope
        return await super()._perform_authorization()


class _Person(_Swift):
    """In the name of a person who has logged in, or does so now."""

    def __init__(self, server: McpServer, tokens: TokenFolder, login: Login | None) -> None:
        assert server.url is not None
        self._oauth = _declared(server)
        self._server = server
        self._tokens = tokens
        self._login = login
        super().__init__(
            server.url,
            OAuthClientMetadata(
                redirect_uris=[AnyUrl(_NOWHERE if login is None else login.redirect_uri)],
                client_name="Opspawn",
                scope=self._oauth.scope,
            ),
            _Nowhere(self),
            None if login is None else login.show,
            None if login is None else self._answer,
            self._oauth.client_metadata_url,
        )

    async def _answer(self) -> AuthorizationCodeResult:
        assert self._login is not None
        code, state, issuer = await self._login.answer()
        return AuthorizationCodeResult(code=code, state=state, iss=issuer)

    def _select_authorization_server(self, advertised: list[str]) -> str:
        issuer = self._oauth.issuer
        if issuer is None:
            return super()._select_authorization_server(advertised)
        for each in advertised:
            if issuers_match(each, issuer):
                return each
        raise OAuthFlowError(f"the server asks for tokens of another authorization server than {issuer}")

    async def _perform_authorization(self) -> httpx2.Request:
        issuer, metadata = self._oauth.issuer, self.context.oauth_metadata
        if issuer is not None and (metadata is None or not issuers_match(str(metadata.issuer), issuer)):
            raise OAuthFlowError(f"the authorization server does not say that it is {issuer}")
        self.context.client_metadata.scope = self._oauth.scope or self.context.client_metadata.scope
        return await super()._perform_authorization()

    async def _initialize(self) -> None:
        """Somebody who logs in begins anew; of a worker, what was granted counts."""
        self._initialized = True
        if self._login is not None:
            self.context.client_info = self._registered()
            return
        try:
            granted = self._tokens.read(self._server.name, self.context.server_url)
            self._take(granted)
        except UsageError as error:
            raise McpUnavailable(str(error)) from None
        except (ValidationError, KeyError, TypeError):
            raise self._nobody("what was kept of a login cannot be read") from None

    def _take(self, granted: Mapping[str, Any] | None) -> None:
        context = self.context
        context.clear_tokens()
        if granted is None:
            return
        context.current_tokens = OAuthToken.model_validate(granted["tokens"])
        context.client_info = self._registered() or OAuthClientInformationFull.model_validate(
            granted["client"]
        )
        ends = granted.get("ends")
        context.token_expiry_time = None if ends is None else float(ends) - _EARLY_SECONDS
        for name, kind in _METADATA.items():
            told = granted.get(name)
            setattr(context, name, None if told is None else kind.model_validate(told))

    def keep(self, tokens: OAuthToken) -> None:
        """Write down what was granted, with all that is needed to have it made fresh.

        Raises:
            McpUnavailable: it cannot be written.
        """
        context = self.context
        assert context.client_info is not None
        ends = context.token_expiry_time
        granted: dict[str, Any] = {
            "tokens": _plain(tokens),
            "client": _plain(context.client_info),
            "ends": ends,
            **{name: _plain(told) for name in _METADATA if (told := getattr(context, name)) is not None},
        }
        try:
            self._tokens.write(self._server.name, context.server_url, granted)
        except OSError as error:
            raise McpUnavailable(f"what was granted cannot be kept: {error.strerror}") from None
        if ends is not None:
            context.token_expiry_time = ends - _EARLY_SECONDS

    def _registered(self) -> OAuthClientInformationFull | None:
        oauth = self._oauth
        if oauth.client_id is None:
            return None
        way = "client_secret_basic" if oauth.client_auth == "basic" else "client_secret_post"
        return OAuthClientInformationFull(
            client_id=oauth.client_id,
            client_secret=oauth.client_secret,
            redirect_uris=self.context.client_metadata.redirect_uris,
            token_endpoint_auth_method=way if oauth.client_secret else "none",
            issuer=oauth.issuer,
        )

    def _long_way(self, request: httpx2.Request, used: OAuthToken | None) -> Flow:
        return super()._long_way(request, used) if self._login is not None else self._refreshed(request, used)

    async def _refreshed(self, request: httpx2.Request, used: OAuthToken | None) -> Flow:
        """As far as one comes without a person: another process may have fresh tokens, or they are asked for."""
        context = self.context
        async with context.lock, self._tokens.turn(self._server.name):
            await self._initialize()
            now = context.current_tokens
            if now is None:
                raise self._nobody("nobody is logged in")
            spent = used is not None and now.access_token == used.access_token
            if spent or not context.is_token_valid():
                if not context.can_refresh_token() or context.oauth_metadata is None:
                    raise self._nobody("what was granted has ended")
                answered = yield await self._refresh_token()
                if answered.status_code >= 500 or answered.status_code == httpx2.codes.TOO_MANY_REQUESTS:
                    told = f"its authorization server answers {answered.status_code}"
                    raise McpUnavailable(f"{self._server.name}: {told}")
                if not await self._handle_refresh_response(answered):
                    raise self._nobody("what was granted has ended")
        self._add_auth_header(request)
        response = yield request
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            raise self._nobody("what was granted is not taken any more")
        if _is_refused(response):
            raise self._nobody("it asks for more than was granted")

    def _nobody(self, why: str) -> McpUnavailable:
        self._initialized = False  # whoever asks next looks whether somebody has logged in
        return McpUnavailable(f"{self._server.name}: {why}: somebody has to log in")


class _Nowhere:
    """Where the SDK keeps tokens: nowhere, or with whoever asks for them."""

    def __init__(self, person: _Person | None = None) -> None:
        self._person = person

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        if self._person is not None:
            self._person.keep(tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        return None


_METADATA: Mapping[str, type[OAuthMetadata | ProtectedResourceMetadata]] = {
    "oauth_metadata": OAuthMetadata,
    "protected_resource_metadata": ProtectedResourceMetadata,
}


def _is_refused(response: httpx2.Response) -> bool:
    if response.status_code == httpx2.codes.FORBIDDEN:
        return extract_field_from_www_auth(response, "error") == "insufficient_scope"
    return response.status_code == httpx2.codes.UNAUTHORIZED


def _declared(server: McpServer) -> McpOAuth:
    assert server.oauth is not None
    return server.oauth


def _plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
