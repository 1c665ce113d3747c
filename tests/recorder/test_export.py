"""A recording that went out as OTLP and came back is the same one, but for what OTLP cannot say; and it goes out
whole or not at all."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from recorder.random_recordings import RECORDINGS, Process, sealed, write_log

from fencepost_recorder import (
    ExportExists,
    ExportFailed,
    Recording,
    RecordingDamaged,
    StorageError,
    begin,
    durable,
    export_recording,
    import_otlp,
    schema,
    seal,
)
from fencepost_recorder.exporting import otlp
from fencepost_recorder.exporting.companion import companion_in
from fencepost_recorder.exporting.output import Output
from fencepost_recorder.wire import read_varint

OTLP = ("otlp-json", "otlp")
# What a file cannot carry: the numbers of frames, and when they were written.
UNSAID = ("producer_seq", "producer_end_seq", "received_time_unix_nano")


def exported(recording: Recording, file_format: str = "otlp-json", **options: Any) -> bytes:
    stream = io.BytesIO()
    export_recording(recording, stream, file_format, **options)
    return stream.getvalue()


def imported(folder: Path, content: bytes, recording_id: str = "again") -> Recording:
    file = folder / f"{recording_id}.file"
    file.write_bytes(content)
    return import_otlp([file], folder / "imported", recording_id, tool_version="0.0.test")


def rows(recording: Recording) -> list[dict[str, Any]]:
    """The spans by producer, in its order; resources without what an export adds to them."""
    found = recording.spans().to_pylist()
    for row in found:
        for name in UNSAID:
            del row[name]
        resource = json.loads(row["resource_attributes"])
        resource.pop("fencepost.producer", None)
        row["resource_attributes"] = json.dumps(resource)
    return sorted(found, key=lambda row: str(row["producer"]))


def messages(content: bytes, file_format: str) -> Iterator[ExportTraceServiceRequest]:
    """What the official classes read in a file."""
    if file_format == "otlp-json":
        for line in content.splitlines():
            # Protobuf's own JSON has base64 where OTLP has hex.
            yield json_format.ParseDict(with_base64_ids(json.loads(line)), ExportTraceServiceRequest())
        return
    at = 0
    while at < len(content):
        size, at = read_varint(content, at)
        yield ExportTraceServiceRequest.FromString(content[at : at + size])
        at += size


def spans_in(content: bytes, file_format: str) -> list[Span]:
    return [
        span
        for message in messages(content, file_format)
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def check_round_trip(folder: Path, told: tuple[Process, ...]) -> None:
    """Every column of every span, each producer's order, what never ended, and every gap but those of sequence."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        recording = sealed(Path(name, "recordings"), told)
        reference = spans_in(exported(recording, "otlp"), "otlp")
        assert len(reference) == recording.manifest.spans
        for file_format in OTLP:
            content = exported(recording, file_format)
            assert content == exported(recording, file_format)
            assert spans_in(content, file_format) == reference
            if reference:
                check_import(recording, imported(Path(name), content, file_format))


def check_import(recording: Recording, again: Recording) -> None:
    assert rows(again) == rows(recording)
    assert again.manifest.imported is not None
    assert again.manifest.imported["files"][0]["exported"] == {recording.id: recording.manifest.spans}
    assert again.manifest.imported["poison"] == 0
    found = [loss for loss in losses(again) if "unsequenced" not in loss]
    assert found == losses(recording)


def losses(recording: Recording) -> list[str]:
    """Cause, producer and count of each gap. Which one of two spans with one id is the other's double is a matter of
    their order, so whose it is does not count there."""
    rows = recording.gaps().to_pylist()
    told = [(gap["cause"], gap["cause"] == "conflicting_duplicate" or gap["producer"], gap["lost"]) for gap in rows]
    return sorted(map(str, told))


RANDOM = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(RANDOM, max_examples=8)
@given(told=RECORDINGS)
def test_what_went_out_comes_back(tmp_path: Path, told: tuple[Process, ...]) -> None:
    """Random recordings, in both encodings, which say the same to protobuf's own classes."""
    check_round_trip(tmp_path, told)


