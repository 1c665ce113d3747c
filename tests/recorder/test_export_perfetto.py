"""A recording as a trace to look at: every span is drawn once, at its time, and nothing that a viewer would drop."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from recorder.random_recordings import RECORDINGS, Process, sealed
from recorder.trace_events import Drawing, Slice, drawn

from fencepost_recorder import Recording, StorageError, export_recording, schema
from fencepost_recorder.exporting.ordered import Ordered

BASE = 1_700_000_000_000_000_000
MS = 1_000_000


def perfetto(recording: Recording) -> bytes:
    stream = io.BytesIO()
    export_recording(recording, stream, "perfetto")
    return stream.getvalue()


def attributes(values: dict[str, Any]) -> Iterable[KeyValue]:
    for key, value in values.items():
        yield KeyValue(key=key, value=AnyValue(**{"int_value" if isinstance(value, int) else "string_value": value}))


def span(number: int, start: int, end: int | None, parent: int = 0, name: str = "", **fields: Any) -> tuple[Span, bool]:
    """A span of times in milliseconds, and whether it ended."""
    made = Span(trace_id=(1).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=name or f"s{number}")
    made.start_time_unix_nano, made.end_time_unix_nano = BASE + start * MS, BASE + (end or 0) * MS
    made.parent_span_id = parent.to_bytes(8, "big") if parent else b""
    made.attributes.extend(attributes(fields))
    return made, end is not None


def process(name: str, *spans: tuple[Span, bool], scope: str = "lib", **resource: Any) -> Process:
    around, scopes = ResourceSpans(), ScopeSpans()
    around.resource.attributes.extend(attributes({"service.name": name, "host.name": "h", **resource}))
    scopes.scope.name = scope
    return Process(name, around, [(scopes, one, ended) for one, ended in spans])


Draw = Callable[..., Drawing]


@pytest.fixture
def draw(recordings: Path) -> Draw:
    def draw_them(*told: Process) -> Drawing:
        return drawn(perfetto(sealed(recordings, told)))

    return draw_them


def at(drawing: Drawing, name: str) -> Slice:
    [found] = [one for one in drawing.spans if one.event["name"] == name]
    return found


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(told=RECORDINGS)
def test_every_span_is_drawn_once_at_its_time(tmp_path: Path, told: tuple[Process, ...]) -> None:
    """Whatever its times, names and attributes are, and the same bytes each time."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        recording = sealed(Path(name), told)
        content = perfetto(recording)
        assert content == perfetto(recording)
        drawing = drawn(content)
        rows = recording.spans().to_pylist()
        assert Counter(map(as_drawn, drawing.spans)) == Counter(as_recorded(row, drawing.base) for row in rows)
        events = sum(len(json.loads(row["events_json"])) for row in rows)
        assert sum(one["cat"] == "event" for one in drawing.instants) == events
        check_arrows(drawing, rows)


def as_drawn(one: Slice) -> tuple[Any, ...]:
    return (
        *one.ids,
        one.start,
        one.end,
        one.event["name"],
        json.dumps(one.event["args"].get("attributes", {}), default=float),
    )


def as_recorded(row: dict[str, Any], base: int) -> tuple[Any, ...]:
    start, duration = row["start_time_unix_nano"], row["duration_time_unix_nano"]
    end = None if duration is None else max(start + duration, start) - base
    shown = json.dumps(plain(json.loads(row["span_attributes"])))
    return row["trace_id"], row["span_id"], start - base, end, plain(row["name"] or "(unnamed)"), shown


