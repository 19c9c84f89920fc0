"""agentkit: an agent with one synchronous tool, its steps in memory."""

from agentkit import Agent, TextDelta, tool
from agentkit.models.openai.client import OpenAIModel


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


def model(base: str, path: str = "plain") -> OpenAIModel:
    return OpenAIModel("mock", api_key="k", base_url=f"{base}/{path}/v1")


def build(model: OpenAIModel) -> Agent:
    return Agent(model, instructions="You are a calculator.", tools=[add])


async def run(agent: Agent) -> str:
    return (await agent.run("What is 20 + 22?")).unwrap()


async def stream(model: OpenAIModel, count: int) -> int:
    seen = 0

    def watch(event: object) -> None:
        nonlocal seen
        seen += isinstance(event, TextDelta)

    (await Agent(model).run("Write.", on_event=watch)).unwrap()
    if seen != count:
        raise RuntimeError(f"saw {seen} of {count} deltas")
    return seen


def stream_model(base: str, count: int) -> OpenAIModel:
    return model(base, f"text/{count}")


async def close(model: OpenAIModel) -> None:
    await model.aclose()
