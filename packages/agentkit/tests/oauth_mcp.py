"""An MCP server that wants tokens, and the authorization server that gives them: two ports of the loopback.

The MCP server is that of the SDK. The authorization server is ours: it gives short-lived tokens, takes each refresh
token once, and ends the whole grant when one comes for the second time, as RFC 9700 asks for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from agentkit.mcp import Answer


@dataclass
class Peers:
    """What both know, and what they were sent.

    Attributes:
        url: of the MCP server.
        issuer: the authorization server.
        lasts: seconds that a token lasts.
        living: access tokens that are taken.
        fresh: refresh tokens that were not used yet.
        asked: what the authorization server was asked for: the kind of grant, and ``register``.
        sent: headers of authorization that the MCP server was sent.
        busy: what the endpoint of tokens answers instead, where it is not 0.
        hold: a call of ``slow`` ends with it.
    """

    url: str = ""
    issuer: str = ""
    lasts: int = 3600
    living: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    busy: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def granted(self) -> JSONResponse:
        access, refresh = f"at-{secrets.token_hex(8)}", f"rt-{secrets.token_hex(8)}"
        self.living.add(access)
        self.fresh.add(refresh)
        return JSONResponse(
            {
                "access_token": access,
                "refresh_token": refresh,
                "token_type": "Bearer",
                "expires_in": self.lasts,
            }
        )


def authorization_server(peers: Peers) -> Starlette:
    async def metadata(_request: Request) -> Response:
        at = peers.issuer
        return JSONResponse(
            {
                "issuer": at,
                "authorization_endpoint": f"{at}/authorize",
                "token_endpoint": f"{at}/token",
                "registration_endpoint": f"{at}/register",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def register(request: Request) -> Response:
        peers.asked.append("register")
        wanted = await request.json()
        return JSONResponse(
            {
                "client_id": "c1",
                "redirect_uris": wanted["redirect_uris"],
                "token_endpoint_auth_method": "none",
            },
            201,
        )

    async def authorize(request: Request) -> Response:
        told = {"code": "code-1", "state": request.query_params["state"], "iss": peers.issuer}
        return RedirectResponse(f"{request.query_params['redirect_uri']}?{urlencode(told)}", 302)

    async def token(request: Request) -> Response:
        form = await request.form()
        peers.asked.append(str(form["grant_type"]))
        if peers.busy:
            return Response("later", peers.busy)
        match form["grant_type"]:
            case "client_credentials":
                way, _, told = request.headers.get("authorization", "").partition(" ")
                if (way, base64.b64decode(told)) != ("Basic", b"robot:hush-hush"):
                    echoed = base64.b64decode(told).decode()
                    return JSONResponse({"error": "invalid_client", "error_description": echoed}, 401)
            case "refresh_token":
                if form["refresh_token"] not in peers.fresh:
                    peers.fresh.clear()
                    peers.living.clear()
                    return JSONResponse({"error": "invalid_grant"}, 400)
                peers.fresh.discard(str(form["refresh_token"]))
            case _:
                pass
        return peers.granted()

    return Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", metadata),
            Route("/register", register, methods=["POST"]),
            Route("/authorize", authorize),
            Route("/token", token, methods=["POST"]),
        ]
    )


def mcp_server(peers: Peers):
    server = MCPServer("guarded")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def repeat() -> str:
        return peers.sent[-1]

    @server.tool()
    async def slow() -> str:
        peers.begun.set()
        await peers.hold.wait()
        return "slow"

    inner = server.streamable_http_app(json_response=True)

    async def checked(scope, receive, send):
        if scope["type"] != "http":
            return await inner(scope, receive, send)
        at = peers.url.removesuffix("/mcp")
        if scope["path"] == "/.well-known/oauth-protected-resource/mcp":
            told = {"resource": peers.url, "authorization_servers": [peers.issuer]}
            return await JSONResponse(told)(scope, receive, send)
        header = dict(scope["headers"]).get(b"authorization", b"").decode()
        peers.sent.append(header)
        if header.removeprefix("Bearer ") not in peers.living:
            where = f'Bearer resource_metadata="{at}/.well-known/oauth-protected-resource/mcp"'
            return await Response("no", 401, {"WWW-Authenticate": where})(scope, receive, send)
        return await inner(scope, receive, send)

    return checked


@asynccontextmanager
async def serving(app) -> AsyncIterator[str]:
    """On a free port of the loopback. Gives the address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def oauth_peers() -> AsyncIterator[Peers]:
    peers = Peers()
    async with serving(authorization_server(peers)) as issuer, serving(mcp_server(peers)) as url:
        peers.issuer, peers.url = issuer, f"{url}/mcp"
        yield peers


class Agrees:
    """A person who goes where they are sent, and agrees.

    Attributes:
        times: how often they were asked.
    """

    redirect_uri = "http://127.0.0.1:33418/callback"

    def __init__(self) -> None:
        self.times = 0

    async def show(self, url: str) -> None:
        import httpx2

        self.times += 1
        async with httpx2.AsyncClient() as http:
            self.came_back = httpx2.URL((await http.get(url)).headers["location"])

    async def answer(self) -> Answer:
        told = self.came_back.params
        return Answer(told["code"], told.get("state"), told.get("iss"))
