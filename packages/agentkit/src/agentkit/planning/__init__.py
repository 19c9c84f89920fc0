"""Planning: the transcript rendered as the next request, and the reply parsed into calls or an answer. Pure.

Two ways to plan: :class:`NativePlanning` uses the provider's own tool calls, :class:`ReActPlanning` speaks text
(reason, act, observe) with models that have none. Both leave the same steps behind, so a transcript does not depend on
the way it was made.
"""

from agentkit.planning.conversation import Brief, Planning, Reading
from agentkit.planning.native import NativePlanning
from agentkit.planning.react import ReActPlanning

__all__ = ["Brief", "NativePlanning", "Planning", "ReActPlanning", "Reading"]
