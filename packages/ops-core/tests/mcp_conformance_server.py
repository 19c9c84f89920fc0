"""The server that the conformance suite of MCP examines: ours, with what its scenarios ask for.

Agents carry the scenarios about tasks. What our server has no use for (prompts, resources, completion, tools that ask
their caller for something) is added to the same server object, so that its transport, its guard and its dispatch are
examined with it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.lowlevel import Server

from agentkit import Agent, tool
from agentkit.errors import ContentRefused, UsageError
from agentkit.messages import ToolCall, UserMessage
from agentkit.testing import ScriptedModel
from ops_core.api.serve import serving
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.mcp import Offer, ServeTable
from ops_core.config.sandbox import Sandboxing
from ops_core.mcp_server.server import AgentServer
from ops_core.mcp_server.transports import mounted
from ops_core.settings import Settings

# --- agents -------------------------------------------------------------------------------------------------------


def asked(request: Any) -> dict[str, Any]:
    """The input of the run."""
    first = next(message for message in request.messages if isinstance(message, UserMessage))
    return json.loads(first.text)


async def slow(request: Any) -> str:
    await asyncio.sleep(asked(request)["seconds"])
    return f"computed {asked(request)['label']}"


@tool(effect="pure", approval=True)
def delete(filename: str) -> str:
    """Delete a file."""
    return f"deleted {filename}"


def wants(*names: str) -> list[ToolCall]:
    return [ToolCall(id=f"call_{name}", name="delete", arguments={"filename": name}) for name in names]


def schema(*required: str, **properties: str) -> dict[str, Any]:
    told = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": told, "required": list(required)}


def agents() -> list[Agent[Any, Any]]:
    scripts: dict[str, Any] = {
        "greet": [lambda request: f"Hello, {asked(request)['name']}!"],
        "slow_compute": [slow],
        "failing_job": {0: ContentRefused("it is not done")},
        "protocol_error_job": {0: UsageError("nobody can do this")},
        "confirm_delete": [wants("a.txt"), "deleted"],
        "multi_input": [wants("a.txt", "b.txt"), "deleted"],
        "test_tool_with_task": [lambda request: f"done for {asked(request)['name']}"],
    }
    return [
        Agent(ScriptedModel.by_turn(script), name=name, tools=[delete]) for name, script in scripts.items()
    ]


SERVE = ServeTable(
    approvals=True,
    agents={
        "greet": Offer(input=schema("name", name="string"), tasks="never"),
        "slow_compute": Offer(input=schema(seconds="number", label="string")),
        "failing_job": Offer(input=schema(), tasks="always"),
        "protocol_error_job": Offer(input=schema()),
        "confirm_delete": Offer(input=schema(filename="string")),
        "multi_input": Offer(input=schema()),
        "test_tool_with_task": Offer(input=schema("name", name="string"), tasks="always"),
    },
)

# --- what else the scenarios ask for ------------------------------------------------------------------------------

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = base64.b64encode(
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
).decode()
EMBEDDED = {
    "type": "resource",
    "resource": {
        "uri": "test://embedded-resource",
        "mimeType": "text/plain",
        "text": "This is an embedded resource content.",
    },
}

Handler = Callable[[Any, Any], Awaitable[Any]]
TOOLS: dict[str, tuple[dict[str, Any], Handler]] = {}


def fixture(name: str, input_schema: dict[str, Any] | None = None) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        TOOLS[name] = (input_schema or {"type": "object", "properties": {}}, handler)
        return handler

    return add


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def done(*content: dict[str, Any], **more: Any) -> types.CallToolResult:
    return types.CallToolResult.model_validate({"content": list(content), **more})


for _name, _content in {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [{"type": "image", "data": PNG, "mimeType": "image/png"}],
    "test_audio_content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}],
    "test_embedded_resource": [EMBEDDED],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {
            "type": "resource",
            "resource": {"uri": "test://mixed", "mimeType": "application/json", "text": "{}"},
        },
    ],
}.items():

    def _fixed(content: Any) -> Handler:
        async def handler(_context: Any, _params: Any) -> Any:
            return done(*content)

        return handler

    fixture(_name)(_fixed(_content))


@fixture("test_error_handling")
async def _fails(_context: Any, _params: Any) -> Any:
    return done(text("This tool intentionally returns an error for testing"), isError=True)


@fixture("test_tool_with_progress")
async def _progress(context: Any, _params: Any) -> Any:
    for share in (0, 50, 100):
        await context.session.report_progress(share, 100, f"{share} of 100")
    return done(text("done"))


@fixture("test_tool_with_logging")
@fixture("test_logging_tool")
async def _logs(context: Any, _params: Any) -> Any:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", line, related_request_id=context.request_id)
        await asyncio.sleep(0.05)
    return done(text("logged"))


@fixture("test_sampling")
async def _samples(context: Any, params: Any) -> Any:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=params.arguments["prompt"]))
    answer = await context.session.create_message(
        [message], max_tokens=100, related_request_id=context.request_id
    )
    return done(text(f"LLM response: {answer.content.text}"))


def _eliciting(name: str, properties: Mapping[str, Any], message: str = "Please fill in") -> None:
    @fixture(name)
    async def _elicits(context: Any, params: Any) -> Any:
        asked_for = {"type": "object", "properties": dict(properties), "required": list(properties)}
        words = (params.arguments or {}).get("message", message)
        answer = await context.session.elicit_form(words, asked_for, context.request_id)
        return done(
            text(f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}")
        )


_eliciting("test_elicitation", {"username": {"type": "string"}, "email": {"type": "string"}})
_eliciting(
    "test_elicitation_sep1034_defaults",
    {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
)
_OPTIONS, _TITLED = (
    ["option1", "option2", "option3"],
    [("value1", "First"), ("value2", "Second"), ("value3", "Third")],
)
_CONSTANTS = [{"const": value, "title": f"{title} Option"} for value, title in _TITLED]
_eliciting(
    "test_elicitation_sep1330_enums",
    {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _CONSTANTS},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["One", "Two", "Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _CONSTANTS}},
    },
)


@fixture("test_missing_capability")
async def _needs_sampling(context: Any, _params: Any) -> Any:
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs sampling", needed)
    return done(text("it can sample"))


ADDRESS = {"$anchor": "address", "type": "object", "properties": {"street": {"type": "string"}}}


@fixture(
    "json_schema_2020_12_tool",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": ADDRESS},
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
        "if": {"properties": {"name": {"const": "x"}}},
        "then": {"required": ["address"]},
        "else": {"required": ["name"]},
        "additionalProperties": False,
    },
)
@fixture(
    "test_custom_headers",
    {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        "required": ["region"],
    },
)
@fixture("test_reconnection")
@fixture("test_streaming_elicitation")
async def _simple(_context: Any, _params: Any) -> Any:
    return done(text("done"))


# --- questions to the caller --------------------------------------------------------------------------------------


def form(name: str, kind: str, message: str) -> dict[str, Any]:
    asked_for = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": asked_for}}


def sampling(question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text(question)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 100}}


ROOTS = {"method": "roots/list", "params": {}}


def ask(requests: Mapping[str, Any], state: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"resultType": "input_required", "inputRequests": requests}
    return told if state is None else {**told, "requestState": f"{state}.{_signed(state)}"}


def _signed(state: str) -> str:
    return hmac.new(b"of the tests", state.encode(), hashlib.sha256).hexdigest()


def state_of(params: Any) -> str | None:
    if params.request_state is None:
        return None
    state, _dot, signature = params.request_state.rpartition(".")
    if not hmac.compare_digest(signature, _signed(state)):
        raise MCPError(types.INVALID_PARAMS, "the state was changed on its way")
    return str(state)


def answered(params: Any) -> dict[str, Any]:
    return {name: json.dumps(each, default=str) for name, each in (params.input_responses or {}).items()}


def _asking(tool_name: str, requests: Mapping[str, Any], state: str | None = None) -> None:
    @fixture(f"test_input_required_result_{tool_name}")
    async def _asks(_context: Any, params: Any) -> Any:
        given = answered(params)
        if (state is not None and state_of(params) != state) or not requests.keys() <= given.keys():
            return ask(requests, state)
        return done(text(f"state-ok {given}"))


_asking("elicitation", {"user_name": form("name", "string", "What is your name?")})
_asking("sampling", {"capital_question": sampling("What is the capital of France?")})
_asking("list_roots", {"client_roots": ROOTS})
_asking("request_state", {"confirm": form("ok", "boolean", "Please confirm")}, "confirming")
_asking("tampered_state", {"confirm": form("ok", "boolean", "Please confirm")}, "confirming")
_several = {
    "user_name": form("name", "string", "What is your name?"),
    "greeting": sampling("Generate a greeting"),
    "client_roots": ROOTS,
}
_asking("multiple_inputs", _several, "several")


@fixture("test_input_required_result_multi_round")
async def _rounds(_context: Any, params: Any) -> Any:
    given = answered(params)
    match state_of(params):
        case "one" if "step1" in given:
            return ask({"step2": form("color", "string", "Step 2: What is your favorite color?")}, "two")
        case "two" if "step2" in given:
            return done(text(f"{given}"))
        case _:
            return ask({"step1": form("name", "string", "Step 1: What is your name?")}, "one")


@fixture("test_input_required_result_capabilities")
async def _able(context: Any, params: Any) -> Any:
    capabilities = context.session.client_capabilities
    requests = {
        "name": form("name", "string", "What is your name?")
        if capabilities.elicitation is not None
        else None,
        "question": sampling("What is it?") if capabilities.sampling is not None else None,
    }
    able = {name: request for name, request in requests.items() if request is not None}
    return done(text("answered")) if able.keys() <= answered(params).keys() else ask(able)


# --- resources, prompts, completion -------------------------------------------------------------------------------

PROMPTS: dict[str, Any] = {
    "test_simple_prompt": lambda _given: [text("This is a simple prompt for testing.")],
    "test_prompt_with_arguments": lambda given: [
        text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")
    ],
    "test_prompt_with_embedded_resource": lambda given: [
        {
            "type": "resource",
            "resource": {"uri": given.get("resourceUri"), "mimeType": "text/plain", "text": "It."},
        },
        text("Please process the embedded resource above."),
    ],
    "test_prompt_with_image": lambda _given: [
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        text("Please analyze the image above."),
    ],
}
ARGUMENTS = {
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
}


async def list_prompts(_context: Any, _params: Any) -> types.ListPromptsResult:
    prompts = [
        types.Prompt(
            name=name,
            description=f"It is {name}.",
            arguments=[types.PromptArgument(name=each, required=True) for each in ARGUMENTS.get(name, [])],
        )
        for name in [*PROMPTS, "test_input_required_result_prompt"]
    ]
    return types.ListPromptsResult(prompts=prompts)


async def get_prompt(_context: Any, params: types.GetPromptRequestParams) -> Any:
    if params.name == "test_input_required_result_prompt":
        given = answered(params)
        if not given:
            return ask({"user_context": form("context", "string", "What context should the prompt use?")})
        contents = [text(f"{given}")]
    else:
        contents = PROMPTS[params.name](params.arguments or {})
    messages = [{"role": "user", "content": content} for content in contents]
    return types.GetPromptResult.model_validate({"messages": messages})


CONTENTS: dict[str, dict[str, Any]] = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched."},
}


async def list_resources(_context: Any, _params: Any) -> types.ListResourcesResult:
    listed = [
        types.Resource(uri=uri, name=uri.removeprefix("test://"), mime_type=told["mimeType"])
        for uri, told in CONTENTS.items()
    ]
    return types.ListResourcesResult(resources=listed)


async def list_templates(_context: Any, _params: Any) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(uri_template="test://template/{id}/data", name="template")
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(_context: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    told = CONTENTS.get(uri)
    if found := re.fullmatch(r"test://template/([^/]+)/data", uri):
        told = {
            "mimeType": "application/json",
            "text": json.dumps({"id": found[1], "data": f"Data for ID: {found[1]}"}),
        }
    if told is None:
        raise MCPError(types.INVALID_PARAMS, "there is no such resource", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri, **told}]})


async def complete(_context: Any, _params: Any) -> types.CompleteResult:
    return types.CompleteResult(
        completion=types.Completion(values=["paris", "park"], total=2, has_more=False)
    )


async def nothing(_context: Any, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


ADDED: list[tuple[str, Any, Handler]] = [
    ("prompts/list", types.PaginatedRequestParams, list_prompts),
    ("prompts/get", types.GetPromptRequestParams, get_prompt),
    ("resources/list", types.PaginatedRequestParams, list_resources),
    ("resources/templates/list", types.PaginatedRequestParams, list_templates),
    ("resources/read", types.ReadResourceRequestParams, read_resource),
    ("resources/subscribe", types.SubscribeRequestParams, nothing),
    ("resources/unsubscribe", types.UnsubscribeRequestParams, nothing),
    ("logging/setLevel", types.SetLevelRequestParams, nothing),
    ("completion/complete", types.CompleteRequestParams, complete),
]


def extended(server: Server[Any]) -> Server[Any]:
    """``server`` with the fixtures beside its agents."""
    ours = {method: server.get_request_handler(method) for method in ("tools/list", "tools/call")}

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        listed = await ours["tools/list"].handler(context, params)
        added = [
            types.Tool(name=name, description=f"It is {name}.", input_schema=input_schema)
            for name, (input_schema, _handler) in TOOLS.items()
        ]
        return types.ListToolsResult(tools=[*listed.tools, *added])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> Any:
        if params.name in TOOLS:
            return await TOOLS[params.name][1](context, params)
        return await ours["tools/call"].handler(context, params)

    for method, params_type, handler in ADDED:
        server.add_request_handler(method, params_type, handler)
    server.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    return server


async def main() -> None:
    catalog = Catalog(agents(), serve=SERVE, sandboxing=Sandboxing(default="inprocess"))
    settings = Settings(store_url="sqlite://", port=0, poll_seconds=0.05)
    closing = asyncio.Event()
    async with open_ops(settings, catalog) as ops:
        server = extended(AgentServer(ops, closing).server)
        async with (
            mounted(server, settings.max_body_bytes) as route,
            serving(ops, closing, routes=[route]) as addresses,
        ):
            print(f"{addresses[0]}/mcp", flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
