"""W3C Trace Context: what is read, what is ignored, what is sent on."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_current_span

from agentkit.tracing import Trace

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"


def test_a_trace_is_read_and_told_as_it_was():
    trace = Trace.parse(PARENT, "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE")
    assert trace == Trace(PARENT, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert (trace.id, trace.headers) == (ID, {"traceparent": PARENT, "tracestate": trace.state})
    assert Trace.of_text(trace.text) == trace
    assert Trace.of_text(Trace(PARENT).text) == Trace(PARENT)
    assert Trace.of_text(None) is None


@pytest.mark.parametrize(
    "parent",
    [
        *(
            "",
            "x",
            ID,
            f"00-{ID}-{SPAN}",
            f"00-{ID.upper()}-{SPAN}-01",
            f"00-{ID}-{SPAN}-1",
            f"0-{ID}-{SPAN}-01",
        ),
        *(f"ff-{ID}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01", f"{PARENT}-more"),
        *(f"00-{ID}-{SPAN}-01\n00", f"00-{ID[:-1]}g-{SPAN}-01", "٠" * 55),
    ],
)
def test_what_is_malformed_is_as_good_as_nothing(parent):
    assert Trace.parse(parent, "a=b") is None


def test_a_later_version_is_read_as_the_first():
    assert (
        Trace.parse(f"01-{ID}-{SPAN}-01-what-comes") == Trace.parse(f" cc-{ID}-{SPAN}-01 ") == Trace(PARENT)
    )


@pytest.mark.parametrize("state", ["novalue", "ü=1", "a=\x00", "a=" + "x" * 511, ",".join(["a=1"] * 33)])
def test_a_state_that_cannot_be_is_left_out(state):
    assert Trace.parse(PARENT, state) == Trace(PARENT)


def test_spans_of_both_sides_are_of_one_trace():
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    assert Trace.current() is None
    with tracer.start_as_current_span("caller") as caller:
        trace = Trace.current()
    of = caller.get_span_context()
    assert trace is not None
    assert trace.parent == f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"
    with Trace(trace.parent, "a=b").carried_on(), tracer.start_as_current_span("worker") as span:
        worker: Any = span
        assert worker.parent.span_id == of.span_id
        assert worker.parent.is_remote
        assert worker.get_span_context().trace_id == of.trace_id
        assert Trace.current().state == "a=b"
    assert not get_current_span().get_span_context().is_valid


def test_without_opentelemetry_nothing_is_imported():
    script = (
        "import sys; from agentkit.tracing import Trace\n"
        f"trace = Trace.parse({PARENT!r})\n"
        "assert Trace.current() is None\n"
        "with trace.carried_on(): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
