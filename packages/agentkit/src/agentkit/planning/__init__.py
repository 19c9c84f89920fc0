"""From what has happened to what the model is told next, and from its reply to what is wanted: pure functions.

Two ways to plan: :data:`NATIVE` uses the provider's own tool calls, :data:`REACT` speaks text (reason, act, observe)
with models that have none. Both leave the same steps behind, so a transcript does not depend on the way it was made.
"""

from agentkit.planning.conversation import Brief, Planning, Reading
from agentkit.planning.native import NATIVE
from agentkit.planning.react import REACT

__all__ = ["NATIVE", "REACT", "Brief", "Planning", "Reading"]
