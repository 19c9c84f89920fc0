"""What `import agentkit` loads: the list of its modules, since a time would depend on the machine."""

import json
import subprocess
import sys

LATE = {
    *("pydantic", "pydantic_core", "httpx2", "mcp", "openai", "anthropic", "google.genai"),
    # of the standard library, what takes long and is needed by few
    *("bz2", "email", "html", "lzma", "mimetypes", "platform", "shutil", "tempfile", "uuid", "sqlite3"),
    *("agentkit.mcp", "agentkit.memories.google", "agentkit.memories.openai", "agentkit.models.google_wire"),
    *("agentkit.models.openai_wire", "agentkit.models.refusals", "agentkit.planning.react_parser"),
    *("agentkit.sandbox.forking", "agentkit.sandbox.jail", "agentkit.guarded", "agentkit.testing"),
}
"""Modules that load when they are needed."""

LOADED = """
import json, sys
before = set(sys.modules)
import agentkit
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_the_library_loads_little():
    told = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True, text=True)
    loaded = set(json.loads(told.stdout))
    assert not loaded & LATE
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert foreign == {"agentkit"}