@pytest.mark.campaign
@settings(RANDOM, max_examples=int(400 * float(os.environ.get("FENCEPOST_CAMPAIGN_SCALE", "1"))))
@given(told=RECORDINGS)
def test_what_went_out_comes_back_far_and_wide(tmp_path: Path, told: tuple[Process, ...]) -> None:
    """The same, other ones each time."""
    check_round_trip(tmp_path, told)


def test_what_a_span_dropped_is_told_once_though_it_ended_before_it_began(tmp_path: Path) -> None:
    """Such a span's loss has no bounds in time, like that of a resource, which only the export itself can tell."""
    backwards = span(1, end=9)
    backwards.dropped_links_count = 3
    check_round_trip(tmp_path, (process("a", (backwards, True)),))


def with_base64_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [with_base64_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_base64_ids(one) for key, one in value.items()}
    for key in ("traceId", "spanId", "parentSpanId"):
        if isinstance(changed.get(key), str):
            changed[key] = base64.b64encode(bytes.fromhex(changed[key])).decode()
    return changed


def process(name: str, *told: tuple[Span, bool], resource: ResourceSpans | None = None) -> Process:
    return Process(name, resource or ResourceSpans(), [(ScopeSpans(), span, ended) for span, ended in told])


def span(number: int = 1, end: int = 20, **attributes: str) -> Span:
    made = Span(trace_id=(1).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"span {number}")
    made.start_time_unix_nano, made.end_time_unix_nano = 10, end
    made.attributes.extend(KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items())
    return made


@pytest.fixture
def small(recordings: Path) -> Recording:
    """Two processes; a span of the second never ended."""
    return sealed(recordings, (process("a", (span(1), True)), process("b", (span(2), True), (span(3), False))))


@pytest.mark.parametrize("file_format", OTLP)
def test_a_span_that_never_ended_goes_out_marked_and_comes_back_without_an_end(
    small: Recording, tmp_path: Path, file_format: str
) -> None:
    """To others it is a span of no length, which none of them chokes on; to us it has not ended."""
    content = exported(small, file_format)
    out = {span.name: span for span in spans_in(content, "otlp")} if file_format == "otlp" else {}
    for name, span in out.items():
        marks = [(pair.key, pair.value.bool_value) for pair in span.attributes]
        assert marks == ([("fencepost.never_ended", True)] if name == "span 3" else [])
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
    again = {row["name"]: row for row in imported(tmp_path, content).spans().to_pylist()}
    assert [name for name, row in again.items() if row["duration_time_unix_nano"] is None] == ["span 3"]
    assert again["span 3"]["span_attributes"] == "{}"


def test_a_users_own_attribute_of_that_name_ends_no_span(recordings: Path, tmp_path: Path) -> None:
    """It goes out as text, which marks nothing."""
    mine = span(1)
    mine.attributes.append(KeyValue(key="fencepost.never_ended", value=AnyValue(bool_value=True)))
    recording = sealed(recordings, (process("a", (mine, True)),))
    for file_format in OTLP:
        [row] = imported(tmp_path, exported(recording, file_format), file_format).spans().to_pylist()
        assert row["duration_time_unix_nano"] == 10
        assert json.loads(row["span_attributes"]) == {"fencepost.never_ended": "True"}


def test_processes_that_say_the_same_of_themselves_stay_two(small: Recording, tmp_path: Path) -> None:
    """Their resources are equal, so the export names them; where a resource does so itself, nothing is added."""
    content = exported(small)
    assert [row["producer"] for row in rows(imported(tmp_path, content))] == ["a", "b", "b"]
    named = ResourceSpans()
    named.resource.attributes.append(KeyValue(key="service.instance.id", value=AnyValue(string_value="a")))
    recording = sealed(small.directory.parent, (process("a", (span(), True), resource=named),), "named")
    assert b"fencepost.producer" not in exported(recording)


