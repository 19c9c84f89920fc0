import base64
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentkit import Agent, Limits
from agentkit.transcript.steps import Recorded, RunStarted
from ops_core.config.catalog import CatalogEntry
from ops_core.errors import InvalidRequest
from ops_core.ports import Page
from ops_core.schemas import StepPage, TaskBody, TaskPage, TaskRequest
from ops_core.schemas.agent_description import describe_agent
from ops_core.schemas.queries import checked_key, task_filter
from ops_core.task import Task, TaskStatus

MOMENT = datetime(2030, 1, 31, 9, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
inputs = texts | st.dictionaries(texts, json_values, max_size=5)


def task(number: int = 0, **fields: object) -> Task:
    task_id = f"01996c2e-5d1a-7c3e-9f60-{number:012x}"
    made = {"tenant": "default", "agent": "a", "status": TaskStatus.PENDING, "input": "x", **fields}
    return Task(id=task_id, **made)  # type: ignore[arg-type]


@given(inputs)
def test_any_json_input_comes_back_unchanged(value):
    request = TaskRequest.model_validate_json(TaskRequest(agent="a", input=value).model_dump_json())
    told = TaskBody.of(task(input=request.as_new_task().input))
    again = TaskBody.model_validate_json(told.model_dump_json()).input
    assert again == value
    assert repr(again) == repr(value)  # 1 stays 1, 1.0 stays 1.0, True stays True, -0.0 stays -0.0


def test_an_attachment_is_looked_at_before_the_task_is_accepted():
    good: Any = {
        "q": "What is this?",
        "picture": {"$attachment": {"media_type": "image/png", "data": "iVBORw=="}},
    }
    assert TaskRequest(agent="a", input=good).as_new_task().input == good
    with pytest.raises(ValidationError, match="the data of \\$attachment is not base64") as caught:
        TaskRequest(agent="a", input={"x": [{"$attachment": {"media_type": "image/png", "data": "?"}}]})
    assert caught.value.errors()[0]["loc"] == ("input",)


@pytest.mark.parametrize(
    "value", [5, None, ["a"], True, {"a": math.nan}, {"a": {1, 2}}, {1: "a"}, {"a": "\ud800"}, "\ud800", b"a"]
)
def test_an_input_that_is_no_text_or_object_of_json_is_one_problem(value):
    with pytest.raises(ValidationError) as raised:
        TaskRequest(agent="a", input=value)
    [problem] = raised.value.errors()
    assert problem["loc"] == ("input",)


@pytest.mark.parametrize("moment", ["2030-01-31T09:00:00Z", "2030-01-31t10:00:00.000+01:00", MOMENT])
def test_a_moment_has_an_offset(moment):
    assert TaskRequest(agent="a", input="x", run_at=moment).as_new_task().run_at == MOMENT.timestamp()


@pytest.mark.parametrize(
    "moment", [1_900_000_000, "1900000000", "2030-01-31", "2030-01-31T09:00:00", "soon", datetime(2030, 1, 1)]
)
def test_what_may_mean_several_moments_is_refused(moment):
    with pytest.raises(ValidationError):
        TaskRequest(agent="a", input="x", run_at=moment)


def test_the_fingerprint_is_of_the_meaning():
    def print_of(text: str) -> str:
        return TaskRequest.model_validate_json(text).fingerprint()

    plain = print_of('{"agent": "a", "input": {"x": 1, "y": 2}}')
    assert plain == print_of('{"priority": 0, "input": {"y": 2, "x": 1}, "agent": "a", "labels": {}}')
    others = ['{"x": 1.0, "y": 2}', '{"x": true, "y": 2}', '{"x": "1", "y": 2}', '{"x": 1, "y": [2]}']
    assert len({plain, *(print_of('{"agent": "a", "input": ' + other + "}") for other in others)}) == 5


def test_only_a_request_with_a_key_has_a_fingerprint():
    request = TaskRequest(agent="a", input="x", budget={"steps": 3})  # type: ignore[arg-type]
    assert request.as_new_task().fingerprint is None
    new = request.as_new_task("key")
    assert (new.idempotency_key, new.fingerprint) == ("key", request.fingerprint())
    assert new.budget is not None
    assert (new.budget.steps, new.budget.tokens) == (3, None)


def pages(items, *, more):
    page = Page(items)
    page.more = more
    return page


def test_a_page_says_where_the_next_one_begins():
    tasks = pages([task(number) for number in (3, 2)], more=True)
    page = TaskPage.of(tasks, task_filter(limit=2))
    assert [one.id for one in page.items] == [tasks[0].id, tasks[1].id]
    assert page.next_cursor is not None
    assert task_filter(cursor=page.next_cursor).before == tasks[1].id
    assert TaskPage.of(pages(tasks, more=False), task_filter(limit=2)).next_cursor is None
    assert TaskPage.of(Page(), task_filter(limit=3)).next_cursor is None


def test_a_cursor_belongs_to_the_list_that_gave_it():
    asked = task_filter(limit=1, agent="a", status=["failed", "waiting"])
    page = TaskPage.of(pages([task(2)], more=True), asked)
    cursor = page.next_cursor
    again = task_filter(limit=7, agent="a", status=["waiting", "failed", "failed"], cursor=cursor)
    assert again.before == page.items[0].id
    for other in ({"agent": "b", "status": ["failed", "waiting"]}, {"agent": "a"}, {"label": "a"}, {}):
        with pytest.raises(InvalidRequest, match="other filters") as refused:
            task_filter(cursor=cursor, **other)
        assert refused.value.field == "cursor"
    of_the_release_before = {"v": 1, "tasks_before": task(2).id}
    text = base64.urlsafe_b64encode(json.dumps(of_the_release_before).encode()).decode()
    assert task_filter(agent="b", cursor=text).before == task(2).id


def test_a_filter_is_read_as_it_is_given():
    asked = task_filter(status=["failed", "waiting"], agent="a", label="k=v", limit=200)
    assert (asked.status, asked.limit) == ((TaskStatus.FAILED, TaskStatus.WAITING), 200)
    with pytest.raises(InvalidRequest) as raised:
        task_filter(limit=201)
    assert raised.value.field == "limit"


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_a_foreign_cursor_is_refused(cursor):
    with pytest.raises(InvalidRequest) as raised:
        task_filter(cursor=cursor)
    assert raised.value.field == "cursor"


def test_a_page_of_steps_says_whether_there_are_more():
    steps = [Recorded(seq=n, at=1.0, step=RunStarted(run_id="r", agent="a", input=None)) for n in range(3)]
    assert StepPage.of(pages(steps[:2], more=True)).next_after == 1
    assert StepPage.of(pages(steps, more=False)).next_after is None


def test_times_are_told_in_utc():
    told = TaskBody.of(task(created_at=MOMENT.timestamp()))
    assert told.created_at == MOMENT.astimezone(timezone(timedelta(hours=3)))
    assert '"created_at":"2030-01-31T09:00:00Z"' in told.model_dump_json()


def test_a_key_is_printable():
    assert checked_key("a b") == "a b"
    for wrong in ("", " a", 'a"'[::-1], "ü", "a\n", "x" * 256):
        with pytest.raises(InvalidRequest):
            checked_key(wrong)


async def test_an_agent_may_have_a_larger_budget_than_a_request_may_ask_for():
    limits = Limits(steps=5_000_000, seconds=10 * 31_536_000)
    told = await describe_agent(CatalogEntry(agent=Agent("offline:planner", limits=limits)))
    assert told.budget.steps == 5_000_000
