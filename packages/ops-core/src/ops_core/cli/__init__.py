"""The command line. A command loads only what it needs, so that ``--help`` is quick."""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper

from ops_core import __version__
from ops_core.cli.agentkit_check import problem_with_agentkit


def main() -> None:
    """The program ``opspawn``."""
    gc.set_threshold(20_000)  # imports make many objects and leave no garbage: a seventh of a short command
    if os.getpid() == 1:
        from ops_core.cli.init_process import split_from_init

        split_from_init()
    if (problem := problem_with_agentkit()) is not None:
        print(f"opspawn: {problem}", file=sys.stderr)
        _end(2)
    if sys.argv[1:] in (["--version"], ["-V"]):  # without loading what reads options
        print(f"opspawn {__version__}")
        return
    from ops_core.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # an encoding that lacks a character is no reason to fail
    try:
        app(prog_name="opspawn")
    except BrokenPipeError:
        _forget_stdout()
        _end(141)
    except KeyboardInterrupt:
        _end(130)
    except Exception as error:  # noqa: BLE001  (this is the end of the program: every error becomes a line and a code)
        _end(_print_error(error))


def _print_error(error: Exception) -> int:
    from ops_core.cli.error_lines import exit_of_error, innermost, line_of_error

    cause = innermost(error)
    if _debugging():
        import traceback

        traceback.print_exception(error)
    print(f"opspawn: {line_of_error(cause)}", file=sys.stderr)
    return exit_of_error(cause)


def _debugging() -> bool:
    from ops_core.errors import ConfigError
    from ops_core.settings import read_settings

    try:
        return read_settings().log_level == "debug"
    except ConfigError:
        return False


def _forget_stdout() -> None:
    """Nobody reads it any more; the interpreter's last flush must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int) -> None:
    sys.exit(code)
