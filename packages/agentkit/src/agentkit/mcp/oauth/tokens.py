"""OAuth tokens of MCP servers: the declaration, the store of granted tokens, and the person who grants them.

Nothing here knows the SDK; ``agentkit.mcp.oauth.flow`` does the asking.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from agentkit.errors import UsageError
from agentkit.untrusted.secrets import Secrets, looks_secret

Grant: TypeAlias = Literal["authorization_code", "client_credentials"]

_LOCK_SECONDS = 30.0
_LOCK_PAUSE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOAuth:
    """In whose name a server is called, and which authorization server says so.

    Attributes:
        grant: ``client_credentials``, in the name of the program itself; or ``authorization_code``, in that of a person
            who has logged in.
        issuer: the authorization server. What is secret goes to no other; without one, the MCP server names it.
        client_id: as it is registered there. Without one, a client registers itself.
        client_secret: of this client.
        client_metadata_url: describes the client, for authorization servers that take such a URL in place of a
            registration.
        scope: what is asked for, in place of what the server says that it takes.
        client_auth: how the secret is sent: in a header (``basic``) or among the fields (``post``).
        redirect_port: where the answer to a login is awaited on this machine, for clients that are registered with one
            port; any that is free where it is 0.
        hosts: names of hosts that may be asked for tokens although they lie in a private network or on this machine, by
            any port, and without TLS. Others are asked where their addresses are public, and by https alone.
    """

    grant: Grant = "authorization_code"
    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    client_metadata_url: str | None = None
    scope: str | None = None
    client_auth: Literal["basic", "post"] = "basic"
    redirect_port: int = 0
    hosts: tuple[str, ...] = ()

    def checked(self) -> McpOAuth:
        """Itself, where it makes sense.

        Raises:
            UsageError: a field is wrong; the message begins with its name.
        """
        if self.grant not in {"authorization_code", "client_credentials"}:
            raise UsageError("oauth.grant: it must be authorization_code or client_credentials")
        if self.grant == "client_credentials":
            for name in ("client_id", "client_secret", "issuer"):
                if not getattr(self, name):
                    raise UsageError(f"oauth.{name}: client_credentials need it")
        if self.client_secret and not self.client_id:
            raise UsageError("oauth.client_id: there is a client_secret, and no client_id")
        if self.client_secret and not self.issuer:
            raise UsageError(
                "oauth.issuer: a client_secret is sent to one authorization server alone: name it"
            )
        for name in ("issuer", "client_metadata_url"):
            url = getattr(self, name)
            if url is not None and "${" not in url and not is_http(url):
                raise UsageError(f"oauth.{name}: it must begin with http:// or https:// and a host")
        url = self.client_metadata_url
        if url is not None and "${" not in url and not _has_path(url):
            raise UsageError("oauth.client_metadata_url: it must begin with https:// and have a path")
        if self.client_auth not in {"basic", "post"}:
            raise UsageError("oauth.client_auth: it must be basic or post")
        if not 0 <= self.redirect_port < 65536:
            raise UsageError("oauth.redirect_port: it must be a port, or 0")
        return self


class Answer(NamedTuple):
    """What an authorization server has sent to a person's browser."""

    code: str
    state: str | None
    issuer: str | None


class Login(Protocol):
    """A person who can be shown an address, and comes back from there.

    Attributes:
        redirect_uri: where the person comes back to.
    """

    @property
    def redirect_uri(self) -> str: ...

    async def show(self, url: str) -> None:
        """Send the person to ``url``."""
        ...

    async def answer(self) -> Answer:
        """What the person came back with.

        Raises:
            McpUnavailable: nobody came back in time, or with a refusal.
        """
        ...


class TokenFolder:
    """What was granted, one file for each server: readable by its owner alone, and bound to the address of the server.

    Processes that share the folder take turns in asking for fresh tokens: one that was used up ends the grant.

    Args:
        path: of the folder; made when something is kept.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def read(self, name: str, url: str) -> Mapping[str, Any] | None:
        """What was granted for the server of this name, at this address; ``None`` for nothing.

        Raises:
            UsageError: others could have read or written it, or it is not what was written there.
        """
        file = self._file(name)
        try:
            with file.open("rb") as opened:
                if os.name == "posix" and os.fstat(opened.fileno()).st_mode & 0o077:
                    raise UsageError(f"{file}: others may read it; log in again (and `chmod 600` it)")
                told: Any = json.loads(opened.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{file}: it cannot be read: {type(error).__name__}") from None
        if not isinstance(told, dict):
            told = {}
        granted = cast("Mapping[str, Any]", told)
        _note(granted)
        if granted.get("version") != 1:
            raise UsageError(f"{file}: it is not what was written there; log in again")
        return granted if granted.get("server") == _digest(url) else None

    def write(self, name: str, url: str, granted: Mapping[str, Any]) -> None:
        """Keep what was granted: wholly, or not at all.

        Raises:
            OSError: it cannot be written.
        """
        _note(granted)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(name)
        fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        text = json.dumps({"version": 1, "server": _digest(url), **granted}, indent=1)
        with open(fresh, "x", encoding="utf-8", opener=_private) as opened:
            opened.write(text)
        fresh.replace(file)

    def forget(self, name: str) -> bool:
        """Delete what was granted. Gives whether there was something."""
        try:
            self._file(name).unlink()
        except FileNotFoundError:
            return False
        return True

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[None]:
        """No other process asks for fresh tokens of this server meanwhile."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            async with asyncio.timeout(_LOCK_SECONDS):
                while not _locked(descriptor):  # noqa: ASYNC110  (another process lets go of it)
                    await asyncio.sleep(_LOCK_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.json"


def _note(granted: Any, name: str = "") -> None:
    """Have the log know the tokens that are kept."""
    if isinstance(granted, Mapping):
        for field, value in cast("Mapping[str, Any]", granted).items():
            _note(value, field)
    elif isinstance(granted, str) and looks_secret(name, granted):
        Secrets([(name, granted)])


def default_tokens(variables: Mapping[str, str]) -> TokenFolder:
    """Where tokens are kept on this machine by whoever says nothing else."""
    home = variables.get("HOME") or variables.get("USERPROFILE") or "."
    state = variables.get("XDG_STATE_HOME") or str(Path(home) / ".local/state")
    return TokenFolder(Path(state) / "opspawn/mcp")


def is_http(url: str) -> bool:
    """It is an address of HTTP, with a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _has_path(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and parts.path not in {"", "/"}


def _digest(url: str) -> str:
    return "sha256:" + hashlib.sha256(url.encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # where there is no such lock, the last one who logs in wins
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