def plain(value: Any) -> Any:
    """Characters beyond the first plane that cannot be printed cannot be escaped either, and are replaced."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() or ord(c) <= 0xFFFF else "\ufffd" for c in value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    return {plain(key): plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def check_arrows(drawing: Drawing, rows: list[dict[str, Any]]) -> None:
    """One for each link to a recorded span that began no later, and none from nowhere to nowhere."""
    starts: dict[tuple[str, str], int] = {}
    for row in rows:
        starts.setdefault((row["trace_id"], row["span_id"]), row["start_time_unix_nano"])
    if len(starts) < len(rows):
        return  # which of two spans with one id is meant, nobody knows
    wanted = Counter(
        ((link["trace_id"], link["span_id"]), (row["trace_id"], row["span_id"]))
        for row in rows
        for link in json.loads(row["links_json"])
        if starts.get((link["trace_id"], link["span_id"]), 2**63) <= row["start_time_unix_nano"]
        and (link["trace_id"], link["span_id"]) != (row["trace_id"], row["span_id"])
    )
    assert Counter((one.ids, other.ids) for name, one, other in drawing.arrows if name == "link") == wanted
    for name, one, other in drawing.arrows:
        assert name == "link" or (other.event["args"]["parent_span_id"] == one.ids[1] and one.tid != other.tid)


def test_a_span_lies_within_its_parent_where_it_can(draw: Draw) -> None:
    """A child in its parent; one beside it in a lane of its own, with an arrow; unrelated ones never in each other."""
    drawing = draw(
        process("a", span(1, 0, 100), span(2, 10, 50, parent=1), span(3, 20, 60, parent=1), span(4, 30, 40, parent=2)),
        process("b", span(5, 0, 100), span(6, 10, 20), span(7, 30, 200, parent=5)),
    )
    depths = {one.event["name"]: (one.depth, drawing.threads[one.pid, one.tid]) for one in drawing.spans}
    assert depths == {
        "s1": (0, "spans"),
        "s2": (1, "spans"),
        "s3": (0, "spans 2"),
        "s4": (2, "spans"),
        "s5": (0, "spans"),
        "s6": (0, "spans 2"),
        "s7": (0, "spans 2"),
    }
    arrows = {(name, one.event["name"], other.event["name"]) for name, one, other in drawing.arrows}
    assert arrows == {("parent", "s1", "s3"), ("parent", "s5", "s7")}


def test_arrows_lead_from_process_to_process(draw: Draw) -> None:
    """To a child elsewhere, and along a link; not against time, and not to what was not recorded."""
    child = span(2, 20, 30, parent=1)
    child[0].links.add(trace_id=(1).to_bytes(16, "big"), span_id=(3).to_bytes(8, "big"))
    child[0].links.add(trace_id=(9).to_bytes(16, "big"), span_id=(9).to_bytes(8, "big"))
    early = span(4, 0, 1, parent=2)
    drawing = draw(process("a", span(1, 10, 50), span(3, 11, 12)), process("b", child, early))
    arrows = {(name, one.event["name"], other.event["name"]) for name, one, other in drawing.arrows}
    assert arrows == {("parent", "s1", "s2"), ("link", "s3", "s2")}


def test_arrows_of_one_moment_do_not_point_backwards(draw: Draw) -> None:
    """In virtual time cause and effect have the same time; the arrow still begins before it ends."""
    drawing = draw(
        process("z", span(1, 0, 9), span(2, 5, 5, parent=7)), process("a", span(7, 5, 5), span(8, 5, 6, parent=1))
    )
    arrows = {(one.event["name"], other.event["name"]) for _, one, other in drawing.arrows}
    assert arrows == {("s7", "s2"), ("s1", "s8")}


def test_what_never_ended_has_a_beginning_alone(draw: Draw) -> None:
    """Its lane stays its own, but for what lies within it."""
    drawing = draw(process("a", span(1, 0, None), span(2, 5, 6, parent=1), span(3, 7, 8)))
    assert at(drawing, "s1").event["ph"] == "B"
    assert at(drawing, "s1").event["args"]["never_ended"] is True
    assert at(drawing, "s2").tid == at(drawing, "s1").tid != at(drawing, "s3").tid


def test_processes_are_named_for_people(draw: Draw) -> None:
    """By service and pid; a process that says nothing of itself by the name of its log."""
    named = process("shop", span(1, 5, 6), **{"process.pid": 42, "service.instance.id": "i-1"})
    unnamed = Process("log-7", ResourceSpans(), [(ScopeSpans(), span(2, 0, 1)[0], True)])
    drawing = draw(named, unnamed)
    assert drawing.processes[2] == "shop (pid 42)"
    assert drawing.processes[1].startswith("log-7 (pid ")
    assert drawing.labels[2] == "host h, instance i-1, producer shop, log closed"


def test_crashes_and_pauses_are_shown_on_the_process_that_they_befell(draw: Draw) -> None:
    """Also when its pid was another's before; what befell nobody that is known, where it was told."""
    told = [
        span(1, 10, 10, name="pause", **{"process.pid": 7}),
        span(2, 30, 30, name="resume", **{"process.pid": 7}),
        span(3, 40, 40, name="crash", **{"process.pid": 7, "job.signal": "SIGKILL"}),
        span(4, 50, 50, name="pause", **{"process.pid": 7}),
        span(5, 60, 60, name="crash", **{"process.pid": 99}),
    ]
    drawing = draw(
        process("supervisor", *told, scope="fencepost.runtime", **{"process.pid": 1}),
        process("first", span(11, 0, 5), **{"process.pid": 7}),
        process("second", span(12, 8, 39), **{"process.pid": 7}),
        process("later", span(13, 45, 46), **{"process.pid": 7}),
        process("elsewhere", span(14, 0, 1), **{"process.pid": 7, "host.name": "other"}),
        process("user", span(15, 0, 1, name="crash", **{"process.pid": 7})),
    )
    paused = [one for one in drawing.slices if one.event["name"] == "paused"]
    assert [(drawing.processes[one.pid], one.start, one.end) for one in paused] == [
        ("second (pid 7)", 10 * MS, 30 * MS),
        ("later (pid 7)", 50 * MS, None),
    ]
    assert {drawing.threads[one.pid, one.tid] for one in paused} == {"paused"}
    crashes = [(drawing.processes[one["pid"]], one["name"], one["time"]) for one in drawing.instants]
    assert crashes == [("second (pid 7)", "crash SIGKILL", 40 * MS), ("supervisor (pid 1)", "crash", 60 * MS)]