def test_what_is_missing_from_a_recording_is_known_of_its_import(recordings: Path, tmp_path: Path) -> None:
    """Also of a process that has no span in it."""
    directory = begin(recordings, "cut")
    (directory / "wal" / "gone.wal").write_bytes(b"no log at all")
    write_log(directory / "wal", process("a", (span(), True)))
    recording = seal(directory, tool_version="1")
    [gap] = [gap for gap in recording.gaps().to_pylist() if gap["cause"] == "torn_tail"]
    assert gap["producer"] == "gone"
    for file_format in OTLP:
        again = imported(tmp_path, exported(recording, file_format), file_format)
        found = [one for one in again.gaps().to_pylist() if one["cause"] == "torn_tail"]
        assert found == [{**gap, "first_seq": None}]


def test_many_gaps_go_out_in_lines_of_bounded_length(recordings: Path, tmp_path: Path) -> None:
    """And all of them come back."""
    recording = sealed(recordings, (process("a", (span(), True)),))
    gaps = [{"cause": "torn_tail", "producer": f"p{number}", "detail": "x" * 400, "lost": 1} for number in range(2000)]
    whole = [{**dict.fromkeys(("first_seq", "last_seq", "since_unix_nano", "until_unix_nano")), **gap} for gap in gaps]
    recording._tables["gaps"] = pa.Table.from_pylist(whole, schema=schema.GAPS)
    content = exported(recording)
    assert max(map(len, content.splitlines())) < 1024**2
    again = imported(tmp_path, content)
    assert sum(gap["cause"] == "torn_tail" for gap in again.gaps().to_pylist()) == 2000


def test_spans_that_are_missing_from_the_file_are_a_gap(small: Recording, tmp_path: Path) -> None:
    """A file that was cut at the end of a line looks whole; but the export said how many spans it has."""
    recording = sealed(
        small.directory.parent, (process("a", *((span(number), True) for number in range(1, 1301))),), "long"
    )
    lines = exported(recording).splitlines(keepends=True)
    assert len(lines) == 4
    again = imported(tmp_path, b"".join(lines[:-1]))
    [gap] = [gap for gap in again.gaps().to_pylist() if gap["cause"] == "not_in_file"]
    assert (gap["producer"], gap["lost"]) == (None, 1300 - 1024)
    assert "export of long" in gap["detail"]
    for parts in ([lines[0]], lines[:1] * 2 + lines[1:]):
        if len(parts) > 1:
            twice = imported(tmp_path, b"".join(parts), "twice")
            assert {gap["cause"] for gap in twice.gaps().to_pylist()} == {"unsequenced"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["torn_tail", "sampled"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cause", "producer", "since_unix_nano", "until_unix_nano", "lost", "detail", "other"]),
            inner,
            max_size=4,
        )
    ),
)


@settings(max_examples=100)
@given(said=JSON | st.lists(JSON, max_size=3))
def test_whatever_somebody_else_puts_there_as_gaps_is_read_or_passed_over(said: Any) -> None:
    """It was written by anybody: nothing in it raises, and no impossible gap comes of it."""
    base = {"fencepost.recording.id": "x", "fencepost.recording.spans": 3, "fencepost.recording.gaps": said}
    companion = companion_in(base)
    assert companion is not None
    for gap in companion.gaps:
        assert gap.lost is None or 0 <= gap.lost < 2**63
    assert companion_in({"fencepost.recording.id": 7, "fencepost.recording.spans": 3}) is None
    assert companion_in({"fencepost.recording.id": "x", "fencepost.recording.spans": -1}) is None
    assert companion_in({"fencepost.recording.id": "x", "fencepost.recording.spans": True}) is None


def test_messages_stay_small_whatever_the_spans(recordings: Path) -> None:
    """No line is longer than what the Collector reads as one, but for a span that is so itself."""
    told = [(span(number, text="ü" * 4_000), True) for number in range(1, 200)]
    recording = sealed(recordings, (process("a", *told),))
    lines = exported(recording).splitlines()
    assert max(map(len, lines)) < otlp.MESSAGE_BYTES + 64 * 1024
    assert len(lines) > 3


@pytest.mark.parametrize("file_format", [*OTLP, "perfetto"])
def test_gzip_holds_the_same_bytes_each_time(small: Recording, file_format: str) -> None:
    """Neither time nor name are in it."""
    once, again = (exported(small, file_format, gzip=True) for _ in range(2))
    assert once == again
    assert gzip.decompress(once) == exported(small, file_format)


