"""Redaction: what is made of a secret, in every form in which it is repeated; and what is a word of any text."""

from typing import Any

import pytest

from agentkit.errors import ModelError, ModelMistaken
from agentkit.messages import ModelReply, Reasoning, ReasoningDelta, Text, TextDelta, ToolCall
from agentkit.models.adapter.redaction import cut_secrets, secrets_of
from agentkit.untrusted.secrets import REGISTER, Secrets, looks_secret, secret_values

HEADERS = {
    "Cookie": "a=b; sid=CANARY-COOK-1234; theme=darkmode",
    "X-Pair": "id:CANARYpair0001",
    "Authorization": "Basic dXNlcjpDQU5BUllwYXNzd2Q5",
    "X-Digest": 'Digest username="u", response="CANARYdigest99"',
    "X-Plan": "enterprise",
    "X-Api-Version": "2026-11-30",
    "Accept": "application/json",
}
FILLED = {
    "DSN": "postgres://u:CANARYp%40ss1@h/db?key=CANARYq1234",
    "SLASHED": "/CANARYx9+ab=",
    "PASSWORD": "swordfish",
    "STAGE": "production",
    "FOLDER": "/usr/bin",
    "PEM": "-----BEGIN KEY-----\nMIIEvCANARYline0001\nMIIEvCANARYline0002\n-----END KEY-----",
    "SHORT": "abc",
}


@pytest.mark.parametrize(
    "text",
    [
        *HEADERS.values(),
        *("CANARY-COOK-1234", "CANARYpair0001", "CANARYpasswd9", "user:CANARYpasswd9", "CANARYdigest99"),
        *("CANARYp%40ss1", "CANARYp@ss1", "CANARYq1234", "swordfish", FILLED["DSN"]),
        *("/CANARYx9+ab=", "%2FCANARYx9%2Bab%3D", "%2fCANARYx9%2bab%3d", "\\/CANARYx9+ab="),
        *("MIIEvCANARYline0001", FILLED["PEM"], FILLED["PEM"].replace("\n", "\\n")),
    ],
)
def test_a_secret_is_found_whole_and_in_part(text):
    secrets = Secrets.of_headers(HEADERS, secret_values(FILLED.items()))
    hidden = secrets.hidden({"told": [f"<{text}>"]})["told"][0]
    assert "CANARY" not in hidden
    assert "swordfish" not in hidden
    assert REGISTER.hidden(text) == secrets.hidden(text)


@pytest.mark.parametrize(
    "text",
    ["darkmode", "enterprise", "production", "/usr/bin", "abc", "2026-11-30", "application/json", "id", "u"],
)
def test_what_may_stand_in_any_text_harms_none(text):
    assert Secrets.of_headers(HEADERS, secret_values(FILLED.items())).hidden(text) == text


@pytest.mark.parametrize(
    "name, value, secret",
    [
        ("API_KEY", "abcdefgh", True),
        ("MODE", "abcdefgh", False),
        ("MODE", "a0B1c2D3e4F5a6B7", True),
        ("MODE", "https://a0b1c2d3e4f5.example", False),
        ("TOKEN", "short", False),
        ("TOKEN", "/usr/share/tokens", False),
    ],
)
def test_a_text_that_was_written_out_may_be_a_secret(name, value, secret):
    assert looks_secret(name, value) is secret


class Parrot:
    """A model that says what it was given, in pieces."""

    secrets = secrets_of("canary-key-0123456789", {"X-Org": "canary-org-0a1b2c3d"})

    @cut_secrets
    async def reply(self, request, on_delta=None):
        text = "keys: canary-key-0123456789, canary-org-0a1b2c3d; canary-key-9"
        for piece in text:
            if on_delta is not None:
                on_delta(TextDelta(text=piece))
        if on_delta is not None:
            on_delta(ReasoningDelta(text="canary-key-"))
            on_delta(ReasoningDelta(text="0123456789"))
        if request is None:
            raise ModelError(text)
        call = ToolCall(id="1", name="x", arguments={"q": [text]}, data={"signed": True})
        parts = Text(text=text, data={"signed": True}), call, Reasoning(text="none", data={"signed": True})
        if request == "mistaken":
            raise ModelMistaken("no", ModelReply(parts=parts))
        return ModelReply(parts=parts)


async def test_a_model_that_repeats_its_key_tells_nobody():
    shown: list[Any] = []
    reply = await Parrot().reply("go", shown.append)
    said = "keys: [secret api_key], [secret X-Org]; canary-key-9"
    text, call, reasoning = reply.parts
    assert (text.text, call.arguments) == (said, {"q": [said]})
    assert (text.data, call.data, reasoning.data) == (None, None, {"signed": True})
    assert "".join(delta.text for delta in shown if isinstance(delta, TextDelta)) == said
    assert "".join(delta.text for delta in shown if isinstance(delta, ReasoningDelta)) == "[secret api_key]"
    with pytest.raises(ModelError, match=r"keys: \[secret api_key\]"):
        await Parrot().reply(None)
    with pytest.raises(ModelMistaken) as mistaken:
        await Parrot().reply("mistaken")
    assert mistaken.value.reply.parts[0].text == said
