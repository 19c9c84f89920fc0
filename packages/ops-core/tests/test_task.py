"""What can happen to a task, and what a task can be."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_core.errors import InvalidRequest, TransitionRefused
from ops_core.task import (
    TRANSITIONS,
    NewTask,
    RetryPolicy,
    TaskStatus,
    Verb,
    out_of_time,
    statuses_that,
    transition,
)

PENDING, RUNNING, WAITING = TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.WAITING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

ALLOWED = {
    (PENDING, Verb.CLAIM): RUNNING,
    (PENDING, Verb.FAIL): FAILED,
    (PENDING, Verb.CANCEL): CANCELLED,
    (RUNNING, Verb.RELEASE): PENDING,
    (RUNNING, Verb.WAIT): WAITING,
    (RUNNING, Verb.COMPLETE): COMPLETED,
    (RUNNING, Verb.FAIL): FAILED,
    (RUNNING, Verb.CANCEL): CANCELLED,
    (WAITING, Verb.CLAIM): RUNNING,
    (WAITING, Verb.FAIL): FAILED,
    (WAITING, Verb.CANCEL): CANCELLED,
}


@pytest.mark.parametrize("status, verb", list(product(TaskStatus, Verb)))
def test_every_verb_in_every_status(status, verb):
    if (status, verb) in ALLOWED:
        assert transition(status, verb) is ALLOWED[status, verb]
        assert status in statuses_that(verb)
    else:
        with pytest.raises(TransitionRefused, match=f"{status} cannot {verb}"):
            transition(status, verb)
        assert status not in statuses_that(verb)


def test_a_terminal_status_has_no_way_out_and_every_other_one_has():
    assert {status for status in TaskStatus if status.terminal} == {COMPLETED, FAILED, CANCELLED}
    for status in TaskStatus:
        assert bool(TRANSITIONS[status]) == (not status.terminal)


def test_every_status_can_be_reached():
    reached = {PENDING}
    for _ in TaskStatus:
        reached |= {after for status in reached for after in TRANSITIONS[status].values()}
    assert reached == set(TaskStatus)


policies = st.builds(
    RetryPolicy,
    first_seconds=st.floats(0.001, 1e6),
    factor=st.floats(1.0, 1e300),
    max_seconds=st.floats(0.001, 1e9),
)


@given(policies, st.integers(1, 10**9), st.floats(0, 1))
def test_a_delay_stays_in_its_bounds(policy, attempt, chance):
    delay = policy.delay(attempt, chance)
    assert 0 < delay <= policy.max_seconds
    assert policy.delay(attempt, 0.0) <= delay <= policy.delay(attempt, 1.0)
    assert policy.delay(attempt, 0.0) == pytest.approx(policy.delay(attempt, 1.0) / 2)


@given(policies, st.integers(1, 200))
def test_a_later_attempt_waits_no_shorter(policy, attempt):
    assert policy.delay(attempt, 1.0) <= policy.delay(attempt + 1, 1.0)


def test_delays_grow_to_the_longest():
    assert [RetryPolicy().delay(attempt, 1.0) for attempt in (1, 2, 3, 9, 10)] == [1, 2, 4, 256, 300]


@pytest.mark.parametrize(
    "field, value",
    [
        *(("agent", value) for value in ("x" * 201, "a\x00b", "\ud800")),
        *(("tenant", value) for value in ("x" * 65, "\x00")),
        *(("idempotency_key", value) for value in ("x" * 256, "\udfff")),
        *(("labels", value) for value in ({"k" * 65: "v"}, {"k": "v" * 257}, {"\x00": "v"}, {"k": "\ud800"})),
        *(("run_at", value) for value in (math.nan, math.inf, -math.inf)),
        *(("timeout_seconds", value) for value in (math.nan, math.inf, 0, -1)),
        *(("priority", value) for value in (2**31, -(2**31))),
        *(("max_attempts", value) for value in (0, -1, 2**31)),
    ],
)
def test_a_field_that_cannot_be_what_it_is_is_named_and_not_quoted(field, value):
    with pytest.raises(InvalidRequest, match=field) as refused:
        NewTask(**{"agent": "agent", "input": 1, field: value})
    assert refused.value.field == field
    assert len(str(refused.value)) < 100


@given(st.text(max_size=64))
def test_other_texts_may_be_anything(text):
    try:
        NewTask(agent=text, input=1, tenant=text, labels={text: text}, idempotency_key=text)
    except InvalidRequest:
        assert "\x00" in text or any(0xD800 <= ord(character) < 0xE000 for character in text)


def test_the_end_of_a_task_out_of_time_says_so():
    step = out_of_time(1.5)
    assert step.error is not None
    assert (step.status, step.error.code) == ("failed", "timeout")
    assert "1.5 seconds" in step.error.message
