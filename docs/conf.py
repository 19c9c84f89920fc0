"""How the documentation is built. Nothing is fetched: no intersphinx, no outside fonts or scripts."""

import logging

import mcp_types as _loaded  # noqa: F401  (autodoc would load it as for a type checker, and it cannot be loaded so)

import agentkit.agent
import agentkit.run.loop
from ops_core import __version__

# agent.py imports these for type checkers alone: they load with the first run.
vars(agentkit.agent).update(Event=agentkit.run.loop.Event, OnEvent=agentkit.run.loop.OnEvent)

project = "Opspawn"
author = "The Opspawn authors"
copyright = "the Opspawn authors, Apache-2.0"
version = release = __version__

# The theme's colours set up logging for the whole process, and Alembic then tells of each plugin.
logging.getLogger("alembic").setLevel(logging.WARNING)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else each attribute is described twice

# Every reference must lead somewhere, except to other people's modules, whose pages are on other hosts, and to
# type variables, which have no page.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!agentkit\.|ops_core\.)[\w.]+\..*"),  # a dotted name that is not ours
    (r"py:.*", r"[\w ]+"),  # a bare name: a builtin, a type variable, an alias that is written out
    (r"py:.*", r"(agentkit|ops_core)\.[\w.]+\.(Deps|Item|Output|Value|Result|T)"),  # a type variable
    (r"py:.*", r"(agentkit|ops_core)\.([\w.]+\.)?_\w+"),  # a private base class
    (r"py:.*", r"(agentkit|ops_core)\.testing\..*|ops_core\.(stores|assembly)\..*"),  # parts without a page
    (r"py:.*", r"ops_core\.durations\..*"),  # readers of settings, as they stand in annotations
    (r"py:.*", r"\w+\[.*"),  # a piece of an annotation
]

copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"Opspawn {release}"
html_show_sphinx = False
html_copy_source = False
