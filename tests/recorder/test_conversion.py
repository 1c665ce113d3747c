"""The quick way through a log says to the byte what the careful way says, whatever is in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import conversion as under_test
from fencepost_recorder import fragments, templates, wal
from fencepost_recorder.columns import Batch
from fencepost_recorder.conversion import Conversion
from fencepost_recorder.encode import varint
from fencepost_recorder.logs import list_logs
from fencepost_recorder.wal import FrameType, Header, encode_frame, encode_header

# What a hostile client may put behind a span: a field again, other kinds of field, attributes of every malformed kind,
# text that is no UTF-8, varints longer than they need to be, a key twice.
SUFFIXES = [
    *(b"\x2a\x01x", b"\x7a\x02\x18\x02", b"\x7a\x00", b"\x41" + bytes(8), b"\x30\x80\x01", b"\x22\x00"),
    *(b"\x4a\x80\x00", b"\x4a\x00", b"\x4a\x02\x12\x00", b"\x4a\x04\x0a\x00\x12\x00", b"\x4a\x7f", b"\x4a\xff\x7f"),
    *(b"\xf8\x01\x05", b"\x82\x01\x01x", b"\x48\x01", b"\x50\x00", b"\x60\x01", b"\x0b", b"\x85\x01"),
    b"\x4a\x07\x0a\x01a\x12\x02\x18\x05",
    b"\x4a\x08\x0a\x01z\x12\x03\x0a\x01\xff",
    b"\x4a\x09\x0a\x01v\x12\x04\x18\x85\x80\x00",
    b"\x4a\x07\x0a\x01a\x12\x02\x10\x02",
    b"\x4a\x0f\x0a\x01a\x12\x0a\x18" + b"\xff" * 8 + b"\x7f",
    b"\x4a\x10\x0a\x01a\x12\x0b\x18" + b"\xff" * 9 + b"\x01",
    b"\x4a\x10\x0a\x01a\x12\x0b\x18" + b"\xff" * 9 + b"\x03",
    *(b"\x2a\x02\xc3\x28", b"\x1a\x01\xff", b"\x5a\x03\x12\x01\xff", b"\x6a\x02\x0a\x7f", b"\x6a\x02\x12\x00"),
]
PREFIXES = [b"\x2a\x01y", b"\x0a\x00", b"\x4a\x07\x0a\x01a\x12\x02\x10\x01"]
TEXTS = ["", "a", "a" * 127, "é" * 64, "x" * 130, 'q"\\\n\x00\x7f\u2028😀', "k" * 20_000]
NUMBERS = [0, 1, 127, 128, 2**31 - 1, 2**32 - 1, 2**63 - 1, -1, -(2**63)]
DOUBLES = [0.0, -0.0, 1.5, 1e300, float("inf"), float("-inf"), float("nan")]
TIMES = [0, 1, 10**18, 2**63 - 1, 2**63, 2**64 - 1]
COUNTS = [0] * 9 + [1, 2**32 - 1]


class Hostile:
    """Spans of every kind, by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def number(self) -> int:
        return self.pick(NUMBERS) if self.random.random() < 0.5 else self.random.randrange(-(2**63), 2**63)

    def value(self, depth: int = 0) -> AnyValue:
        pick = self.pick
        kinds = ["int_value", "bool_value", "double_value", "bytes_value", "string_value", "string_value", ""]
        kind = pick(kinds if depth > 2 else [*kinds, "array_value", "kvlist_value"])
        if kind == "array_value":
            return AnyValue(array_value={"values": [self.value(depth + 1) for _ in range(pick([0, 1, 2]))]})
        if kind == "kvlist_value":
            return AnyValue(kvlist_value={"values": self.attributes(depth + 1)})
        plain: dict[str, Any] = {
            "int_value": self.number(),
            "bool_value": pick([True, False]),
            "double_value": pick(DOUBLES),
            "bytes_value": self.random.randbytes(pick([0, 1, 9])),
            "string_value": pick(TEXTS),
        }
        return AnyValue(**{kind: plain[kind]} if kind else {})

    def attributes(self, depth: int = 0) -> list[KeyValue]:
        keys = ["a", "b", "c", "d", "", 'k"', "n" * 128]
        return [KeyValue(key=self.pick(keys), value=self.value(depth)) for _ in range(self.pick([0, 1, 2, 3, 6]))]

    def span(self) -> bytes:
        pick = self.pick
        made = Span(
            trace_id=pick([b"t" * 16, b"t" * 16, b"u" * 16, bytes(16), b"short"]),
            span_id=pick([*(b"s%07d" % number for number in range(6)), bytes(8), b""]),
            parent_span_id=pick([b"", b"12345678", bytes(8), b"short"]),
            trace_state=pick(["", "", "vendor=1", "ot=th:8", "ot=rv:1", "é"]),
            name=pick(TEXTS),
            kind=pick([0, 1, 5, 6, 127, 128, -1]),
            start_time_unix_nano=pick(TIMES),
            end_time_unix_nano=pick(TIMES),
            attributes=self.attributes(),
            dropped_attributes_count=pick(COUNTS),
            dropped_events_count=pick(COUNTS),
            dropped_links_count=pick(COUNTS),
            flags=pick([0, 0x100, 0x101, 0x301, 2**32 - 1]),
        )
        for _ in range(pick([0, 0, 1, 2])):
            event = made.events.add(time_unix_nano=pick(TIMES), name=pick(TEXTS), attributes=self.attributes())
            event.dropped_attributes_count = pick(COUNTS)
        for _ in range(pick([0, 0, 1, 2])):
            link = made.links.add(trace_id=pick([b"", b"1" * 16, b"22"]), span_id=b"12345678")
            link.flags = pick([0, 2**32 - 1])
            link.attributes.extend(self.attributes())
            link.trace_state, link.dropped_attributes_count = pick(["", "a=b", "é"]), pick(COUNTS)
        if pick([True, False]):
            made.status.code, made.status.message = pick([0, 1, 2, 7]), pick(TEXTS)
        return self.mutated(made.SerializeToString())

    def mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        match self.random.randrange(8):
            case 0:
                del changed[self.random.randrange(len(changed) + 1) :]
            case 1 if changed:
                changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
            case 2 | 3:
                changed += self.pick(SUFFIXES) + self.pick([b"", *SUFFIXES])
            case 4:
                changed[:0] = self.pick(PREFIXES)
        return bytes(changed)


