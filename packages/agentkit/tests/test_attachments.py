"""Images and documents in the input of a run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent
from agentkit.attachments import MAX_BYTES, MAX_TOTAL_BYTES, checked_input, read_attachment, split_input
from agentkit.errors import UsageError
from agentkit.messages import Attachment, UserMessage
from agentkit.run.outcomes import Failed
from agentkit.testing import ScriptedModel
from agentkit.transcript.codec import decode_step, encode_step

DOT = Attachment(media_type="image/png", data=b"\x89PNG", name="dot.png")
LINK = Attachment(media_type="application/pdf", url="https://example.com/a.pdf")
DOT_JSON = {"$attachment": {"media_type": "image/png", "data": "iVBORw==", "name": "dot.png"}}
LINK_JSON = {"$attachment": {"media_type": "application/pdf", "url": "https://example.com/a.pdf"}}


def told(**fields: Any) -> dict[str, Any]:
    return {"$attachment": {"media_type": "image/png", **fields}}


@pytest.mark.parametrize("planning", ["native", "react"])
@pytest.mark.parametrize(
    "given, text, attachments",
    [
        (["What is this?", DOT], "What is this?\n[attachment 1: dot.png]", (DOT,)),
        (DOT, "[attachment 1: dot.png]", (DOT,)),
        (
            {"question": "Same?", "pictures": [DOT_JSON, LINK]},
            '{"question": "Same?", "pictures": ["[attachment 1: dot.png]", "[attachment 2: application/pdf]"]}',
            (DOT, LINK),
        ),
        ("Hello", "Hello", ()),
        (["a", "b"], '["a", "b"]', ()),
    ],
)
async def test_they_reach_the_model_and_are_stored_once(
    planning: Any, given: Any, text: str, attachments: Any
) -> None:
    model = ScriptedModel(["Final Answer: A dot."])
    outcome = await Agent(model, planning=planning).run(given)
    assert model.requests[0].messages == (UserMessage(text=text, attachments=attachments),)
    stored = [encode_step(recorded.step) for recorded in outcome.transcript]
    assert sum(step.count("iVBORw==") for step in stored) == (DOT in attachments)
    assert [decode_step(step) for step in stored] == [recorded.step for recorded in outcome.transcript]


def test_both_forms_are_one() -> None:
    assert checked_input([DOT, LINK]) == checked_input([DOT_JSON, LINK_JSON]) == [DOT_JSON, LINK_JSON]
    assert split_input([DOT_JSON, LINK_JSON])[1] == (DOT, LINK)


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"$attachment": "x"}, "is an object itself"),
        ({**DOT_JSON, "more": 1}, "stands alone"),
        (told(), "either data or a url"),
        (told(data="aGk=", url="https://a.b"), "either data or a url"),
        (told(data="not base64!"), "not base64"),
        (told(data=""), "0 bytes"),
        (told(data="aGk=", kind="x"), "unknown field kind"),
        (told(data=7), "are texts"),
        ({"$attachment": {"data": "aGk=", "media_type": "picture"}}, "media_type"),
        (told(url="http://example.com/a.png"), "https://"),
        (told(url="https://me:secret@example.com/a.png"), "https://"),
        (told(url="https://[x/a.png"), "https://"),
        (told(data="aGk=", name="a\nb"), "name"),
        (Attachment(media_type="image/png", data=b"x" * (MAX_BYTES + 1)), "bytes"),
    ],
)
async def test_what_cannot_be_one_is_refused_before_the_run(given: Any, problem: str) -> None:
    model = ScriptedModel([])
    with pytest.raises(UsageError, match=problem) as caught:
        await Agent(model).run({"deep": [given]})
    assert "secret" not in str(caught.value)
    assert model.requests == []


def test_all_together_have_a_bound() -> None:
    large = Attachment(media_type="image/png", data=b"x" * MAX_BYTES)
    checked_input([large] * (MAX_TOTAL_BYTES // MAX_BYTES))
    with pytest.raises(UsageError, match="at most"):
        checked_input([large] * (MAX_TOTAL_BYTES // MAX_BYTES + 1))


def test_what_was_stored_and_only_looks_like_one_reads_as_it_did() -> None:
    old = {"$attachment": {"kind": "of another program"}}
    assert split_input(old) == (old, ())


def test_a_file_is_read_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "dot.png"
    file.write_bytes(base64.b64decode("iVBORw=="))
    assert read_attachment(file) == DOT
    (tmp_path / "data").write_bytes(b"x")
    with pytest.raises(UsageError, match="media_type"):
        read_attachment(tmp_path / "data")
    assert read_attachment(str(tmp_path / "data"), media_type="text/plain").name == "data"


async def test_the_offline_model_says_that_it_cannot_look() -> None:
    outcome = await Agent("offline:planner").run(["What is this?", DOT])
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "model_bad_request"
    assert "cannot look" in outcome.error.message
