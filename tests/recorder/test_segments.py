"""A log in several segments is one log: nothing is lost where one ends, and a missing one shows."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import Recording, begin, open_recording, seal, segment, wal, writer
from fencepost_recorder.logs import list_logs
from fencepost_recorder.wal import Ending, Frame, FrameType, Header, encode_frame, encode_header, segment_name
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.test"
SEGMENT_BYTES = 4096
[DEMO] = (Path(__file__).parents[2] / "postmortems" / "001-demo" / "evidence" / "recorded").iterdir()


def span(number: int, end: int = 20) -> bytes:
    made = Span(trace_id=(1).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"span {number}")
    made.start_time_unix_nano, made.end_time_unix_nano = 10, end
    return made.SerializeToString()


def resource(name: str) -> bytes:
    made = ResourceSpans()
    made.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=name)))
    return made.SerializeToString()


def scope(name: str) -> bytes:
    made = ScopeSpans()
    made.scope.name = name
    return made.SerializeToString()


def record(writer: LogWriter, spans: range, ref: int | None = None) -> int:
    """Start and end spans under a scope; the scope's number."""
    if ref is None:
        ref = writer.append(FrameType.SCOPE, scope("lab"), writer.append(FrameType.RESOURCE, resource("shop")))
    for number in spans:
        writer.append(FrameType.START, span(number, end=0), ref)
        writer.append(FrameType.END, span(number), ref)
    return ref


def segmented(directory: Path, spans: int = 100) -> LogWriter:
    made = LogWriter(directory / "wal", producer="p", segment_bytes=SEGMENT_BYTES)
    record(made, range(1, spans + 1))
    return made


def frames(path: Path) -> list[Frame]:
    reader = wal.open_log(path)
    with reader.stream:
        found = list(reader.frames())
    assert reader.ending is Ending.CLEAN
    assert reader.breaks == []
    return found


def segments(directory: Path) -> list[Path]:
    return [log.path for log in list_logs(directory / "wal")]


def gaps(recording: Recording) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = recording.gaps().to_pylist()
    return found


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "segments")


@pytest.fixture
def closed(directory: Path) -> Iterator[Path]:
    """A closed log of many segments."""
    made = segmented(directory)
    made.close()
    assert len(segments(directory)) > 4
    yield directory


def test_numbers_go_on_from_segment_to_segment_and_none_is_larger_than_the_limit(closed: Path) -> None:
    numbers: list[int] = []
    for path in segments(closed):
        assert path.stat().st_size <= SEGMENT_BYTES
        found = frames(path)
        last = path == segments(closed)[-1]
        assert found[-1].type is (FrameType.CLOSE if last else FrameType.NEXT)
        numbers += [frame.sequence for frame in found if frame.type is not FrameType.NEXT]
        if not last:
            assert found[-1].sequence == numbers[-1] + 1
    assert numbers == list(range(len(numbers)))


def test_a_segment_is_whole_in_itself(closed: Path) -> None:
    for path in segments(closed):
        known = {frame.sequence: frame for frame in frames(path)}
        for frame in known.values():
            if frame.type in (FrameType.START, FrameType.END):
                assert known[frame.ref].payload == scope("lab")
                assert known[known[frame.ref].ref].payload == resource("shop")


def test_a_log_in_segments_is_the_recording_that_one_file_would_be(closed: Path, recordings: Path) -> None:
    other = begin(recordings, "whole")
    one = LogWriter(other / "wal", producer="p")
    record(one, range(1, 101))
    one.close()
    known = ("name", "span_id", "service_name", "scope_name", "duration_time_unix_nano", "producer")
    split, whole = (seal(path, tool_version=VERSION) for path in (closed, other))
    assert split.spans().select(known).equals(whole.spans().select(known))
    assert (gaps(split), gaps(whole)) == ([], [])
    [producer] = split.manifest.producers
    assert (producer.ended, producer.last_seq) == ("closed", producer.frames - 1)


def test_a_segment_that_was_ended_is_unlocked_and_never_changes_again(directory: Path) -> None:
    made = segmented(directory)
    *ended, present = segments(directory)
    before = [path.read_bytes() for path in ended]
    record(made, range(1000, 1200))
    assert [path.read_bytes() for path in ended] == before
    assert [log.locked_now for log in list_logs(directory / "wal")] == [False] * (len(segments(directory)) - 1) + [True]
    assert present not in (ended, made.path)


@pytest.mark.parametrize("which", [0, 2, -2])
def test_a_missing_segment_is_a_gap_of_exactly_its_numbers(closed: Path, which: int) -> None:
    path = segments(closed)[which]
    numbers = [frame.sequence for frame in frames(path) if frame.type is not FrameType.NEXT]
    path.unlink()
    [gap] = gaps(seal(closed, tool_version=VERSION))
    assert (gap["cause"], gap["first_seq"], gap["last_seq"], gap["lost"]) == (
        "sequence_break",
        numbers[0],
        numbers[-1],
        len(numbers),
    )
    assert 10**18 < gap["since_unix_nano"] <= gap["until_unix_nano"]
    assert gap["detail"] == "a segment of the log is missing"


