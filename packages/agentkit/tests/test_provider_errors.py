"""Errors of providers: what they mean, and what of their words a user is told."""
# ruff: noqa: E501  (wordings are as providers write them)

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from agentkit import Agent
from agentkit.errors import (
    ContentRefused,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelMistaken,
    ModelOverloaded,
    ModelRateLimited,
)
from agentkit.messages import ModelReply, ModelRequest, Text, UserMessage
from agentkit.models.anthropic.client import AnthropicModel
from agentkit.models.google.client import GoogleModel
from agentkit.models.openai.client import OpenAIModel
from agentkit.models.provider_errors.classification import Refusal, to_model_error
from agentkit.models.provider_errors.reason import LONGEST, provider_reason

from .wire_server import JSON, KEY, STREAM, Answer, WireServer  # type: ignore[import-not-found]

HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))


def refused(
    error: Mapping[str, Any] | str, status: int = 400, sent: bytes = b"{}", **headers: str
) -> ModelError:
    body = {"message": error} if isinstance(error, str) else error
    found = Refusal(model="test:tiny", status=status, error=body, headers=headers, secret=KEY, sent=sent)
    return to_model_error(found)


# --- conversations that are too long -----------------------------------------------------------------------------

TOO_LONG = (
    "prompt too long; exceeded max context length by 1119 tokens (ref: 1)",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "The total length of all messages is too long.",
    "invalid params, context window exceeds limit (2013)",
    "Please reduce the length of the messages or completion.",
    "Please reduce the length of the messages or completion. Current length is 15072 while limit is 8192",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "This model's maximum context length is 8192 tokens. However, you requested 0 output tokens and your prompt contains at least 8193 input tokens",
    "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your prompt contains at least 262145 input tokens, for a total of at least 262145 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=262145)",
    "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).",
    "Unable to submit request because the input token count is 1250074 but model only supports up to 1048576.",
    "prompt is too long: 333 tokens > 200 maximum",
    "request (124071 tokens) exceeds the available context size (123904 tokens), try increasing it",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "Your request exceeded model token limit: 128000 (requested: 131000)",
    "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model with a larger context length, or provide a shorter input",
    "Input is too long for requested model.",
    "The model returned the following errors: Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input to try again.",
    "input length and `max_tokens` exceed context limit: 170636 + 34048 > 200000, decrease input length or `max_tokens` and try again",
    "Prompt exceeds max length",
    "Prompt 超长",
    "prompt token count of 197202 exceeds the limit of 128000",
    "Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
    "Input length (265330) exceeds model's maximum context length (262144).",
    "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens). Use a shorter input or enable --allow-auto-truncate.",
    "The input (49146 tokens) is longer than the model's context length (40960 tokens).",
    "Requested token count exceeds the model's maximum context length of 131072 tokens. You requested a total of 131097 tokens: 98329 tokens from the input messages and 32768 tokens for the completion.",
    "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 100 `max_new_tokens`",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 3000",
    "Input tokens exceed the configured limit of 922000 tokens. Your messages resulted in 1200007 tokens.",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4122. Try using a shorter prompt",
    "max tokens of 200000 exceeded",
    "Requested tokens (2083) exceed context window of 2048",
    "AiError: The estimated number of input and maximum output tokens (9000) exceeded this model context window limit (8192).",
    "The prompt is too long: 140000, model maximum context length: 131072",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.",
    "the input length exceeds the context length",
    "Context size has been exceeded.",
    "Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)",
    "This model's maximum context length is 32768 tokens. However, you requested 41648 tokens (37552 in the messages, 4096 in the completion). Please reduce the length of the messages or completion.",
    'This endpoint\'s maximum context length is 131072 tokens. However, you requested about 150000 tokens (149000 of text input, 1000 in the output). Please reduce the length of either one, or use the "middle-out" transform to compress your prompt automatically.',
    "Exceeded max context length: 32768",
    "Token limit exceeded",
    "Input prompt has 9000 tokens which exceeds the 8192 token limit",
    "The conversation is too long for this model.",
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 32768 tokens and your request has 30000 input tokens (4096 > 32768 - 30000).",
    "Prompt has 5000 tokens, but the configured context size is 4096 tokens",
    "prompt tokens exceeds context size, try increasing context size",
    "Request too large: total prompt tokens 250000 exceed the model's maximum input tokens of 200000",
    "The prompt is 12000 tokens long, which is more than the maximum context of 8192",
    "your messages exceed the model's context length",
    "This request has 140000 tokens which is over the model's 128000 token context window",
    "Context length exceeded: 140000 > 131072",
    "This model supports at most 131072 context length, but your prompt has 140000 tokens",
    "Input text is too long for this model's 8k context",
    "requested tokens exceed the maximum sequence length (n_ctx = 4096)",
    "ValueError: Total tokens (prompt 9000 + generation 512) exceed max sequence length 8192",
    "Your prompt is too large for this model: 210000 tokens",
    "Number of tokens (5000) exceeded maximum context length (2048)",
    "上下文长度超过模型最大长度限制",
    "输入token数超出模型上限",
    "The message you submitted was too long, please reload the conversation and submit something shorter.",
    "The prompt size exceeds the context window size and cannot be processed.",
    "This model's maximum context length is 8191 tokens, however you requested 10346 tokens (10346 in your prompt; 5 for the completion). Please reduce your prompt; or completion length.",
    "Error: input is too long. Max length is 8192",
    "The request exceeds the maximum number of tokens",
    "total tokens exceed max_position_embeddings",
    "Input validation error: inputs tokens + max_new_tokens must be <= 8192. Given: 8000 inputs tokens and 512 max_new_tokens",
    "exceeds maximum input length",
    "Requested prompt length 9000 exceeds model limit 8192",
    "Your messages have 9000 tokens, which exceeds the max limit of 8192 tokens.",
    "You passed 9000 input tokens and requested 100 output tokens. However, the model's context length is only 8192 tokens",
    "The sum of prompt length (9000.0), query length (0) should not exceed max_num_tokens (8192)",
    "Prompt length (9000) + max_tokens (512) exceeds maximum sequence length (8192)",
    "The requested number of tokens (9000) is more than the maximum 8192",
    "prompt (9000 tokens) should not exceed max_seq_len",
    "Token count exceeds the limit",
    "Input token length is too long",
    "Request contains 200,000 tokens, but the limit is 131,072 tokens",
    "The prompt length (40000) surpasses the model's max length (32768)",
    "Your prompt has 9001 tokens. The maximum is 8192.",
    "Maximum tokens exceeded: the model accepts at most 32768 tokens of input",
    "query length exceeds model limit",
    "Total input tokens (132000) exceeded the model's limit (131072)",
    "conversation history too long",
    "model input length exceeds 8192",
)
NOT_THE_CONVERSATION = (
    "messages: at least one message is required",
    "messages.0.content: Input should be a valid string",
    "`max_tokens` must be greater than `thinking.budget_tokens`",
    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'",
    "the conversation must end with a user message",
    "Invalid 'input[2].id': 'x'. Expected an ID that begins with 'rs'.",
    "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    "Context caching requires at least 32768 tokens",
    "CachedContent is too small. total_token_count=500, min_total_token_count=1024",
    "Too many tools: maximum is 128",
    "stop sequence too long",
    "max_completion_tokens exceeds model limit",
    "You have exceeded your token quota for today",
    "Requests to this model are limited to 30000 tokens per minute",
    "temperature must be less than 2",
    "logprobs exceeds maximum of 5",
    "n must be at most 1",
    "Tool names must be shorter than 64 characters",
    "The tool result is missing",
    "Model is overloaded, too many requests",
    "request timeout exceeded",
    "Maximum number of tools exceeded",
    "Output tokens limit: max_tokens (9000) exceeds 4096",
    "Total number of images exceeds limit",
    "prefill is not supported",
    "description too long, maximum 1024 characters",
    "audio input exceeds 25 MB limit",
    "Request body too deeply nested",
    "seed exceeds maximum value",
    "function.arguments is too long for tool call",
    "Invalid 'tools[13].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 1103 instead.",
    "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length 200 instead.",
    "Invalid 'metadata.note': string too long. Expected a string with maximum length 512, but got a string with length 600 instead.",
    "Invalid schema for response_format 'output': schema is too long, maximum length is 15000",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
    "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-x",
    "max_tokens=16000 cannot be greater than max_model_len=max_total_tokens=8192. Please request fewer output tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 32768 tokens and your request has 1000 input tokens (32000 > 32768 - 1000).",
    "This model's maximum context length is 8192 tokens. However, you requested 65556 tokens (20 in the messages, 65536 in the completion). Please reduce the length of the messages or completion.",
    "Request too large for model `llama` in organization on tokens per minute (TPM): Limit 6000, Requested 7000, please reduce your message size and try again.",
    "Too many tokens, please wait before trying again.",
    "Rate limit reached: too many tokens per day",
    "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).",
    "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096.",
    "image size exceeds the maximum input size of 5 MB",
    "image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes",
    "messages.3.content.1.image.source.base64: image exceeds 5 MB maximum",
    "Too many images in request",
    "tools.0.custom.name: String should have at most 64 characters",
    "tools.0.custom.description: String should have at most 1024 characters",
    "Unsupported value: 'temperature' does not support 0.2 with this model.",
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.",
    "model 'x' does not support tools",
    "Invalid 'messages[3].tool_calls[0].id': string too long. Expected a string with maximum length 64, but got a string with length 90 instead.",
    "Invalid 'messages[1].name': string too long. Expected a string with maximum length 64",
    "function name is too long: maximum length is 64",
    "stop: at most 4 stop sequences are allowed",
    "The parameter max_completion_tokens must be less than or equal to 8192",
    "max_new_tokens must be at most 4096",
    "The schema exceeds the maximum allowed nesting depth of 5",
    "Function description exceeds maximum length of 1024 characters",
    "You exceeded your current quota, please check your plan and billing details.",
    "Quota exceeded for quota metric 'input tokens per minute'",
    "The model `m` does not exist",
    "Only one system message at the start is supported",
    "max_output_tokens (200000) exceeds the model's maximum output tokens (128000)",
    "Invalid tool parameter: too many properties, exceeds the limit of 100",
    "The tool schema is too large for this model",
    "The request was rejected: your prompt was flagged",
    "thinking.budget_tokens must be less than max_tokens",
    "prompt_cache_key: string too long. Maximum length is 64.",
    "Invalid 'prompt_cache_key': string too long. Expected a string with maximum length 64, but got a string with length 80 instead.",
    "Invalid 'safety_identifier': string too long. Expected a string with maximum length 64",
    "The url in the message is too long",
    "Requested max_tokens 50000 exceeds the limit of 32768 for this model",
)


