"""Recordings with everything that OTLP can say, for whoever must not lose any of it: hypothesis draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import Recording, begin, seal
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

# All of Unicode that UTF-8 has, control characters and astral planes included.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
UINT32 = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**32 - 1))
INT64 = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
# Columns hold 31 bits of them.
COUNTS = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2**31 - 1))
TIMES = st.one_of(st.integers(10**18, 10**18 + 50), st.integers(1, 2**62))

SCALARS = st.one_of(
    TEXT.map(lambda text: AnyValue(string_value=text)),
    st.booleans().map(lambda truth: AnyValue(bool_value=truth)),
    INT64.map(lambda number: AnyValue(int_value=number)),
    st.floats(allow_nan=True, allow_infinity=True).map(lambda number: AnyValue(double_value=number)),
    st.sampled_from([0.0, -0.0, 1.0, 1e22, 5e-324]).map(lambda number: AnyValue(double_value=number)),
    st.binary(max_size=8).map(lambda data: AnyValue(bytes_value=data)),
    st.sampled_from(["NaN", "Infinity", "\x1b[31m", "\u202e", "a\u2028b", "\x00", "\U0001f600", "\\", '"', "\\\\"]).map(
        lambda text: AnyValue(string_value=text)
    ),
    st.just(AnyValue()),
)


def _pairs(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    return st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), TEXT, values), max_size=4)


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: AnyValue(array_value=ArrayValue(values=items))),
        _pairs(inner).map(lambda pairs: AnyValue(kvlist_value=KeyValueList(values=pairs))),
    ),
    max_leaves=6,
)
ATTRIBUTES = _pairs(VALUES)
EVENTS = st.builds(
    Span.Event,
    time_unix_nano=st.one_of(TIMES, st.integers(0, 2**64 - 1)),
    name=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=COUNTS,
)
# Few ids, so that links and parents meet spans.
TRACE_IDS = st.integers(1, 3).map(lambda number: number.to_bytes(16, "big"))
SPAN_IDS = st.integers(1, 12).map(lambda number: number.to_bytes(8, "big"))
LINKS = st.builds(
    Span.Link,
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    trace_state=st.sampled_from(["", "a=b", "ot=th:8"]),
    attributes=ATTRIBUTES,
    dropped_attributes_count=COUNTS,
    flags=UINT32,
)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """One span, its end before its start now and then."""
    start, length = draw(TIMES), draw(st.one_of(st.just(0), st.integers(0, 100), st.integers(-50, 2**61)))
    made = Span(
        trace_id=draw(TRACE_IDS),
        span_id=draw(SPAN_IDS),
        parent_span_id=draw(st.one_of(st.just(b""), SPAN_IDS)),
        trace_state=draw(st.sampled_from(["", "a=b,c=d", "ot=th:c"])),
        name=draw(TEXT),
        start_time_unix_nano=start,
        end_time_unix_nano=max(start + length, 1),
        attributes=draw(ATTRIBUTES),
        events=draw(st.lists(EVENTS, max_size=2)),
        links=draw(st.lists(LINKS, max_size=2)),
        dropped_attributes_count=draw(COUNTS),
        dropped_events_count=draw(COUNTS),
        dropped_links_count=draw(COUNTS),
        flags=draw(UINT32),
    )
    # Numbers that a newer protocol may give meaning to.
    made.ParseFromString(
        made.SerializeToString() + Span(kind=draw(st.sampled_from([0, 1, 2, 3, 4, 5, 77]))).SerializeToString()
    )
    made.status.code = draw(st.sampled_from([0, 1, 2]))
    made.status.message = draw(TEXT)
    return made


@dataclass(frozen=True)
class Process:
    """What one process recorded: spans under scopes, and for each whether it ended."""

    name: str
    resource: ResourceSpans
    told: list[tuple[ScopeSpans, Span, bool]] = field(default_factory=list)


def _scope(name: str, version: str, attributes: list[KeyValue]) -> ScopeSpans:
    made = ScopeSpans()
    made.scope.name, made.scope.version = name, version
    made.scope.attributes.extend(attributes)
    return made


SCOPES = st.builds(_scope, st.sampled_from(["", "lib", "fencepost.runtime"]), TEXT, ATTRIBUTES)


@st.composite
def processes(draw: st.DrawFn, name: str) -> Process:
    """One process: with an identity of its own or without, with odd attributes or without."""
    resource = ResourceSpans()
    resource.resource.attributes.extend(draw(ATTRIBUTES))
    identity = draw(st.sampled_from([{}, {"service.name": "shop"}, {"service.instance.id": name}]))
    for key, value in identity.items():
        resource.resource.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    scopes = draw(st.lists(SCOPES, min_size=1, max_size=2))
    told = draw(st.lists(st.tuples(st.sampled_from(scopes), spans(), st.booleans()), max_size=5))
    return Process(name, resource, told)


RECORDINGS = st.tuples(processes("p1"), processes("p2"), processes("p3"))


def sealed(recordings: Path, told: tuple[Process, ...], recording_id: str = "random") -> Recording:
    """A recording of what these processes tell, a log each."""
    directory = begin(recordings, recording_id)
    for process in told:
        write_log(directory / "wal", process)
    return seal(directory, tool_version="0.0.test")


def write_log(wal: Path, process: Process) -> None:
    """What one process tells, start by start and end by end."""
    writer = LogWriter(wal, producer=process.name)
    resource = writer.append(FrameType.RESOURCE, process.resource.SerializeToString())
    for scope, span, ended in process.told:
        ref = writer.append(FrameType.SCOPE, scope.SerializeToString(), resource)
        started = Span()
        started.CopyFrom(span)
        started.end_time_unix_nano = 0
        writer.append(FrameType.START, started.SerializeToString(), ref)
        if ended:
            writer.append(FrameType.END, span.SerializeToString(), ref)
    writer.close()
