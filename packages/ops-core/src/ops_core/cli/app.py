"""The command line's entry: options of the whole program, and its commands, imported when called."""

from __future__ import annotations

from textwrap import fill
from typing import Annotated

import typer

from ops_core import __version__
from ops_core.cli.exit_codes import MEANINGS
from ops_core.cli.lazy import LazyGroup

_TABLE = "\n".join(
    fill(meaning, 76, initial_indent=f"  {code.value:>3}  ", subsequent_indent=" " * 7)
    for code, meaning in MEANINGS.items()
)
_SETTINGS = "Settings are environment variables OPSPAWN_…; `opspawn doctor` lists those in force."

app = typer.Typer(
    cls=LazyGroup,
    help="Runs LLM agents so that they finish.",
    epilog=f"\b\nExit codes:\n{_TABLE}\n\n{_SETTINGS}",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    # plain text, made without loading rich: `--help` is quick, and its text is the documentation's
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"opspawn {__version__}")
        raise typer.Exit


@app.callback()
def opspawn(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version
