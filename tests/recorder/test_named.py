"""Clients name as many producers as they like: a recording stays one that can be read, and says of whom it speaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fencepost_recorder import Recording, begin, gaps, named, parts, seal, stage
from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.gaps import Gap, Gaps


def request(client: int, *, dropped: int = 0, sampled: bool = False) -> bytes:
    made = ExportTraceServiceRequest()
    told = made.resource_spans.add()
    told.resource.dropped_attributes_count = dropped
    name = told.resource.attributes.add(key="service.instance.id")
    name.value.string_value = f"client-{client}"
    span = told.scope_spans.add().spans.add(trace_id=bytes(15) + b"\1", span_id=client.to_bytes(8, "big"), name="work")
    span.start_time_unix_nano = span.end_time_unix_nano = 1_800_000_000_000_000_000 + client
    span.trace_state = "ot=th:8" if sampled else ""
    return made.SerializeToString()


def recorded(folder: Path, *requests: bytes, staged: bool = False) -> Recording:
    directory = begin(folder, "named")
    log = CommitLog(directory / "wal", producer="receiver", segment_bytes=400)
    for one in requests:
        log.append([one], 1)
    log.close()
    if staged:
        stage(directory)
    return seal(directory, tool_version="test")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "MAX_NAMED", 3)
    monkeypatch.setattr(parts, "MAX_BOUNDS", 2)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("staged", [False, True])
def test_of_many_clients_some_are_named_and_the_others_counted_together(tmp_path: Path, staged: bool) -> None:
    found = recorded(tmp_path, *(request(one) for one in (1, 2, 3, 4, 5, 1)), request(6), staged=staged)
    received = {one.producer: one.frames for one in found.manifest.producers if one.ended == "received"}
    assert received == {"client-1": 2, "client-2": 1, "client-3": 1, "(others)": 3}
    assert {gap["producer"] for gap in found.gaps().to_pylist()} == {"client-1", "client-2", "client-3", None}
    # The spans themselves say whose they are.
    assert len(set(found.spans()["producer"].to_pylist())) == 6
    assert all(len(one.sequences) <= 2 for one in found.manifest.files)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("staged", [False, True])
def test_what_clients_leave_out_is_a_gap_of_anybody_where_they_are_not_named(tmp_path: Path, staged: bool) -> None:
    requests = (request(one, dropped=one, sampled=True) for one in range(1, 7))
    found = recorded(tmp_path, *requests, staged=staged)
    for cause in ("sampled", "dropped_attributes"):
        rows = [gap for gap in found.gaps().to_pylist() if gap["cause"] == cause]
        assert [gap["producer"] for gap in rows] == [None, "client-1", "client-2", "client-3"], cause


def test_the_rows_of_gaps_are_bounded_and_no_gap_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_ROWS", 4)
    held = Gaps()
    for number in range(20):
        held.add(Gap("dropped_events", f"p{number % 5}", number, number, number, number, 1, "a span had more"))
    assert len(held) == len(list(held)) == 5
    assert sum(gap.lost or 0 for gap in held) == 20
    others = next(iter(held))
    assert (others.producer, others.first_seq, others.last_seq) == (None, None, None)
    assert (others.since_unix_nano, others.until_unix_nano) == (4, 19)


def test_a_gap_that_was_merged_into_one_of_anybody_is_taken_back_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_ROWS", 1)
    held, one = Gaps(), Gap("dropped_events", "q", 7, 7, 7, 7, 1, "a span had more")
    held.add(Gap("torn_tail", "p"))
    held.add(one)
    assert len(held) == 2
    held.add(one)
    held.remove(one)
    assert [(gap.producer, gap.lost) for gap in held] == [(None, 1), ("p", None)]