@pytest.mark.parametrize("said", TOO_LONG)
def test_a_conversation_that_is_too_long_is_recognised_by_its_words(said: str) -> None:
    assert type(refused(said)) is ContextTooLong
    assert (
        type(refused({"message": said, "type": "invalid_request_error", "code": None, "param": None}))
        is ContextTooLong
    )


@pytest.mark.parametrize("said", NOT_THE_CONVERSATION)
def test_what_else_is_too_long_or_too_much_is_no_conversation(said: str) -> None:
    assert not isinstance(refused(said), ContextTooLong)


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded"},
        {"code": "too_many_prompt_tokens", "type": "too_many_prompt_tokens"},
        {"type": "exceed_context_size_error", "code": 400},
        {"code": "1261", "message": "…"},
        {"code": 1261},
        {"code": "model_max_prompt_tokens_exceeded"},
        {"type": "ContextWindowExceededError"},
        {"code": "string_above_max_length", "param": "messages[3].content"},
        {"code": "array_above_max_length", "param": "messages"},
        {"code": "context_length_exceeded", "param": "messages"},
        {
            "message": "Provider returned error",
            "metadata": {"raw": '{"error":{"message":"prompt is too long: 9 > 8"}}'},
        },
        {
            "message": "Provider returned error",
            "metadata": {"raw": "ERROR: input is too long for requested model"},
        },
    ],
)
def test_it_is_recognised_by_its_code_or_by_the_upstream_provider(error: dict[str, Any]) -> None:
    assert type(refused(error)) is ContextTooLong


