"""The pool in a worse place: without leave to make namespaces, as nobody, or both. Not imported: it is run.

Its arguments: what is given up first (``namespaces``, ``root``), a folder of functions, a file that nobody granted.
"""

# mypy: ignore-errors

import asyncio
import json
import os
import sys

from agentkit.errors import ToolError
from agentkit.sandbox import Limits, SandboxUnavailable, open_sandbox
from agentkit.sandbox.confined import seccomp
from agentkit.sandbox.terms import MIB

SMALL = Limits(
    seconds=1.5,
    cpu_seconds=5,
    memory_bytes=64 * MIB,
    processes=24,
    descriptors=64,
    output_bytes=64 << 10,
    disk_bytes=8 * MIB,
)


def give_up_namespaces():
    """As the default profile of a container does."""
    program = seccomp._begin()
    program.answer(("unshare", "setns", "mount", "pivot_root", "move_mount"), seccomp._REFUSED)
    program.answer(("clone3",), seccomp._MISSING)
    program.with_bits("clone", 0, seccomp._CLONE_NEW, allowed=False)
    program.say(seccomp._RETURN, seccomp._ALLOW)
    seccomp.install(program.packed())


def give_up_root():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


async def main(folder, secret):
    attacks = {
        "loop_deaf": {},
        "stop_itself": {},
        "fill_memory": {},
        "fork_bomb": {},
        "flood_output": {},
        "fill_disk": {},
        "leave_a_daemon": {"file": secret + ".daemon"},
        "read_files": {"paths": [secret, "/etc/shadow", f"/proc/{os.getpid()}/environ"]},
        "change_files": {"path": secret},
        "connect_unix": {"path": "/run/nobody"},
        "kill_others": {"pid": os.getpid()},
    }
    async with open_sandbox("pool", path=[folder, *sys.path], limits=SMALL) as box:

        async def outcome(name, arguments):
            try:
                return (await box.call(name, arguments)).value
            except ToolError as error:
                return type(error).__name__

        calls = {name: outcome(f"sandboxed.attacks:{name}", given) for name, given in attacks.items()}
        calls |= {name: outcome(f"sandboxed.honest:{name}", {}) for name in ("own_files", "in_threads")}
        found = dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
        print(json.dumps({"means": box.capabilities.means, "found": found}))
    try:
        async with open_sandbox("jail"):
            pass
    except SandboxUnavailable as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps("opened"))


if __name__ == "__main__":
    given_up = sys.argv[1].split(",")
    if "root" in given_up:
        give_up_root()
    if "namespaces" in given_up:
        give_up_namespaces()
    asyncio.run(main(*sys.argv[2:]))
