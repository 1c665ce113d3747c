"""What is reused from a span's start never makes its end a different span."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, StatusCode

from fencepost_recorder import halves
from fencepost_recorder.encode import encode_span
from fencepost_recorder.halves import SpanHalves

OTHER = SpanContext(1, 2, True)
VALUES = st.sampled_from([1, True, 1.0, "1", "x", b"x", None, (1, 2), {"k": 1}, 2**70])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcdef"), VALUES),
        st.tuples(st.just("name"), st.sampled_from(["n", "renamed"]), st.none()),
        st.tuples(st.just("event"), st.just("e"), st.none()),
        st.tuples(st.just("link"), st.just(""), st.none()),
        st.tuples(st.just("status"), st.just("why"), st.none()),
    ),
    max_size=6,
)


class Both(SpanProcessor):
    """Encodes each half both ways."""

    def __init__(self) -> None:
        self.halves = SpanHalves()
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.pairs.append((self.halves.start(span), encode_span(span)))

    def on_end(self, span: ReadableSpan) -> None:
        self.pairs.append((self.halves.end(span), encode_span(span)))


def traced(attributes: dict[str, Any], changes: list[tuple[str, str, Any]], links: int) -> Both:
    both = Both()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(both)
    span = provider.get_tracer("t").start_span("n", attributes=attributes, links=[Link(OTHER)] * links)
    for what, name, value in changes:
        match what:
            case "set":
                span.set_attribute(name, value)
            case "name":
                span.update_name(name)
            case "event":
                span.add_event(name, {"a": 1})
            case "link":
                span.add_link(OTHER, {"late": True})
            case _:
                span.set_status(StatusCode.ERROR, name)
    span.end()
    return both


@given(st.dictionaries(st.sampled_from("abc"), VALUES), CHANGES, st.integers(0, 2))
def test_both_halves_are_what_the_whole_span_would_encode_to(
    attributes: dict[str, Any], changes: list[tuple[str, str, Any]], links: int
) -> None:
    for quick, whole in traced(attributes, changes, links).pairs:
        assert SpanMessage.FromString(quick) == SpanMessage.FromString(whole)
        assert quick[:28] == whole[:28]


def test_a_value_replaced_by_an_equal_one_of_another_type_is_encoded_anew() -> None:
    _, (end, _) = traced({"a": 1}, [("set", "a", True)], 0).pairs
    assert SpanMessage.FromString(end).attributes[0].value.bool_value is True


def test_a_link_that_takes_the_place_of_another_is_not_lost() -> None:
    """At the SDK's limit of links a new one drops the oldest, and their number stays the same."""
    end, whole = traced({}, [("link", "", None)], 128).pairs[-1]
    assert (end, SpanMessage.FromString(end).dropped_links_count) == (whole, 1)


def test_a_closed_span_is_forgotten() -> None:
    assert traced({"a": 1}, [], 0).halves._started == {}


def test_spans_that_never_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "_MAX_STARTED", 10)
    both = Both()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(both)
    spans = [provider.get_tracer("t").start_span("n", attributes={"i": i}) for i in range(25)]
    assert len(both.halves._started) <= 10
    for span in spans:
        span.end()
    assert all(SpanMessage.FromString(one) == SpanMessage.FromString(other) for one, other in both.pairs)


def test_a_huge_span_is_not_kept() -> None:
    both = traced({"a": "x" * 20_000}, [("set", "b", "y")], 0)
    assert SpanMessage.FromString(both.pairs[1][0]) == SpanMessage.FromString(both.pairs[1][1])