def test_a_process_that_is_named_by_its_logs_is_found_by_them(draw: Draw) -> None:
    """The supervisor knows which logs a process wrote, also one after an exec; those are believed before any pid."""
    crash = span(1, 9, 12, name="crash", **{"process.pid": 7, "process.signal": "SIGSEGV"})
    ended = span(2, 20, 20, name="exit", **{"process.pid": 8, "process.exit.code": 3})
    for told, logs in ((crash, ("before", "after", "unknown")), (ended, ("child",))):
        names = told[0].attributes.add(key="fencepost.producers").value.array_value.values
        for log in logs:
            names.add(string_value=log)
    drawing = draw(
        process("supervisor", crash, ended, scope="fencepost.supervisor", **{"process.pid": 1}),
        process("before", span(11, 0, 5)),
        process("after", span(12, 6, 9)),
        process("other", span(13, 7, 9), **{"process.pid": 7}),
        process("child", span(14, 8, 9), **{"host.name": "container"}),
    )
    shown = [(drawing.processes[one["pid"]].split()[0], one["name"], one["time"]) for one in drawing.instants]
    assert shown == [("after", "crash SIGSEGV", 12 * MS), ("child", "exit 3", 20 * MS)]


def test_gaps_are_shown_where_they_are_known_to_be(recordings: Path) -> None:
    """At their process and time; the others are told in otherData, as all are."""
    recording = sealed(recordings, (process("a", span(1, 0, 1)),))
    gaps = [
        {"cause": "torn_tail", "producer": "a", "since_unix_nano": BASE + 5 * MS, "detail": "cut"},
        {"cause": "write_failed", "producer": "a", "until_unix_nano": BASE - 5},
        {"cause": "refused", "since_unix_nano": BASE},
        {"cause": "sampled", "producer": "a"},
        {"cause": "poison_span", "producer": "nobody", "since_unix_nano": BASE},
    ]
    whole = [{**dict.fromkeys(schema.GAPS.names), **gap} for gap in gaps]
    recording._tables["gaps"] = pa.Table.from_pylist(whole, schema=schema.GAPS)
    content = perfetto(recording)
    shown = [(one["name"], one["time"]) for one in drawn(content).instants]
    assert shown == [("gap: write_failed", 0), ("gap: torn_tail", 5 * MS)]
    assert len(json.loads(content)["otherData"]["recording"][0]["fencepost.recording.gaps"]) == 5


def test_a_span_without_a_start_or_with_its_end_before_it_disturbs_no_other(draw: Draw) -> None:
    """It is drawn at the beginning, or without a length, and says so."""
    nowhere, backwards = span(1, 0, 5)[0], span(2, 10, 4)
    nowhere.start_time_unix_nano = 0
    drawing = draw(process("a", (nowhere, True), backwards, span(3, 20, 21)))
    assert (at(drawing, "s1").start, drawing.base) == (0, BASE + 10 * MS)
    assert (at(drawing, "s2").start, at(drawing, "s2").end) == (0, 0)
    assert at(drawing, "s2").event["args"]["ended_before_it_started_ns"] == 6 * MS
    assert at(drawing, "s3").start == 10 * MS


@settings(max_examples=30)
@given(
    keys=st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 5), st.integers(-(2**63), 2**63 - 1)), unique=True),
    size=st.integers(0, 300_000),
    run_bytes=st.sampled_from([1, 500, 2000, 10**9]),
)
def test_what_does_not_fit_into_memory_is_sorted_all_the_same(
    keys: list[tuple[int, int, int]], size: int, run_bytes: int
) -> None:
    """By one run in memory, by many on disk, whatever an entry's size."""
    data = {key: repr(key).encode() * (1 + size // 1000 if number == 1 else 1) for number, key in enumerate(keys)}
    with Ordered(run_bytes=run_bytes) as ordered:
        for key in keys:
            ordered.add(key, data[key])
        assert list(ordered) == [data[key] for key in sorted(keys)]


def test_a_full_disk_while_sorting_is_said(tmp_path: Path) -> None:
    """In one sentence, and nothing is left."""
    with Ordered(tmp_path / "none", run_bytes=1) as ordered, pytest.raises(StorageError, match="cannot sort in"):
        ordered.add((1, 2, 3), b"x")
    with Ordered(tmp_path, run_bytes=1) as ordered:
        ordered.add((1, 2, 3), b"x")
        assert list(tmp_path.iterdir()) == []
