"""``opspawn mcp``: the MCP servers that agents use, and what was approved of them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json
from ops_core.cli.tasks import do

app = typer.Typer(
    cls=CommandGroup,
    help="The MCP servers that agents use, and what was approved of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="SERVER", help="Its name in opspawn.toml.", show_default=False)
]


@app.command(name="list")
def list_servers(as_json: Json = False) -> None:
    """List the servers that are declared, and whether their tools may be used. None is asked."""
    from ops_core.cli import servers

    do(servers.list_servers(as_json))


@app.command()
def inspect(server: Name, as_json: Json = False) -> None:
    """Ask a server for its tools, and show each as it is defined now, beside what was approved.

    Ends with 1 where something is not as it was approved.
    """
    from ops_core.cli import servers

    do(servers.inspect(server, as_json))


@app.command()
def approve(
    server: Name,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="NAME", help="Only this tool; may be repeated.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for whoever has inspected them.")] = False,
) -> None:
    """Show what has changed since the last approval, and approve the tools of a server as they are defined now.

    What is approved is written into the file beside opspawn.toml that ends in .mcp.lock: commit it. Agents are shown
    the tools as they stand there. Without a terminal, --yes is needed.
    """
    from ops_core.cli import servers

    do(servers.approve(server, tuple(tool or ()), yes=yes))


@app.command()
def login(
    server: Name,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only show the address; do not open it.")
    ] = False,
) -> None:
    """Log in at the authorization server of a server, in a browser on this machine, and keep what it grants.

    What is granted is kept in a file that its owner alone may read; workers that see it go on with it.
    """
    from ops_core.cli import logins

    do(logins.login(server, browser=not no_browser))


@app.command()
def logout(server: Name) -> None:
    """Delete what was granted for a server. The authorization server is not told."""
    from ops_core.cli import logins

    do(logins.logout(server))


@app.command()
def serve(
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only hand tasks in; other workers carry them.")
    ] = False,
) -> None:
    """Offer the agents as tools over standard input and output, until the input ends.

    A program that speaks MCP starts this by itself. `opspawn serve` offers the same at /mcp, for many at a time.
    """
    from ops_core.cli.lasting import run_lasting
    from ops_core.cli.serving_mcp import serve_streams_here

    raise typer.Exit(run_lasting(serve_streams_here(worker=not no_worker)))


@app.command()
def test(server: Name) -> None:
    """Open a connection to a server, and say what comes of it. Ends with 1 where none can be opened."""
    from ops_core.cli import servers

    do(servers.test(server))