def usual(number: int) -> Span:
    made = Span(trace_id=b"t" * 16, span_id=b"%08d" % number, name=f"n{number % 3}", kind=3, flags=0x101)
    made.start_time_unix_nano, made.end_time_unix_nano = 10**18 + number, 10**18 + 2 * number + 1
    for key in ("a", "b", "c"):
        made.attributes.append(KeyValue(key=key, value=AnyValue(string_value=f"{key}{number % 5}")))
    return made


class Written:
    """A log made frame by frame."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.head = Header(path.stem, kind=kind, pid=1, host="h", started_unix_nano=10**18, locked=True)
        self.data = encode_header(self.head)
        self.next = 0

    def add(self, kind: FrameType, payload: bytes, ref: int = 0) -> int:
        number, self.next = self.next, self.next + 1
        self.data += encode_frame(kind, number, 10**18 + number, ref, payload)
        return number

    def introduce(self) -> int:
        name = KeyValue(key="service.name", value=AnyValue(string_value="s"))
        resource = ResourceSpans(resource={"attributes": [name]})
        scope = ScopeSpans(scope={"name": "lab", "dropped_attributes_count": 1})
        at = self.add(FrameType.RESOURCE, resource.SerializeToString())
        return self.add(FrameType.SCOPE, scope.SerializeToString(), at)

    def close(self) -> None:
        self.add(FrameType.CLOSE, b"{}")
        self.path.write_bytes(self.data)


def outcome(wal: Path, careful: bool) -> dict[str, Any]:
    """Everything that a conversion says."""
    batches: list[Batch] = []
    made = Conversion(batches.append, careful=careful)
    made.read(list_logs(wal))
    made.join(made.found.starts, made.found.ends)
    made.finish()
    found = made.found
    table = pa.concat_tables([batch.table for batch in batches]) if batches else None
    return {
        "rows": table.to_pylist() if table is not None else [],
        "ids": b"".join(batch.ids for batch in batches),
        "gaps": list(found.gaps),
        "halves": (found.starts, found.ends),
        "told": found.told,
        "sampled": found.sampled,
        "around": found.around,
        "accounts": found.accounts,
    }


def agree(folder: Path) -> dict[str, Any]:
    quick, careful = outcome(folder, careful=False), outcome(folder, careful=True)
    for name in careful:
        assert quick[name] == careful[name], name
    return quick


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[], Path]:
    """A new folder each time, for examples share their test's."""
    made = [0]

    def new() -> Path:
        made[0] += 1
        path = tmp_path / str(made[0])
        path.mkdir()
        return path

    return new


EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**32)


