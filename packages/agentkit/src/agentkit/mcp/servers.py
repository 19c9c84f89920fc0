"""Declaration of an MCP server."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from agentkit.errors import UsageError
from agentkit.mcp.oauth.tokens import McpOAuth, is_http
from agentkit.messages import Effect
from agentkit.net.hosts import HostRule
from agentkit.untrusted.secrets import Filling, Secrets, looks_secret

_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,23}")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """An MCP server: a program that speaks over its standard streams, or an address that speaks streamable HTTP.

    In ``command``, ``args``, ``env``, ``cwd``, ``read``, ``write``, ``url``, ``headers`` and ``oauth`` the text
    ``${NAME}`` stands for a variable and ``${NAME:-otherwise}`` for one that may be missing; see :meth:`resolved`.

    Attributes:
        name: letters, digits and ``-``, at most 24; the names of its tools begin with it.
        command: the program. It inherits nothing of this process's environment but where programs and the home are.
        args: what it is given.
        env: its environment, besides that.
        cwd: where it runs; the working directory of this process where not given, and in the jail a folder of its own.
        sandbox: ``jail``, where it sees the system's programs, its own installation, ``cwd`` and what is granted, and
            reaches nobody else; or ``none``, for a program that is trusted with all that this process may do.
        read: files and folders that it sees in the jail.
        write: files and folders that it may change there.
        hosts: ``HOST`` or ``HOST:PORT`` that it may reach from there; only public addresses are connected to, unless a
            rule says otherwise.
        url: the address, in place of a command.
        headers: sent with each request to it.
        private: its host may lie in a private network or on this machine. One that is written as an address, or as
            ``localhost``, may anyway: whoever wrote it has chosen it.
        oauth: how tokens for these requests are come by.
        auth: an ``httpx2.Auth`` for these requests, in place of ``oauth``.
        tools: patterns of the names of tools (``*`` and ``?``) that may be seen and called.
        effects: what repeating a call would do, by pattern of the tool's name; the first one that fits counts. What
            a server says about that itself is a hint that nobody has to believe, so the rest is ``unsafe``.
        reaches_out: data can leave with a call of any tool of it. ``False`` for one that you trust with all
            that runs may have seen, and that tells nobody else.
        resources: what the server offers to be read is listed and read by two more tools.
        connect_seconds: so long opening a connection, and listing the tools, may take.
        call_seconds: so long a call may take.
    """

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    sandbox: Literal["jail", "none"] = "none"
    read: Sequence[str] = ()
    write: Sequence[str] = ()
    hosts: Sequence[HostRule | str] = ()
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    private: bool = False
    oauth: McpOAuth | None = None
    auth: Any = None
    tools: Collection[str] = ("*",)
    effects: Mapping[str, Effect | str] = field(default_factory=dict[str, "Effect | str"])
    reaches_out: bool = True
    resources: bool = False
    connect_seconds: float = 30.0
    call_seconds: float = 60.0

    def checked(self) -> McpServer:
        """Itself, where it makes sense.

        Raises:
            UsageError: a field is wrong; the message begins with its name.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"name: {self.name!r} must be letters, digits and -, at most 24, a letter first")
        if (self.command is None) == (self.url is None):
            raise UsageError("command: a server has either a command or a url")
        if self.url is not None and (self.args or self.env or self.cwd is not None):
            raise UsageError("url: a server with a url has no args, env or cwd")
        if self.command is not None and (self.headers or self.auth is not None or self.oauth is not None):
            raise UsageError("command: a server with a command has no headers, oauth or auth")
        if self.url is not None and "${" not in self.url and not is_http(self.url):
            raise UsageError("url: it must begin with http:// or https:// and a host")
        if self.oauth is not None:
            if self.auth is not None:
                raise UsageError("oauth: a server has either oauth or auth")
            self.oauth.checked()
        if self.sandbox not in {"jail", "none"}:
            raise UsageError('sandbox: it must be "jail" or "none"')
        for name in ("read", "write", "hosts"):
            if getattr(self, name) and (self.command is None or self.sandbox == "none"):
                raise UsageError(f"{name}: only a program in the jail is granted something")
        for host in self.hosts:
            try:
                _ = HostRule.of(host) if isinstance(host, str) else host
            except UsageError as error:
                raise UsageError(f"hosts: {error}") from None
        for pattern, effect in self.effects.items():
            if effect not in set(Effect):
                raise UsageError(f"effects: {pattern}: it must be one of {', '.join(Effect)}")
        for name in ("connect_seconds", "call_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: it must be more than 0")
        return self

    def resolved(self, variables: Mapping[str, str], folder: str = "") -> McpServer:
        """The same server with its variables filled in, and its paths taken from ``folder``.

        Raises:
            UsageError: one that has no other value is missing; the message names it and the field.
        """
        fill = Filling(variables)
        found = replace(
            self,
            command=None if self.command is None else fill("command", self.command),
            args=tuple(fill(f"args.{index}", each) for index, each in enumerate(self.args)),
            env={name: fill(f"env.{name}", each) for name, each in self.env.items()},
            cwd=self._folder(folder, fill),
            url=None if self.url is None else fill("url", self.url),
            headers={name: fill(f"headers.{name}", each) for name, each in self.headers.items()},
            read=_paths("read", self.read, fill, folder),
            write=_paths("write", self.write, fill, folder),
            oauth=None if self.oauth is None else _filled(self.oauth, fill),
        )
        if found.command is not None and found.sandbox == "jail" and os.sep in found.command:
            found = replace(found, command=os.path.join(folder, found.command))  # noqa: PTH118  (it may be absolute)
        return found.checked()

    def _folder(self, folder: str, fill: Filling) -> str | None:
        """Where it runs. In the jail the folder of the file is not shown for nothing: keys may lie there."""
        if self.url is not None or (self.cwd is None and self.sandbox == "jail"):
            return None
        return os.path.join(folder, fill("cwd", self.cwd or "")) or None  # noqa: PTH118  (neither may be given)

    def secrets(self, variables: Mapping[str, str]) -> Secrets:
        """What is not to be told where the server repeats it: what variables bring in, and what looks like a secret.

        Raises:
            UsageError: a variable is missing.
        """
        fill = Filling(variables)
        headers = {name: fill(name, text) for name, text in self.headers.items()}
        for text in (self.url, None if self.oauth is None else self.oauth.client_id):
            fill("", text or "")
        named = list(self.env.items())
        if self.oauth is not None and self.oauth.client_secret is not None:
            named.append(("client_secret", self.oauth.client_secret))
        before = ("", *self.args)  # the name of an option stands before its value
        options = (each.lstrip("-") if _OPTION.fullmatch(each) else "argument" for each in before)
        named += zip(options, self.args, strict=False)
        found: list[tuple[str, str]] = []
        for name, text in named:
            value = fill(name, text)
            if "${" in text or looks_secret(name, value):
                found.append((name, value))
        return Secrets.of_headers(headers, [*found, *fill.filled.items()])

    @property
    def fingerprint(self) -> str:
        """A digest of what is run or called, as declared: no variable is filled in, no secret is part of it."""
        what: list[Any] = [
            self.command,
            list(self.args),
            sorted(self.env),
            self.cwd,
            self.url,
            sorted(self.headers),
        ]
        if self.oauth is not None:
            what.append([self.oauth.grant, self.oauth.issuer])
        return "sha256:" + hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def allows(self, tool: str) -> bool:
        """A tool of this name may be seen and called."""
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)

    def effect_of(self, tool: str) -> Effect:
        """What repeating a call of this tool would do."""
        fitting = (Effect(effect) for pattern, effect in self.effects.items() if fnmatchcase(tool, pattern))
        return next(fitting, Effect.UNSAFE)


def _paths(where: str, paths: Sequence[str], fill: Filling, folder: str) -> tuple[str, ...]:
    """Absolute paths, from ``folder`` where they are relative."""
    filled = (fill(f"{where}.{index}", path) for index, path in enumerate(paths))
    return tuple(os.path.abspath(os.path.join(folder, os.path.expanduser(path))) for path in filled)  # noqa: PTH100, PTH111, PTH118


def _filled(oauth: McpOAuth, fill: Filling) -> McpOAuth:
    filled: dict[str, Any] = {
        name: fill(f"oauth.{name}", text)
        for name in ("issuer", "client_id", "client_secret", "client_metadata_url", "scope")
        if (text := getattr(oauth, name)) is not None
    }
    return replace(oauth, **filled)
