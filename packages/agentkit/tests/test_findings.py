"""What a reply holds beside its words, and the pictures that tools return."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, Attachment, Completed, tool
from agentkit.messages import AssistantMessage, ModelReply, ModelRequest, Source, UserMessage
from agentkit.models.adapter.reply_parts import MAX_SOURCES, media, sources
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import ModelReplied

from .wire_server import as_events  # type: ignore[import-not-found]
from .wires import Call, anthropic, body, google, response, served  # type: ignore[import-not-found]

HELLO = ModelRequest(messages=(UserMessage(text="Weather in Oslo?"),))
PNG = b"\x89PNG\r\n\x1a\n"
DATA = base64.b64encode(PNG).decode()
URL = "https://weather.example/oslo"
TEXT = "Oslo has 7 degrees [1]."
FLAT = {"type": "url_citation", "url": URL, "title": "Oslo", "start_index": 0, "end_index": 4}
ANNOTATION = {"type": "url_citation", "url_citation": {"url": URL, "title": "Oslo"}}
CITED = {"type": "web_search_result_location", "url": URL, "title": "Oslo", "cited_text": "7"}
RESULT = {"url": URL, "title": "Oslo"}


def response_text(*annotations: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": TEXT, "annotations": list(annotations)}]
    return response({"type": "message", "role": "assistant", "status": "completed", "content": content})


WITH_SOURCES = {
    "chat, citations": ("chat", {**body("chat", TEXT), "citations": [URL, URL]}),
    "chat, results": ("chat", {**body("chat", TEXT), "search_results": [RESULT], "citations": [URL]}),
    "chat, annotations": ("chat", body("chat", TEXT, annotations=[ANNOTATION])),
    "openrouter": ("openrouter", body("openrouter", TEXT, annotations=[ANNOTATION])),
    "responses": ("responses", response_text(FLAT, FLAT)),
    "anthropic": ("anthropic", anthropic({"type": "text", "text": TEXT, "citations": [CITED]})),
    "google": (
        "google",
        google(
            {"text": TEXT}, groundingMetadata={"groundingChunks": [{"web": {"uri": URL, "title": "Oslo"}}]}
        ),
    ),
}


@pytest.mark.parametrize("case", WITH_SOURCES)
async def test_the_sources_of_an_answer_are_with_its_outcome(case: str) -> None:
    kind, reply = WITH_SOURCES[case]
    async with served(kind) as one:
        one.answers(reply)
        outcome = await Agent(one.model).run("Weather in Oslo?")
        assert isinstance(outcome, Completed)
        assert (outcome.output, [source.url for source in outcome.sources]) == (TEXT, [URL])
        assert outcome.sources[0].title == ("" if case == "chat, citations" else "Oslo")
        for recorded in outcome.transcript:
            assert decode_step(encode_step(recorded.step)) == recorded.step


async def test_sources_of_a_stream_are_found_as_well() -> None:
    def piece(**delta: Any) -> dict[str, Any]:
        return {"id": "c", "model": "m", "citations": [URL], "choices": [{"index": 0, "delta": delta}]}

    end = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    other = {"url_citation": {"url": URL + "/2", "title": "Two"}, "type": "url_citation"}
    async with served("chat") as one:
        one.server.plan(as_events([piece(content=TEXT), piece(annotations=[other]), end]))
        reply: ModelReply = await one.model.reply(HELLO, lambda _delta: None)
        assert [part.url for part in reply.parts if isinstance(part, Source)] == [URL, URL + "/2"]


IMAGE_REPLIES = {
    "openrouter": body(
        "openrouter", images=[{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}]
    ),
    "responses": response(
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": DATA}
    ),
    "google": google({"inlineData": {"mimeType": "image/png", "data": DATA}}),
}


@pytest.mark.parametrize("kind", IMAGE_REPLIES)
async def test_an_image_that_a_model_has_made_is_shown_to_it_again(kind: str) -> None:
    async with served(kind) as one:
        one.answers(IMAGE_REPLIES[kind], body(kind, "Bluer."))
        first = await Agent(one.model).run("Draw a fish")
        turns = [one_.step for one_ in first.transcript if isinstance(one_.step, ModelReplied)]
        drawn = AssistantMessage(parts=turns[0].parts, model=turns[0].model)
        await one.model.reply(
            ModelRequest(messages=(UserMessage(text="Draw"), drawn, UserMessage(text="Bluer")))
        )
        assert DATA in json.dumps(one.sent[-1])
    async with served(kind, provider="another") as other:  # which may take no images
        other.answers(body(kind, "What fish?"))
        await other.model.reply(
            ModelRequest(messages=(UserMessage(text="Draw"), drawn, UserMessage(text="Bluer")))
        )
        assert DATA not in json.dumps(other.sent[-1])


async def test_a_typed_output_is_asked_for_again_where_only_an_image_came() -> None:
    class Fish(BaseModel):
        name: str

    async with served("openrouter") as one:
        one.answers(IMAGE_REPLIES["openrouter"], body("openrouter", '{"name": "cod"}'))
        outcome = await Agent(one.model, output=Fish).run("Which fish?")
        assert outcome.unwrap() == Fish(name="cod")
        assert "holds an image or a recording, and no text" in json.dumps(one.sent[-1])


@pytest.mark.parametrize("kind", IMAGE_REPLIES)
async def test_an_answer_that_is_an_image_completes_the_run(kind: str) -> None:
    async with served(kind) as one:
        one.answers(IMAGE_REPLIES[kind])
        outcome = await Agent(one.model).run("Draw Oslo.")
        assert isinstance(outcome, Completed)
        assert (len(one.sent), outcome.output) == (1, "")
        assert outcome.attachments == (Attachment(media_type="image/png", data=PNG),)
        for recorded in outcome.transcript:
            assert decode_step(encode_step(recorded.step)) == recorded.step


async def test_a_voice_has_its_words_and_its_sound() -> None:
    async with served("chat") as one:
        one.answers(body("chat", audio={"id": "a", "data": DATA, "transcript": "Seven."}))
        outcome = await Agent(one.model).run("Say it.")
        assert isinstance(outcome, Completed)
        assert (outcome.output, outcome.attachments[0].media_type) == ("Seven.", "audio/wav")


def test_what_cannot_be_kept_is_named() -> None:
    large = "data:image/png;base64," + base64.b64encode(bytes(11 * 1024 * 1024)).decode()
    for media_type, content in (
        ("image/png", large),
        ("image/png", "data:image/png;base64,!"),
        ("", b"x"),
        ("image/png", "ftp://x"),
    ):
        (part,) = media([(media_type, content)])
        assert "could not be kept" in getattr(part, "text", "")
    four = list(media([("image/png", bytes(9 * 1024 * 1024))] * 4))
    assert [isinstance(part, Attachment) for part in four] == [True, True, False, False]


def test_sources_are_bounded() -> None:
    assert len(list(sources(f"https://x.example/{n}" for n in range(1000)))) == MAX_SOURCES
    (one,) = sources([{"url": "u" * 5000, "title": "t" * 5000, "cited_text": "q" * 5000}, None, 3, {}])
    assert (len(one.url), len(one.title), len(one.quote)) == (2048, 500, 500)


# --- pictures that tools return ----------------------------------------------------------------------------------


@tool(name="weather", effect="pure")
async def shot(city: str) -> Attachment:
    """A picture of a city."""
    await asyncio.sleep(0.05 if city == "Oslo" else 0)  # the first one comes last
    return Attachment(media_type="image/png", data=PNG + city.encode())


def pictures(kind: str, sent: Any) -> list[tuple[str, bytes]]:
    """The pictures of a request in their order, each with the id of the call that it is tied to."""
    if kind in {"chat", "openrouter"}:
        shown = [each["content"] for each in sent["messages"] if isinstance(each["content"], list)]
        return [(call_in(text["text"]), in_url(image["image_url"]["url"])) for image, text in shown]
    if kind == "responses":
        results = [item for item in sent["input"] if item.get("type") == "function_call_output"]
        return [(item["call_id"], in_url(item["output"][1]["image_url"])) for item in results]
    if kind == "anthropic":
        blocks = sent["messages"][-1]["content"]
        return [
            (block["tool_use_id"], base64.b64decode(block["content"][1]["source"]["data"]))
            for block in blocks
        ]
    found = []
    parts = [part for content in sent["contents"][2:] for part in content["parts"]]
    for place, part in enumerate(parts):
        inside = part.get("functionResponse", {}).get("parts")
        if inside:
            data = inside[0].get("inlineData") or inside[0]["inline_data"]
            found.append((part["functionResponse"]["id"], base64.urlsafe_b64decode(data["data"])))
        elif "inlineData" in part:
            data = base64.urlsafe_b64decode(part["inlineData"]["data"])
            found.append((call_in(parts[place + 1]["text"]), data))
    return found


def call_in(label: str) -> str:
    return label.removesuffix(".]").rpartition(" ")[2]


def in_url(address: str) -> bytes:
    return base64.b64decode(address.partition(",")[2])


@pytest.mark.parametrize(
    "kind, name",
    [
        ("chat", "m"),
        ("openrouter", "m"),
        ("responses", "m"),
        ("anthropic", "m"),
        ("google", "gemini-3-flash"),
        ("google", "gemini-2.5-flash"),
    ],
)
async def test_each_picture_is_tied_to_its_call_in_the_order_of_calls(kind: str, name: str) -> None:
    async with served(kind, name) as one:
        one.answers(body(kind, calls=[Call("c1"), Call("c2", "Rome")]), body(kind, "done"))
        assert isinstance(await Agent(one.model, tools=[shot]).run("Show both."), Completed)
        assert pictures(kind, one.sent[-1]) == [("c1", PNG + b"Oslo"), ("c2", PNG + b"Rome")]


async def test_planning_in_text_shows_them_with_their_observation() -> None:
    said = 'Thought: look\nAction: weather\nAction Input: {"city": "Oslo"}\nAction: weather\n'
    async with served("chat") as one:
        one.answers(
            body("chat", f'{said}Action Input: {{"city": "Rome"}}'),
            body("chat", "Thought: ok\nFinal Answer: done"),
        )
        assert isinstance(await Agent(one.model, tools=[shot], planning="react").run("Show both."), Completed)
        shown = [each["content"] for each in one.sent[-1]["messages"] if isinstance(each["content"], list)]
        assert "observation 1" in json.dumps(shown[0])
        assert "observation 2" in json.dumps(shown[1])