@EXAMPLES
@given(SEEDS)
def test_starts_and_ends_are_converted_alike(folder: Any, seed: int) -> None:
    """Starts and ends in any order, of the same ids, changed on their way, with ends and starts left out."""
    hostile, path = Hostile(seed), folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    frames = []
    for number in range(16):
        data = hostile.span() if number % 2 else usual(number).SerializeToString()
        frames += [(FrameType.START, data), (FrameType.END, data if number % 3 else hostile.mutated(data))]
    for at in range(len(frames) - 1):
        if hostile.random.random() < 0.3:
            frames[at], frames[at + 1] = frames[at + 1], frames[at]
    for kind, data in frames:
        if hostile.random.random() < 0.9:
            log.add(kind, data, scope if hostile.random.random() < 0.9 else 0)
        if hostile.random.random() < 0.05:
            log.add(FrameType.WHOLE, data, scope)
            log.next += hostile.random.randrange(2)
    log.close()
    agree(path)


@EXAMPLES
@given(SEEDS, st.sampled_from(["receiver", "import"]))
def test_what_others_tell_is_converted_alike(folder: Any, seed: int, kind: str) -> None:
    """Requests of several resources and scopes, their fields in any order, and single spans as imports have them."""
    hostile, path = Hostile(seed), folder()
    log = Written(path / "r.wal", kind)
    scope = log.introduce()
    encoded = [hostile.span() if number % 2 else usual(number).SerializeToString() for number in range(16)]
    for data in encoded:
        log.add(FrameType.WHOLE, data, scope)
    fields: list[bytes] = [b"\x12" + varint(len(data)) + data for data in encoded]
    fields += [b"\x0a\x05\x0a\x03lab", b"\x1a\x01u", b"\x0a\x02\x12\x00"]
    hostile.random.shuffle(fields)
    inner = b"".join(fields)
    outer = [b"\x12" + varint(len(inner)) + inner, b"\x0a\x02\x10\x01", b"\x12\x00", b"\x1a\x01x"]
    hostile.random.shuffle(outer)
    whole = b"".join(outer)
    request = b"\x0a" + varint(len(whole)) + whole + hostile.pick([b"", b"\x12\x01x", b"\x0a\x00"])
    log.add(FrameType.REQUEST, request, 7)
    log.add(FrameType.REQUEST, hostile.mutated(request), 70)
    log.add(FrameType.START, encoded[0], scope)
    log.add(FrameType.END, encoded[0], scope)
    log.close()
    agree(path)


@EXAMPLES
@given(SEEDS)
def test_spans_of_one_shape_are_converted_alike(folder: Any, seed: int) -> None:
    """Spans that differ in a few bytes: values, lengths, tags and keys changed in place, under a template or not."""
    hostile, path = Hostile(seed), folder()
    kind = hostile.pick(["process", "receiver"])
    log = Written(path / "p.wal", kind)
    scope = log.introduce()
    shape = usual(1)
    shape.attributes.extend(hostile.attributes())
    if hostile.pick([True, False]):
        shape.links.add(trace_id=b"1" * 16, span_id=b"12345678", attributes=hostile.attributes())
        shape.events.add(time_unix_nano=5, name="e", attributes=hostile.attributes())
    shape.trace_state = hostile.pick(["", "", "vendor=1", "ot=th:8"])
    shape.flags, shape.status.message = hostile.pick([0x100, 0x101]), hostile.pick(["", "broke"])
    data = shape.SerializeToString()
    for number in range(30):
        changed = bytearray(data)
        changed[20:28] = b"%08d" % number
        for _ in range(hostile.pick([0, 0, 1, 2]) if number > 6 else 0):
            at = hostile.random.randrange(len(changed))
            changed[at] = hostile.pick([changed[at] ^ 1 << hostile.random.randrange(8), 0, 0x4A, 0xFF, 0x80])
        if kind == "process":
            log.add(FrameType.START, bytes(changed), scope)
            log.add(FrameType.END, bytes(changed), scope)
        else:
            log.add(FrameType.WHOLE, bytes(changed), scope)
    log.close()
    agree(path)