@pytest.mark.parametrize(
    "error, status",
    [
        ({"code": "string_above_max_length", "param": "tools[13].function.description"}, 400),
        ({"code": "string_above_max_length", "param": "metadata.note"}, 400),
        ({"code": "string_above_max_length", "param": "messages[1].name"}, 400),
        ({"code": "array_above_max_length", "param": "tools"}, 400),
        ({"message": "Input is too long", "param": "response_format"}, 400),
        ({"message": "max_tokens is too large: 9", "param": "max_tokens"}, 400),
        ({"message": "prompt is too long", "code": "rate_limit_exceeded", "type": "tokens"}, 413),
        ({"message": "Your prompt is too long", "type": "authentication_error"}, 401),
    ],
)
def test_the_field_decides_before_the_words(error: dict[str, Any], status: int) -> None:
    assert not isinstance(refused(error, status), ContextTooLong)


def test_a_bare_status_for_a_long_request() -> None:
    assert type(refused({}, 413)) is ContextTooLong
    assert type(refused("<html><title>413 Request Entity Too Large</title></html>", 413)) is ContextTooLong
    assert type(refused({}, 400, sent=b"x" * 200_000)) is ContextTooLong
    assert type(refused({}, 400)) is ModelBadRequest
    assert type(refused("image exceeds 5 MB maximum", 413)) is ModelBadRequest


