"""The table of lazy commands agrees with the commands."""

import inspect
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
