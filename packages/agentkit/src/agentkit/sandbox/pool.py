"""Functions in children of a warm fork server, each confined to what it was granted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentkit.sandbox.capabilities import Capabilities, Control, State
from agentkit.sandbox.forking import HELD, ForkingBackend, held


class Pool(ForkingBackend):
    """One confined child for each call: no process, no program, no socket, no file that was not granted."""

    name = "pool"

    def _judged(self, found: Mapping[str, Any]) -> Capabilities:
        in_namespaces = bool(self._facts["namespaces"])
        limits = found["limits"]
        controls = {
            **HELD,
            Control.FILES: held(found["files"]),
            Control.NETWORK: held(found["network"] and found["sockets"]),
            Control.PROCESSES: held(found["processes"]),
            Control.SIGNALS: held(found["signals"]),
            Control.MEMORY: State.ENFORCED if limits["memory"] else State.POLLED,
            Control.DISK: State.ENFORCED if in_namespaces else State.POLLED,
        }
        return Capabilities(backend=self.name, controls=controls, means=self._means())
