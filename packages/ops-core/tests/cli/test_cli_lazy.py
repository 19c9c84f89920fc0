"""The table of lazy commands agrees with the commands."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from ops_core.cli.lazy import COMMANDS, load


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_help_is_that_of_the_command(name):
    module, attribute, line = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    text = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split()) == line
    assert load(name).name == name


def test_a_command_loaded_for_its_options_runs_whole():
    """An option may have the value ``--help``, and one process may print help first and run a command then."""
    script = (
        "import sys\n"
        "from ops_core.cli.app import app\n"
        "for arguments in (['purge', '--help'], ['purge', '--older-than', '-h'], ['purge', '--older-than', 'soon']):\n"
        "    try: print(app(arguments, prog_name='opspawn', standalone_mode=False))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("InvalidRequest --older-than takes a number and a unit") == 2
