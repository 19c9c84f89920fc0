"""What the conformance suite starts as a client: it carries the scenario to where our client is, and its end back.

    python mcp_courier.py SOCKET URL

A client that loads its libraries for each of the suite's fifty scenarios would take a minute of processor time.
"""

import json
import os
import socket
import sys

address, url = sys.argv[1:]
told = {
    "scenario": os.environ["MCP_CONFORMANCE_SCENARIO"],
    "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")),
    "url": url,
}
with socket.socket(socket.AF_UNIX) as wire:
    wire.connect(address)
    wire.sendall(json.dumps(told).encode() + b"\n")
    answer = json.loads(wire.makefile().readline())
sys.stderr.write(answer["said"])
sys.exit(answer["code"])