def test_a_missing_last_segment_is_a_gap_without_an_end(closed: Path) -> None:
    path = segments(closed)[-1]
    first = frames(path)[0].sequence
    path.unlink()
    recording = seal(closed, tool_version=VERSION)
    [gap] = gaps(recording)
    assert (gap["cause"], gap["first_seq"], gap["last_seq"], gap["lost"]) == ("torn_tail", first, None, None)
    assert recording.manifest.producers[0].ended == "damaged"


@pytest.mark.parametrize("at", [20, 2000])
def test_a_damaged_segment_in_the_middle_is_a_gap_with_both_ends(closed: Path, at: int) -> None:
    path = segments(closed)[1]
    whole = [frame.sequence for frame in frames(path) if frame.type is not FrameType.NEXT]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    recording = seal(closed, tool_version=VERSION)
    [gap] = gaps(recording)
    assert (gap["cause"], gap["last_seq"]) == ("sequence_break", whole[-1])
    assert whole[0] <= gap["first_seq"] < whole[-1]
    assert gap["lost"] == gap["last_seq"] - gap["first_seq"] + 1
    assert "checksum" in gap["detail"]
    assert recording.manifest.producers[0].ended == "closed"


def test_a_segment_that_was_only_about_to_begin_when_its_process_was_killed_is_no_gap(directory: Path) -> None:
    made = segmented(directory)
    made.forget()  # as a kill leaves it: unlocked, neither closed nor ended
    (directory / "wal" / segment_name("p", 99)).write_bytes(b"FPWAL")
    recording = seal(directory, tool_version=VERSION)
    assert (gaps(recording), recording.manifest.spans) == ([], 100)
    assert recording.manifest.producers[0].ended == "died"


def test_a_last_segment_that_cannot_be_read_is_a_gap_without_an_end(closed: Path) -> None:
    (closed / "wal" / segment_name("p", 99)).write_bytes(b"noise" * 10)
    [gap] = gaps(seal(closed, tool_version=VERSION))
    assert (gap["cause"], gap["producer"], gap["lost"]) == ("torn_tail", "p", None)