# --- classes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, {"code": "invalid-argument", "error": "Incorrect API key provided: x***y."}, ModelAuthError),
        (
            400,
            {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}},
            ModelAuthError,
        ),
        (
            400,
            [{"error": {"code": 400, "message": "API key expired.", "status": "INVALID_ARGUMENT"}}],
            ModelAuthError,
        ),
        (401, "Unauthorized", ModelAuthError),
        (400, {"error": {"code": "1002", "message": "token"}}, ModelAuthError),
        (
            429,
            {"type": "error", "error": {"type": "insufficient_balance_error", "message": "(1008)"}},
            ModelAuthError,
        ),
        (
            500,
            {"error": {"type": "insufficient_balance_error", "message": "insufficient balance"}},
            ModelAuthError,
        ),
        (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包"}}, ModelAuthError),
        (403, {"error": {"code": "insufficient_user_quota", "message": "quota"}}, ModelAuthError),
        (402, {"error": {"message": "Insufficient credits"}}, ModelAuthError),
        (
            400,
            {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
            ModelAuthError,
        ),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, ModelAuthError),
        (200, {"code": 401, "msg": "Invalid API key", "success": False}, ModelAuthError),
        (200, {"message": "prompt is too long: 9 > 8"}, ContextTooLong),
        (200, {"detail": "no such thing"}, ModelBadResponse),
        (400, 'event: error\ndata: {"error": {"code": "context_length_exceeded"}}\n\n', ContextTooLong),
        (200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, ModelRateLimited),
        (
            413,
            {"error": {"code": "rate_limit_exceeded", "type": "tokens", "message": "TPM: Limit 6"}},
            ModelRateLimited,
        ),
        (
            429,
            {"error": {"status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"}},
            ModelRateLimited,
        ),
        (400, {"error": {"code": "data_inspection_failed", "message": "…"}}, ContentRefused),
        (400, {"error": {"code": "1301", "message": "…"}}, ContentRefused),
        (500, {"success": False, "errors": [{"code": 5, "message": "AiError: no"}]}, ModelOverloaded),
        (
            200,
            {"choices": [{"error": {"code": 502, "message": "gone"}, "finish_reason": "error"}]},
            ModelOverloaded,
        ),
    ],
)
async def test_errors_become_the_right_class(
    server: WireServer, model: OpenAIModel, status: int, body: Any, kind: type[ModelError]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server.plan(
        Answer(status=status, kind="text/plain" if isinstance(body, str) else JSON, chunks=[text.encode()])
    )
    with pytest.raises(ModelError) as raised:
        await model.reply(HELLO)
    assert type(raised.value) is kind


async def test_empty_fields_of_an_error_are_none(server: WireServer, model: OpenAIModel) -> None:
    message = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    filled = {
        "error": {"message": "", "code": None},
        "base_resp": {"status_code": 0, "status_msg": "success"},
    }
    server.plan(Answer(chunks=[json.dumps({**message, **filled}).encode()]))
    assert (await model.reply(HELLO)).text == "Hi"


@pytest.mark.parametrize(
    "line",
    [
        'error: {"code": 400, "message": "prompt exceeds context size, try increasing context size"}',
        'error: {"error": {"code": 400, "message": "prompt exceeds context size"}}',
        'data: {"error": {"code": 400, "message": "prompt exceeds context size"}}',
        '{"error": {"code": 400, "message": "prompt exceeds context size"}}',
    ],
)
async def test_lines_of_errors_in_a_stream(server: WireServer, model: OpenAIModel, line: str) -> None:
    server.plan(Answer(kind=STREAM, chunks=[line.encode(), b"\n\n"]))
    with pytest.raises(ContextTooLong, match="exceeds context size"):
        await model.reply(HELLO, lambda _: None)


# --- the provider's own words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, told",
    [
        ({"error": "model 'x' does not support tools"}, "model 'x' does not support tools"),
        ({"error": {"message": "Unsupported value: 'temperature'."}}, "Unsupported value: 'temperature'."),
        ({"object": "error", "message": "Only one system message", "code": 400}, "Only one system message"),
        ({"message": "No such route"}, "No such route"),
        ({"detail": "Not enough memory"}, "Not enough memory"),
        (
            {"detail": [{"loc": ["body", "tools", 0], "msg": "field required"}]},
            "body.tools.0: field required",
        ),
        ({"errors": [{"code": 7, "message": "No such model"}, "and more"]}, "No such model; and more"),
        ({"error": ["`inputs` is empty"]}, "`inputs` is empty"),
        ({"fault": {"message": "over quota"}}, "over quota"),
        ({"error_code": "BAD_REQUEST", "message": "no tools here"}, "no tools here"),
        ([{"error": {"message": "schema is not valid"}}], "schema is not valid"),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"detail":"no vision"}'}}},
            "no vision",
        ),
        ("upstream connect error", "upstream connect error"),
        (
            "<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1><hr>nginx</body></html>",
            "502 Bad Gateway",
        ),
    ],
)
async def test_the_providers_reason_reaches_the_user(
    server: WireServer, model: OpenAIModel, caplog: pytest.LogCaptureFixture, body: Any, told: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server.plan(
        Answer(status=400, kind="text/html" if isinstance(body, str) else JSON, chunks=[text.encode()])
    )
    with caplog.at_level(logging.DEBUG, logger="agentkit.models"):
        outcome = await Agent(model).run("Hello")
    assert told in outcome.error.message
    assert told in caplog.text


async def test_so_it_does_from_the_other_wires(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, Any]] = [
        (
            AnthropicModel,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "no such tool type"}},
        ),
        (GoogleModel, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no such tool type"}}),
    ]
    for wire, body in answers:
        said = f"no such tool type, but {KEY} asked for the weather in the old town of Oslo"
        server.plan(Answer(status=400, chunks=[json.dumps(body).replace("no such tool type", said).encode()]))
        request = ModelRequest(messages=(UserMessage(text="Tell me the weather in the old town of Oslo."),))
        async with wire("m", api_key=KEY, base_url=server.url.removesuffix("/v1")) as opened:
            with pytest.raises(ModelBadRequest) as raised:
                await opened.reply(request)
        assert raised.value.reason == "no such tool type, but [key] asked for […]", wire
        assert str(raised.value).endswith(raised.value.reason)


