"""Tables of ``opspawn.toml``: their keys and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from agentkit.budget.prices import Price
from agentkit.models.credentials import MaxTokensField
from agentkit.models.endpoints import Kind
from agentkit.models.resilience.circuit_breaker import CircuitSettings
from agentkit.models.resilience.rate_limiter import RateLimits
from agentkit.models.settings import Effort
from agentkit.run.compaction import Strategy
from ops_core.config.http_tools import ApiTable
from ops_core.config.mcp import McpNames, McpTable
from ops_core.config.model_terms import ModelTerms
from ops_core.config.policies import PolicyTable
from ops_core.config.sandbox import SandboxTable
from ops_core.durations import Seconds, SecondsOrZero
from ops_core.spending import Spending

DEFAULT_MODEL = "offline:planner"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Budget(_Strict):
    """``[agents.NAME.budget]``: see :class:`agentkit.budget.limits.Limits`."""

    steps: PositiveInt | None = 100
    tokens: PositiveInt | None = None
    seconds: Seconds | None = None
    usd: PositiveFloat | None = None


class RetriesTable(_Strict):
    """``[agents.NAME.retries]``: see :class:`agentkit.models.resilience.retry.Retries`."""

    tries: PositiveInt = 3
    first_seconds: SecondsOrZero = 0.5
    max_seconds: SecondsOrZero = 8.0
    longest_wait: SecondsOrZero = 20.0


class PriceTable(_Strict):
    """``[prices."PROVIDER:NAME"]``: see :class:`agentkit.budget.prices.Price`."""

    input_usd_per_million: NonNegativeFloat
    output_usd_per_million: NonNegativeFloat
    cached_input_usd_per_million: NonNegativeFloat | None = None
    cache_write_usd_per_million: NonNegativeFloat | None = None
    cache_write_1h_usd_per_million: NonNegativeFloat | None = None
    input_audio_usd_per_million: NonNegativeFloat | None = None
    cached_audio_usd_per_million: NonNegativeFloat | None = None
    output_audio_usd_per_million: NonNegativeFloat | None = None
    output_image_usd_per_million: NonNegativeFloat | None = None
    web_search_usd_per_thousand: NonNegativeFloat | None = None
    file_search_usd_per_thousand: NonNegativeFloat | None = None
    max_output_tokens: PositiveInt | None = None


class LimitsTable(_Strict):
    """``[limits.PROVIDER]`` or ``[limits."PROVIDER:NAME"]``: see
    :class:`agentkit.models.resilience.rate_limiter.RateLimits`.
    """

    concurrency: PositiveInt | None = None
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None


class CircuitTable(_Strict):
    """``[circuit]``: see :class:`agentkit.models.resilience.circuit_breaker.CircuitSettings`."""

    failures: PositiveInt = 5
    seconds: Seconds = 15.0
    max_seconds: Seconds = 240.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.seconds > self.max_seconds:
            message = f"seconds ({self.seconds:g}) must not be more than max_seconds ({self.max_seconds:g})"
            raise ValueError(message)
        return self


class SpendingTable(_Strict):
    """``[spending]``: see :class:`ops_core.spending.Spending`."""

    usd_per_day: PositiveFloat | None = None
    tenants: Mapping[str, PositiveFloat] = Field(default_factory=dict)
    when_reached: Literal["fail", "wait"] = "fail"


class TelemetryTable(_Strict):
    """``[agents.NAME.telemetry]``: see :class:`agentkit.run.telemetry.Telemetry`."""

    content: bool = False


class ContextTable(_Strict):
    """``[agents.NAME.context]``: see :class:`agentkit.run.compaction.Context`."""

    window: PositiveInt | None = None
    strategy: Strategy = "summary"


class SettingsTable(_Strict):
    """``[agents.NAME.settings]``: see :class:`agentkit.models.settings.ModelSettings`."""

    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    tool_choice: str | None = None
    stop: tuple[str, ...] = ()


class MemoryTable(_Strict):
    """``[agents.NAME.memory]``: see :class:`agentkit.memories.AgentMemory`."""

    memory: Literal["database"] = "database"
    embeddings: str = "offline:hash"
    remember: Literal["nothing", "outcome", "tool"] = "nothing"
    recall: NonNegativeInt = 5
    tokens: PositiveInt = 1000
    min_score: Annotated[float, Field(ge=-1, le=1)] = 0.0
    per: str | None = None


class AgentTable(McpNames):
    """``[agents.NAME]`` in ``opspawn.toml``.

    Attributes:
        model: ``provider:name``.
        fallback: models that are asked, in this order, where the one before has no reply.
        retries: how often a call of a model that failed is made again.
        instructions: what the model is told before everything else.
        tools: import paths ``package.module:name`` of tools, functions, toolsets, or lists of these; names of
            ``[tools.NAME]``; ``everyday`` stands for the built-in ones, reading below the folder of the file,
            ``python`` for scripts that the model writes, ``shell`` for commands.
        tool_timeout_seconds: after so many a call is given up, for tools that do not say it themselves.
        parallel_tools: calls of one reply run side by side; ``false`` for one after the other, in their order.
        sequential_tools: names or patterns of tools whose calls run alone.
        mcp, mcp_proxy: MCP servers, see :class:`ops_core.config.mcp.McpNames`.
        output: import path of the type of the output; text where not given.
        deps: import path of what the tools are given as ``ToolContext.deps``: an object, or a function or class that is
            called without arguments. Each process that calls such a tool makes its own.
        planning: ``native`` or ``react``.
        budget: the limits of each run.
        policy: rules about tool calls.
        patience: fruitless turns in a row before a run is failed.
        context: what is done when a conversation outgrows the model.
        settings: how the model is to answer.
        telemetry: whether spans tell what is said.
        memory: what outlives its runs; nothing where there is no such table.
    """

    model: str = DEFAULT_MODEL
    fallback: tuple[str, ...] = ()
    retries: RetriesTable = RetriesTable()
    instructions: str = ""
    tools: tuple[str, ...] = ()
    output: str | None = None
    deps: str | None = None
    tool_timeout_seconds: Seconds | None = None
    parallel_tools: bool = True
    sequential_tools: tuple[str, ...] = ()
    planning: Literal["native", "react"] = "native"
    budget: Budget = Budget()
    policy: PolicyTable = PolicyTable()
    patience: PositiveInt = 3
    context: ContextTable = ContextTable()
    settings: SettingsTable = SettingsTable()
    telemetry: TelemetryTable = TelemetryTable()
    memory: MemoryTable | None = None


class EndpointTable(_Strict):
    """``[endpoints.NAME]``: see :class:`agentkit.models.NamedEndpoint`."""

    kind: Kind = "openai"
    base_url: str | None = None
    api_key_env: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Mapping[str, JsonValue] = Field(default_factory=dict)
    timeout_seconds: Seconds = 300.0
    max_tokens_field: MaxTokensField | None = None
    stream_options: bool | None = None


class ConfigFile(_Strict):
    """``opspawn.toml`` as a whole."""

    endpoints: Mapping[str, EndpointTable] = Field(default_factory=dict)
    agents: Mapping[str, AgentTable] = Field(default_factory=dict)
    tools: Mapping[str, ApiTable] = Field(default_factory=dict)
    prices: Mapping[str, PriceTable] = Field(default_factory=dict)
    limits: Mapping[str, LimitsTable] = Field(default_factory=dict)
    circuit: CircuitTable = CircuitTable()
    spending: SpendingTable = SpendingTable()
    mcp: McpTable = McpTable()
    sandbox: SandboxTable = SandboxTable()

    def terms(self) -> ModelTerms:
        """On what terms models are asked."""
        return ModelTerms(
            prices={name: Price(**dict(table)) for name, table in self.prices.items()},
            limits={name: RateLimits(**dict(table)) for name, table in self.limits.items()},
            breaking=CircuitSettings(**dict(self.circuit)),
            spending=Spending(**dict(self.spending)),
        )


def problems_of(error: ValidationError) -> str:
    """What is wrong with a file: each problem with its place, and with the key that was probably meant."""
    found = error.errors()
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {_problem(each['type'], each['loc'], each['msg'])}"
        for each in found
    )


def _problem(kind: str, loc: Sequence[int | str], text: str) -> str:
    if kind != "extra_forbidden":
        return text.removeprefix("Value error, ")
    *place, key = loc
    table = _table_at(ConfigFile, place)
    known = list(table.model_fields) if table is not None else []
    close = get_close_matches(str(key), known, n=1)
    where = f"in [{'.'.join(map(str, place))}]" if place else "in this file"
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
    return f"there is no {key!r} {where}; {hint}"


def _table_at(kind: Any, place: Sequence[int | str]) -> type[BaseModel] | None:
    """The table that stands at a place below a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _table_at(inner[0], place)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not place:
            return kind
        field = kind.model_fields.get(str(place[0]))
        return None if field is None else _table_at(field.annotation, place[1:])
    if origin in (Mapping, tuple):
        return _table_at(inner[1 if origin is Mapping else 0], place[1:]) if place else None
    # of several kinds: each of them, with and without its name, by which the place may say which one it is
    ways = ((each, rest) for each in inner for rest in (place, place[1:]) if each is not Ellipsis)
    return next((found for each, rest in ways if (found := _table_at(each, rest)) is not None), None)
