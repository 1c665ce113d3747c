"""The hand-made span bytes are what the official OTLP classes would have made, and nothing sinks a span."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from fencepost_recorder.encode import MAX_VALUE_BYTES, any_value, encode_resource, encode_scope, encode_span
from fencepost_recorder.rows import attributes_of

CONTEXT = SpanContext(0xABC, 0xDEF, False, TraceFlags(1), TraceState([("k", "v"), ("l", "w")]))
REMOTE = SpanContext(0xABC, 0x123, True, TraceFlags(0))
LEAVES = st.one_of(
    st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(), st.none()
)
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=4), st.dictionaries(st.text(min_size=1), LEAVES, max_size=4))
ATTRIBUTES = st.dictionaries(st.text(min_size=1), VALUES, max_size=8)


def span_of(attributes: dict[str, Any] | None = None, **fields: Any) -> ReadableSpan:
    given_fields: dict[str, Any] = {
        "name": "n",
        "context": CONTEXT,
        "start_time": 5,
        "attributes": attributes,
        "resource": Resource({"service.name": "s"}, "http://schema"),
        "instrumentation_scope": InstrumentationScope("scope", "1", "http://scope", {"a": 1}),
    }
    return ReadableSpan(**{**given_fields, **fields})


def decoded(span: ReadableSpan) -> SpanMessage:
    return SpanMessage.FromString(encode_span(span))


@given(ATTRIBUTES, ATTRIBUTES, st.text(), st.sampled_from(SpanKind), st.sampled_from(StatusCode))
def test_a_span_encodes_as_the_official_exporter_encodes_it(
    attributes: dict[str, Any], more: dict[str, Any], name: str, kind: SpanKind, code: StatusCode
) -> None:
    span = span_of(
        attributes,
        name=name,
        kind=kind,
        parent=REMOTE,
        end_time=9,
        events=(Event("e", more, 7), Event("f", None, 8)),
        links=(Link(REMOTE, more), Link(CONTEXT)),
        status=Status(code, "why" if code is StatusCode.ERROR else None),
    )
    [resource_spans] = encode_spans([span]).resource_spans
    [scope_spans] = resource_spans.scope_spans
    [official] = scope_spans.spans
    ours = decoded(span)
    # The exporter leaves out the W3C flags and a link's trace state; both belong into OTLP.
    assert (ours.flags, [link.flags for link in ours.links]) == (0x301, [0x300, 0x101])
    assert ours.links[1].trace_state == ours.trace_state == "k=v,l=w"
    official.flags = ours.flags
    for link, theirs in zip(ours.links, official.links, strict=True):
        theirs.flags, theirs.trace_state = link.flags, link.trace_state
    # An empty status is no status: unset either way.
    if not official.status.code:
        official.ClearField("status")
    assert ours == official
    del resource_spans.scope_spans[:]
    assert ResourceSpans.FromString(encode_resource(span.resource, {})) == resource_spans
    del scope_spans.spans[:]
    assert ScopeSpans.FromString(encode_scope(span.instrumentation_scope)) == scope_spans


class Hostile:
    """A value that fights back."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (2**64 - 1, str(2**64 - 1)),
        (-(2**63), -(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        ("a\udc80b", "a\\udc80b"),
        (b"\x00\xff", "AP8="),
        (None, None),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (True, True),
        (1, 1),
        (1.0, 1.0),
        ([1, "x", None], [1, "x", None]),
        ({"k": {"l": [True]}}, {"k": {"l": [True]}}),
        ({"s": {1, 2}.__class__}, {"s": "<class 'set'>"}),
    ],
)
def test_every_value_keeps_its_meaning_in_the_table(value: Any, seen: Any) -> None:
    span = decoded(span_of({"before": "x", "key": value}))
    attributes = attributes_of(span.attributes)
    assert attributes["key"] == seen
    assert type(attributes["key"]) is type(seen)
    assert attributes["before"] == "x"
    assert span.dropped_attributes_count == 0


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value]
    return value


@pytest.mark.parametrize("value", [Hostile(), "x" * (MAX_VALUE_BYTES + 1), deep(), b"y" * (MAX_VALUE_BYTES + 1)])
def test_a_value_that_cannot_be_kept_is_dropped_and_counted(value: Any) -> None:
    span = decoded(span_of({"before": "x", "key": value, "after": 1}))
    assert attributes_of(span.attributes) == {"before": "x", "after": 1}
    assert span.dropped_attributes_count == 1


def test_a_span_larger_than_any_frame_keeps_its_identity_and_counts_what_it_lost() -> None:
    attributes = {f"k{number}": "x" * (MAX_VALUE_BYTES - 10) for number in range(9)}
    span = decoded(span_of(attributes, events=(Event("e", None, 7),)))
    assert (span.name, span.dropped_attributes_count, span.dropped_events_count) == ("n", 9, 1)


@pytest.mark.parametrize(("value", "seen"), [(-5, 0), (2**70, 2**63 - 1), (1.5, 1), (None, 0)])
def test_impossible_times_are_clamped(value: Any, seen: int) -> None:
    assert decoded(span_of(start_time=value)).start_time_unix_nano == seen


def test_a_name_of_any_kind_is_kept_as_text() -> None:
    assert decoded(span_of(name="\udcff")).name == "\\udcff"
    assert decoded(span_of(name=17)).name == "17"


def test_equal_values_of_different_types_are_not_confused_by_the_cache() -> None:
    for value in (1, True, 1.0, "1", 1, True):
        [pair] = decoded(span_of({"cached": value})).attributes
        kind = pair.value.WhichOneof("value")
        assert type(getattr(pair.value, str(kind))) is type(value)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_any_nested_value_is_a_valid_message(value: Any) -> None:
    AnyValue.FromString(any_value(value))