SENT = {
    "model": "gpt-5-mini-2025",
    "messages": [
        {"role": "system", "content": "You are the assistant of Acme."},
        {
            "role": "user",
            "content": 'My card is 4111-1111-1111, call me at jo@example.com\nand tell me "the secret word".',
        },
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "pay", "arguments": '{"iban": "NO93 8601"}'}}],
        },
    ],
    "tools": [{"function": {"name": "pay", "description": "Pays a bill of a customer."}}],
}


@pytest.mark.parametrize(
    "said, told",
    [
        (
            "The model `gpt-5-mini-2025` does not support tools",
            "The model `gpt-5-mini-2025` does not support tools",
        ),
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: [key]."),
        (f"Bad key {KEY[:14]}…", "Bad key [key]…"),
        ("Incorrect API key provided: sk-te**********cdef.", "Incorrect API key provided: [key]."),
        ("Authorization: Bearer abcdef is wrong", "Authorization: [key] is wrong"),
        (
            "token=abcdef0123 expired at https://x.example/?sig=abc",
            "token=[key] expired at https://x.example/[key]",
        ),
        ("got AIzaSyA1234567890abcdefg", "got [key]"),
        ("id 0123456789abcdef0123456789abcdef", "id […]"),
        ("Invalid content 'You are the assistant of Acme.' at 3", "Invalid […]' at 3"),
        ("Invalid: My card is 4111-1111-1111, call me at jo@example.com\\nand tell", "Invalid: […]"),
        ("Invalid value: 'the secret word'", "Invalid value: '[…]'"),
        ("cannot reach jo@example.com or 4111-1111-1111", "cannot reach […] or […]"),
        (json.dumps(SENT["messages"]), ""),
        ("bad call " + json.dumps(SENT["messages"][2]), 'bad call {"[…]"}}]}'),
        ("a\x1b[31m b\u202ec\nd", "a [31m b c d"),
        ("", ""),
    ],
)
def test_what_is_secret_or_quoted_is_cut_out(said: str, told: str) -> None:
    assert provider_reason(said, sent=json.dumps(SENT).encode(), secrets=[KEY]) == told


