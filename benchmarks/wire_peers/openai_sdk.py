"""The floor: the same two calls by hand over the OpenAI SDK. No run, no steps, no limits."""

import json

from openai import AsyncOpenAI

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Add two integers.", "parameters": PARAMETERS},
    }
]
ASKED = [
    {"role": "system", "content": "You are a calculator."},
    {"role": "user", "content": "What is 20 + 22?"},
]


def add(a: int, b: int) -> int:
    return a + b


def model(base: str, path: str = "plain") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{base}/{path}/v1", api_key="k")


def build(model: AsyncOpenAI) -> AsyncOpenAI:
    return model


async def run(agent: AsyncOpenAI) -> str:
    messages = list(ASKED)
    while True:
        reply = await agent.chat.completions.create(model="mock", messages=messages, tools=TOOLS)
        message = reply.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = str(add(**json.loads(call.function.arguments)))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def stream(model: AsyncOpenAI, count: int) -> int:
    seen = 0
    async for chunk in await model.chat.completions.create(model="mock", messages=ASKED, stream=True):
        seen += bool(chunk.choices and chunk.choices[0].delta.content)
    if seen != count:
        raise RuntimeError(f"saw {seen} of {count} deltas")
    return seen


def stream_model(base: str, count: int) -> AsyncOpenAI:
    return model(base, f"text/{count}")


async def close(model: AsyncOpenAI) -> None:
    await model.close()