def test_a_file_is_its_owners_alone_and_there_is_nothing_else(small: Recording, tmp_path: Path) -> None:
    """0600 whatever the umask, and no temporary file stays."""
    folder = tmp_path / "out"
    folder.mkdir()
    before = os.umask(0)
    try:
        done = export_recording(small, folder / "x.jsonl")
    finally:
        os.umask(before)
    assert [path.name for path in folder.iterdir()] == ["x.jsonl"]
    status = (folder / "x.jsonl").stat()
    assert (status.st_mode & 0o777, status.st_nlink) == (0o600, 1)
    assert (done.spans, done.never_ended, done.bytes) == (3, 1, status.st_size)


def test_an_existing_file_is_only_replaced_by_force(small: Recording, tmp_path: Path) -> None:
    """Also one that appears while the export is under way."""
    file = tmp_path / "x.jsonl"
    file.write_text("mine")
    with pytest.raises(ExportExists, match="exists already"):
        export_recording(small, file)
    assert file.read_text() == "mine"
    export_recording(small, file, force=True)
    assert file.read_bytes() == exported(small)


def test_a_file_that_appears_meanwhile_is_kept(
    small: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's file is lost to a race, where links can be made and where they cannot."""
    file = tmp_path / "out" / "x.jsonl"
    file.parent.mkdir()
    real = Output.finish
    monkeypatch.setattr(Output, "finish", lambda self: (file.write_text("mine"), real(self)))
    with pytest.raises(ExportExists):
        export_recording(small, file)

    def no_links(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    file.unlink()
    with pytest.raises(ExportExists):
        export_recording(small, file)
    assert [path.name for path in file.parent.iterdir()] == ["x.jsonl"]
    assert file.read_text() == "mine"
    monkeypatch.setattr(Output, "finish", real)
    file.unlink()
    export_recording(small, file)
    assert [path.name for path in file.parent.iterdir()] == ["x.jsonl"]


def test_what_is_no_plain_file_is_refused_even_by_force(small: Recording, tmp_path: Path) -> None:
    """A device would be replaced, a link's target not meant, a folder lost."""
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (("link", "no plain file"), ("pipe", "no plain file"), ("", "no plain file")):
        with pytest.raises(ExportFailed, match=sentence):
            export_recording(small, tmp_path / name, force=True)
    with pytest.raises(ExportFailed, match="there is no folder"):
        export_recording(small, tmp_path / "none" / "x")
    with pytest.raises(ExportFailed, match="no file name"):
        export_recording(small, tmp_path / "a\0b")
    with pytest.raises(ExportFailed, match="'zip' is no format: there are otlp-json, otlp, perfetto"):
        export_recording(small, tmp_path / "x", "zip")
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_directory"])
def test_a_failing_disk_leaves_no_file_and_says_why(
    small: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Half an export is none."""

    def failing(*arguments: Any) -> None:
        if operation == "rename":
            raise durable.storage_error("rename to", arguments[1], OSError(28, "No space left on device"))
        if operation == "sync_directory":
            raise durable.storage_error("sync", arguments[0], OSError(28, "No space left on device"))
        raise OSError(28, "No space left on device")

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(durable, operation, failing)
    with pytest.raises(StorageError, match="the disk is full"):
        export_recording(small, folder / "x", force=True)
    assert [path.name for path in folder.iterdir()] == (["x"] if operation == "sync_directory" else [])


def test_an_interruption_leaves_no_file(small: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of it."""
    folder = tmp_path / "out"
    folder.mkdir()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_recording(small, folder / "x")
    assert list(folder.iterdir()) == []


def test_a_damaged_recording_is_not_exported(small: Recording, tmp_path: Path) -> None:
    """Its files are checked again when they are read."""
    file = next((small.directory / "spans").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for file_format in (*OTLP, "perfetto"):
        with pytest.raises(RecordingDamaged, match="hash does not match"):
            export_recording(small, tmp_path / "x", file_format)
    assert not (tmp_path / "x").exists()
