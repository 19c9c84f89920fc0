"""The names that telemetry uses: OpenTelemetry's GenAI semantic conventions, as of 2026-11, and a few of our own.

None of the ``gen_ai.*`` names is stable yet. They are here and nowhere else, so that a renaming is one line.
"""

from __future__ import annotations

# --- what is done ------------------------------------------------------------------------------------------------

INVOKE_AGENT = "invoke_agent"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"

# --- attributes --------------------------------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
"""The id of the run, which for a task of the platform is the task's."""
AGENT = "gen_ai.agent.name"
ERROR_TYPE = "error.type"
"""The ``code`` of our error, or the type of another exception."""

REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_STREAM = "gen_ai.request.stream"
OUTPUT_TYPE = "gen_ai.output.type"

RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"

INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  (no secret)

TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL = "gen_ai.tool.call.id"
TOOL_DESCRIPTION = "gen_ai.tool.description"

# --- attributes that hold what was said; only where that was asked for ---------------------------------------------

SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

# --- attributes of our own: the conventions have no name for them --------------------------------------------------

COST_USD = "agentkit.usage.cost_usd"
RUN_STATUS = "agentkit.run.status"
TOOL_STDOUT_LENGTH = "agentkit.tool.stdout.length"
TOOL_STDERR_LENGTH = "agentkit.tool.stderr.length"
"""``completed``, ``failed``, ``cancelled``, ``waiting``."""

# --- metrics: name, unit, what it measures, bounds of its buckets --------------------------------------------------

TOKEN_USAGE = (
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used.",
    tuple(4.0**power for power in range(14)),
)
_CALL_SECONDS = tuple(0.01 * 2**power for power in range(14))
OPERATION_SECONDS = ("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _CALL_SECONDS)
TOOL_SECONDS = (
    "gen_ai.execute_tool.duration",
    "s",
    "The duration of a single tool execution.",
    _CALL_SECONDS,
)
AGENT_SECONDS = (
    "gen_ai.invoke_agent.duration",
    "s",
    "The end-to-end duration of a single agent invocation.",
    tuple(0.1 * 2**power for power in range(13)),
)

# --- values ------------------------------------------------------------------------------------------------------

PROVIDERS = {"google": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai", "moonshot": "moonshot_ai"}
"""Providers that the conventions call otherwise than we do."""

STOP_REASONS = {
    "end": "stop",
    "tool_calls": "tool_call",
    "length": "length",
    "refused": "content_filter",
    "filtered": "content_filter",
    "unfinished": "error",
    "paused": "stop",
}
"""Our stop reasons in the words of the conventions."""