def test_it_is_short() -> None:
    told = provider_reason("no tools " * 1000, sent=b"{}")
    assert len(told) <= LONGEST
    assert told.endswith("…")


def test_without_the_request_nothing_is_passed_on() -> None:
    found = Refusal(model="m", status=400, error={"message": "You said hello"}, headers={}, secret=None)
    assert found.reason() == ""


async def test_a_secret_in_a_header_is_none_of_the_words(server: WireServer) -> None:
    from agentkit.models.credentials import Extras

    server.plan(Answer(status=400, chunks=[b'{"error": "no gateway for zyx-987654"}']))
    extras = Extras(headers={"X-Gateway-Key": "zyx-987654"})
    async with OpenAIModel("m", api_key=None, base_url=server.url, extras=extras) as opened:
        with pytest.raises(ModelBadRequest, match=r"no gateway for \[key\]$"):
            await opened.reply(HELLO)


async def test_text_in_place_of_a_reply_is_told(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(kind="text/plain", chunks=[b"the model is still loading"]))
    with pytest.raises(ModelBadResponse, match="the model is still loading"):
        await model.reply(HELLO)


def test_a_mistake_survives_a_copy_and_another_process() -> None:
    reply = ModelReply(parts=(Text(text="weather(Oslo)"),))
    mistaken = ModelMistaken("refused", reply, 1)
    mistaken.reason = "no such call"
    for same in (pickle.loads(pickle.dumps(mistaken)), copy.copy(mistaken)):
        assert (str(same), same.reply, same.shown, same.reason) == ("refused", reply, 1, "no such call")