def test_a_shape_that_comes_up_often_gets_a_template(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the quickest way would not be taken at all: hardly a span of one shape is walked field by field."""
    path = folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    for number in range(100):
        for kind in (FrameType.START, FrameType.END):
            log.add(kind, usual(number).SerializeToString(), scope)
    log.close()
    walked: list[int] = []
    real = templates.Templates.missed
    monkeypatch.setattr(templates.Templates, "missed", lambda *given: walked.append(1) or real(*given))
    assert len(outcome(path, careful=False)["rows"]) == 100
    assert 3 <= len(walked) <= 12


def test_shapes_that_never_come_again_get_no_templates(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template costs as much as dozens of spans: they are made only as far as others have paid for themselves."""
    path = folder()
    log = Written(path / "r.wal", "receiver")
    scope = log.introduce()
    for number in range(3000):
        span = usual(number)
        span.attributes.append(KeyValue(key="k", value=AnyValue(string_value="v" * (number // 9))))
        log.add(FrameType.WHOLE, span.SerializeToString(), scope)
    log.close()
    made: list[int] = []
    real = templates.Templates._make
    monkeypatch.setattr(templates.Templates, "_make", lambda *given: made.append(1) or real(*given))
    assert len(agree(path)["rows"]) == 3000
    assert 0 < len(made) <= 70


def test_a_request_is_the_spans_that_protobuf_finds_in_it(folder: Any) -> None:
    """Where a request is whole, taking it apart by hand finds what parsing it at once would find."""
    made = ExportTraceServiceRequest()
    for number in range(20):
        if number % 7 == 0:
            resource = made.resource_spans.add(schema_url="u")
            resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=f"s{number}")))
        if number % 3 == 0:
            resource.scope_spans.add(schema_url="v").scope.name = f"scope {number}"
        if not resource.scope_spans:
            resource.scope_spans.add()
        resource.scope_spans[-1].spans.append(usual(number))
    path = folder()
    log = Written(path / "r.wal", "receiver")
    log.add(FrameType.REQUEST, made.SerializeToString())
    log.close()
    wanted = [
        (resource.resource.attributes[0].value.string_value, scope.scope.name or None, span.name, span.span_id.hex())
        for resource in made.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    names = ("service_name", "scope_name", "name", "span_id")
    assert [tuple(row[name] for name in names) for row in agree(path)["rows"]] == wanted


@EXAMPLES
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_damaged_log_is_converted_alike(folder: Any, seed: int, edits: int) -> None:
    """Bytes changed, cut out and put in anywhere behind the header: both ways stop at the same frame."""
    source, path = random.Random(seed), folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    for number in range(10):
        for kind in (FrameType.START, FrameType.END):
            log.add(kind, usual(number).SerializeToString(), scope)
    log.close()
    data, begin = bytearray(log.data), len(encode_header(log.head))
    for _ in range(edits):
        at = source.randrange(begin, len(data))
        data[at : at + source.randrange(3)] = source.randbytes(source.randrange(3))
    log.path.write_bytes(data)
    agree(path)


@pytest.mark.parametrize("window", [64, 700, 5000])
def test_a_span_over_the_edge_of_a_window_is_converted_alike(
    folder: Any, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Starts whose ends come windows later, in whatever order they end."""
    monkeypatch.setattr(wal, "WINDOW_BYTES", window)
    path = folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    for number in range(60):
        log.add(FrameType.START, usual(number).SerializeToString(), scope)
        if number >= 10:
            log.add(FrameType.END, usual((number * 7) % 10 + number // 10 * 10 - 10).SerializeToString(), scope)
    log.close()
    found = agree(path)
    assert len(found["rows"]) == 60
    assert sum(row["producer_end_seq"] is None for row in found["rows"]) == 10


def test_more_keys_than_can_be_told_apart_are_converted_alike(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of attributes stays bounded, and is forgotten between spans only."""
    monkeypatch.setattr(fragments, "MAX_KEYS", 7)
    monkeypatch.setattr(fragments, "MAX_KNOWN", 20)
    monkeypatch.setattr("fencepost_recorder.columns.BATCH_ROWS", 10)
    monkeypatch.setattr(wal, "WINDOW_BYTES", 2000)
    path = folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    for number in range(200):
        span = usual(number)
        for key in range(number % 5):
            span.attributes.append(KeyValue(key=f"k{number}-{key % 3}", value=AnyValue(int_value=key)))
        for kind in (FrameType.START, FrameType.END):
            log.add(kind, span.SerializeToString(), scope)
    log.close()
    assert len(agree(path)["rows"]) == 200


def test_the_usual_log_hardly_needs_care(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the quick way would be quick at nothing: of a usual log only what begins and ends it is looked at twice."""
    path = folder()
    log = Written(path / "p.wal", "process")
    scope = log.introduce()
    for number in range(100):
        span = usual(number)
        span.links.append(Span.Link(trace_id=b"1" * 16, span_id=b"12345678", flags=0x100))
        span.events.append(Span.Event(name="e", time_unix_nano=5))
        span.status.code = 2
        span.status.message = "broke"
        span.trace_state = "vendor=1"
        for kind in (FrameType.START, FrameType.END):
            log.add(kind, span.SerializeToString(), scope)
    log.close()
    careful: list[int] = []
    real = under_test.row_of
    monkeypatch.setattr(under_test, "row_of", lambda *given: careful.append(1) or real(*given))
    assert len(outcome(path, careful=False)["rows"]) == 100
    assert len(careful) == 0
