"""Test support for agents and for implementations of the ports: fakes, faults, and the contract of each port.

A contract is a class of pytest tests that needs a fixture or two::

    class TestMyJournal(JournalContract):
        @pytest.fixture
        async def journal(self): ...
"""

from agentkit.testing.journals import Crash, CrashingJournal, JournalContract
from agentkit.testing.memories import EmbeddingsContract, MemoryContract
from agentkit.testing.model_contract import ConversationContract, Fault, ModelContract
from agentkit.testing.models import ScriptedModel, UnplannedRequest
from agentkit.testing.recordings import RecordingDiffers, Replay, replay
from agentkit.testing.sandboxes import SandboxContract
from agentkit.testing.toolsets import ToolsetContract

__all__ = [
    "ConversationContract",
    "Crash",
    "CrashingJournal",
    "EmbeddingsContract",
    "Fault",
    "JournalContract",
    "MemoryContract",
    "ModelContract",
    "RecordingDiffers",
    "Replay",
    "SandboxContract",
    "ScriptedModel",
    "ToolsetContract",
    "UnplannedRequest",
    "replay",
]
