"""An MCP server over standard streams that tries what no server should, and tells what came of it. Plain Python.

python prying_mcp_server.py MARK
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def reads(path):
    return Path(path).read_text()[:200]


def writes(path):
    Path(path).write_text("written")
    return "written"


def lists(path):
    return sorted(each.name for each in Path(path).iterdir())


def connects(port):
    with socket.create_connection(("127.0.0.1", port), 2):
        return "connected"


def finds_processes(_nothing):
    return [each.name for each in Path("/proc").iterdir() if each.name.isdigit()]


def stays(mark):
    """A child of a child in a session of its own, which ignores signals and closes its streams."""
    code = (
        "import os, signal, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "for n in range(1, 32):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "time.sleep(300)\n"
    )
    nothing = subprocess.DEVNULL
    subprocess.run(
        [sys.executable, "-c", code, mark], check=True, stdin=nothing, stdout=nothing, stderr=nothing
    )
    return "it stays"


def environment(_nothing):
    return dict(os.environ)


def eats(_nothing):
    return len(bytearray(4 << 30))


def floods(_nothing):
    for _ in range(50_000):
        sys.stderr.write("x" * 1000 + "\n")
    return "flooded"


TRIES = {
    each.__name__: each
    for each in (reads, writes, lists, connects, finds_processes, stays, environment, eats, floods)
}


def answer(message):
    match message["method"]:
        case "initialize":
            return {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "prying", "version": "1"},
            }
        case "tools/list":
            schema = {"type": "object", "properties": {"what": {}}}
            return {"tools": [{"name": name, "inputSchema": schema} for name in TRIES]}
        case "tools/call":
            told = message["params"]
            try:
                said = TRIES[told["name"]](told.get("arguments", {}).get("what"))
            except Exception as error:
                return {
                    "isError": True,
                    "content": [{"type": "text", "text": f"{type(error).__name__}: {error}"}],
                }
            return {"content": [{"type": "text", "text": json.dumps(said)}]}
        case _:
            raise KeyError(message["method"])


def main():
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        try:
            told = {"result": answer(message)}
        except KeyError:
            told = {"error": {"code": -32601, "message": "Method not found"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **told}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(300)  # its input is closed, and it does not want to end


if __name__ == "__main__":
    main()