def test_where_no_segment_can_be_begun_the_present_one_grows_and_nothing_is_lost(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = segment.Segment._write_header, [0]

    def full(self: Any, log: Any) -> None:
        tries[0] += 1
        if tries[0] in (2, 3):
            raise OSError(errno.ENOSPC, "full")
        real(self, log)

    monkeypatch.setattr(writer, "_PATIENCE_BYTES", 1000)
    monkeypatch.setattr(segment.Segment, "_write_header", full)
    segmented(directory).close()
    sizes = [path.stat().st_size for path in segments(directory)]
    assert SEGMENT_BYTES + 1000 < sizes[0] < SEGMENT_BYTES + 3000
    recording = seal(directory, tool_version=VERSION)
    assert (gaps(recording), recording.manifest.spans) == ([], 100)


@pytest.mark.parametrize("failure", ["error", "half"])
def test_half_a_last_frame_of_a_segment_does_not_stay(
    directory: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    real = os.write

    def broken(descriptor: int, data: bytes) -> int:
        if data[8] == FrameType.NEXT:
            if failure == "error":
                raise OSError(errno.EIO, "broken")
            return real(descriptor, data[:7])
        return real(descriptor, data)

    monkeypatch.setattr(writer, "_write", broken)
    segmented(directory).close()
    recording = seal(directory, tool_version=VERSION)
    assert (gaps(recording), recording.manifest.spans) == ([], 100)


@pytest.mark.parametrize("moment", ["before the header", "after the header", "before the last frame"])
def test_a_signal_handler_that_records_while_a_segment_begins_loses_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    made = LogWriter(directory / "wal", producer="p", segment_bytes=SEGMENT_BYTES)
    ref = record(made, range(0))
    header, write, handled = segment.Segment._write_header, os.write, [0]

    def handler() -> None:
        handled[0] += 1
        for number in range(1000 + 3 * handled[0], 1003 + 3 * handled[0]):
            made.append(FrameType.WHOLE, span(number), ref)

    def write_header(self: Any, log: Any) -> None:
        if moment == "before the header":
            handler()
        header(self, log)
        if moment == "after the header":
            handler()

    def write_frame(descriptor: int, data: bytes) -> int:
        if moment == "before the last frame" and data[8] == FrameType.NEXT:
            handler()
        return write(descriptor, data)

    monkeypatch.setattr(segment.Segment, "_write_header", write_header)
    monkeypatch.setattr(writer, "_write", write_frame)
    record(made, range(1, 101), ref)
    made.close()
    recording = seal(directory, tool_version=VERSION)
    assert handled[0] > 3
    assert (gaps(recording), recording.manifest.spans) == ([], 100 + 3 * handled[0])
    assert set(recording.spans()["scope_name"].to_pylist()) == {"lab"}


def test_a_loss_at_the_end_of_a_segment_is_told_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LogWriter(directory / "wal", producer="p", segment_bytes=SEGMENT_BYTES)
    ref = record(made, range(1, 11))
    header = segment.Segment._write_header

    def write_header(self: Any, log: Any) -> None:
        made.lose()
        header(self, log)

    monkeypatch.setattr(segment.Segment, "_write_header", write_header)
    while made.path.name == "p.wal":
        record(made, range(50, 51), ref)
    made.forget()
    [gap] = gaps(seal(directory, tool_version=VERSION))
    assert (gap["cause"], gap["lost"], gap["first_seq"]) == ("write_failed", 1, gap["last_seq"])


def test_what_a_frame_refers_to_is_forgotten_rather_than_kept_without_bounds(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_MAX_CONTEXTS", 10)
    made = LogWriter(directory / "wal", producer="p", segment_bytes=SEGMENT_BYTES)
    for number in range(30):
        record(made, range(number * 10, number * 10 + 3))
    assert len(made._contexts._frames) <= 10
    made.close()
    recording = seal(directory, tool_version=VERSION)
    assert set(recording.spans()["scope_name"].to_pylist()) == {"lab"}


@pytest.mark.parametrize("failing", [FrameType.RESOURCE, FrameType.SCOPE])
def test_a_resource_that_could_not_be_written_again_is_tried_again_with_the_next_span(
    directory: Path, monkeypatch: pytest.MonkeyPatch, failing: FrameType
) -> None:
    made = LogWriter(directory / "wal", producer="p", segment_bytes=SEGMENT_BYTES)
    ref = record(made, range(1, 2))
    real, failures = os.write, [errno.EIO]

    def broken(descriptor: int, data: bytes) -> int:
        if data[8] == failing and failures:
            raise OSError(failures.pop(), "broken")
        return real(descriptor, data)

    monkeypatch.setattr(writer, "_write", broken)
    record(made, range(2, 101), ref)
    made.close()
    recording = seal(directory, tool_version=VERSION)
    assert [(gap["cause"], gap["lost"]) for gap in gaps(recording)] == [("write_failed", 1)]
    assert failures == []
    assert recording.spans()["service_name"].null_count <= 1
    assert recording.spans()["scope_name"].null_count <= 1


def test_a_log_of_the_first_version_is_still_read(directory: Path) -> None:
    text = encode_header(Header("p", pid=1, started_unix_nano=5, locked=True))
    size = struct.unpack_from("<H", text, 10)[0]
    json = text[16 : 16 + size].replace(b'"begun_unix_nano": 5, ', b"").replace(b', "segment": 0', b"")
    json = json.replace(b'"first_seq": 0, ', b"")
    assert b"segment" not in json
    head = wal._PREAMBLE.pack(wal.MAGIC, 1, len(json), wal._header_checksum(1, json)) + json + bytes(wal.LOSS_BYTES)
    data = head + encode_frame(FrameType.WHOLE, 0, 6, 0, span(1)) + encode_frame(FrameType.CLOSE, 1, 7, 0, b"{}")
    (directory / "wal" / "p.wal").write_bytes(data)
    recording = seal(directory, tool_version=VERSION)
    assert (recording.manifest.spans, gaps(recording)) == (1, [])


def test_a_recording_of_the_first_version_still_opens_and_keeps_its_hash() -> None:
    recording = open_recording(DEMO)
    assert recording.manifest.format_version == 1
    assert recording.spans().num_rows == recording.manifest.spans
    assert recording.manifest.to_bytes() == (DEMO / "manifest.json").read_bytes()


def request(instance: str, numbers: range) -> bytes:
    made = ExportTraceServiceRequest()
    one = made.resource_spans.add()
    one.resource.attributes.append(KeyValue(key="service.instance.id", value=AnyValue(string_value=instance)))
    inner = one.scope_spans.add()
    inner.scope.name = "client"
    inner.spans.extend(Span.FromString(span(number)) for number in numbers)
    return made.SerializeToString()


def received(directory: Path, *payloads: bytes) -> Path:
    head = Header("receiver-1", kind="receiver", pid=7, host="h", started_unix_nano=10**18, locked=True)
    data, ordinal = encode_header(head), 0
    for sequence, payload in enumerate(payloads):
        data += encode_frame(FrameType.REQUEST, sequence, 10**18 + sequence, ordinal, payload)
        ordinal += 3
    data += encode_frame(FrameType.CLOSE, len(payloads), 10**18 + 9, 0, b"{}")
    (directory / "wal" / "receiver-1.wal").write_bytes(data)
    return directory


def test_a_received_request_is_the_spans_in_it_numbered_by_the_receiver(directory: Path) -> None:
    recording = seal(received(directory, request("a", range(1, 4)), request("b", range(4, 7))), tool_version=VERSION)
    rows = recording.spans().to_pylist()
    assert [row["producer_seq"] for row in rows] == [row["producer_end_seq"] for row in rows] == list(range(6))
    assert [row["producer"] for row in rows] == ["a"] * 3 + ["b"] * 3
    assert [row["received_time_unix_nano"] - 10**18 for row in rows] == [0] * 3 + [1] * 3
    assert {row["scope_name"] for row in rows} == {"client"}


def test_what_a_client_never_sent_is_unknown_and_said_once(directory: Path) -> None:
    payloads = (request("a", range(1, 4)), request("b", range(4, 7)), request("a", range(7, 10)))
    recording = seal(received(directory, *payloads), tool_version=VERSION)
    assert [(gap["producer"], gap["cause"], gap["lost"]) for gap in gaps(recording)] == [
        ("a", "unsequenced", None),
        ("b", "unsequenced", None),
    ]
    found = {one.producer: (one.ended, one.frames, one.durability) for one in recording.manifest.producers}
    assert found == {
        "a": ("received", 6, "survives power loss"),
        "b": ("received", 3, "survives power loss"),
        "receiver-1": ("closed", 4, "survives power loss"),
    }
    assert recording.manifest.durability == "survives power loss"


def test_a_recording_is_as_durable_as_the_weakest_of_its_producers(directory: Path) -> None:
    LogWriter(directory / "wal").close()
    recording = seal(received(directory, request("a", range(1, 4))), tool_version=VERSION)
    assert recording.manifest.durability == "survives process kill"


def test_a_request_that_is_sent_again_is_kept_once(directory: Path) -> None:
    recording = seal(received(directory, request("a", range(1, 4)), request("a", range(1, 4))), tool_version=VERSION)
    assert (recording.manifest.spans, recording.manifest.duplicates) == (3, 3)


def test_a_request_that_cannot_be_read_is_a_gap_of_unknown_size_and_the_rest_is_kept(directory: Path) -> None:
    recording = seal(received(directory, b"\xff" * 9, request("a", range(1, 4))), tool_version=VERSION)
    assert recording.manifest.spans == 3
    [gap] = [gap for gap in gaps(recording) if gap["cause"] == "poison_span"]
    assert (gap["producer"], gap["since_unix_nano"], gap["until_unix_nano"], gap["lost"]) == (None, None, 10**18, None)


def test_numbers_that_come_again_after_an_abandoned_segment_are_no_gap(directory: Path) -> None:
    """A receiver whose disk failed begins a new segment at the first frame that nobody was promised."""
    first = Header("r", kind="receiver", started_unix_nano=10**18, locked=True)
    second = Header("r", kind="receiver", started_unix_nano=10**18, locked=True, segment=1, first_seq=1)
    data = encode_header(first)
    data += encode_frame(FrameType.REQUEST, 0, 10**18, 0, request("a", range(1, 4)))
    data += encode_frame(FrameType.REQUEST, 1, 10**18, 3, request("a", range(4, 7)))
    data += encode_frame(FrameType.REQUEST, 2, 10**18, 6, request("a", range(7, 10)))[:50]
    (directory / "wal" / "r.wal").write_bytes(data)
    data = encode_header(second)
    data += encode_frame(FrameType.REQUEST, 1, 10**18, 3, request("a", range(4, 7)))
    data += encode_frame(FrameType.CLOSE, 2, 10**18, 0, b"{}")
    (directory / "wal" / "r.1.wal").write_bytes(data)
    recording = seal(directory, tool_version=VERSION)
    assert [gap["cause"] for gap in gaps(recording)] == ["unsequenced"]
    assert (recording.manifest.spans, recording.manifest.duplicates) == (6, 3)


def test_a_segment_under_another_name_is_not_believed(closed: Path) -> None:
    paths = segments(closed)
    (closed / "wal" / "q.1.wal").write_bytes(paths[1].read_bytes())
    found = {gap["producer"]: gap["cause"] for gap in gaps(seal(closed, tool_version=VERSION))}
    assert found == {"q": "torn_tail"}


def test_a_closed_log_that_is_written_again_goes_on(directory: Path) -> None:
    made = segmented(directory, 10)
    made.close()
    record(made, range(200, 210))
    with made.path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    made.close()
    recording = seal(directory, tool_version=VERSION)
    assert (gaps(recording), recording.manifest.spans) == ([], 20)
