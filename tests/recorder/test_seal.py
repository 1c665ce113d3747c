"""Sealing loses nothing, whatever interrupts it, and says what was missing before it began."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fencepost_recorder import (
    InvalidRecordingId,
    RecorderError,
    RecordingDamaged,
    RecordingNotFound,
    RecordingSpanProcessor,
    RecordingUnsealed,
    StorageError,
    begin,
    durable,
    open_recording,
    recover,
    schema,
    seal,
    staging,
)
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.test"


def work(lab: Any, count: int = 4) -> None:
    for number in range(count):
        lab.tracer.start_span(f"done {number}", attributes={"number": number}).end()
    lab.tracer.start_span("open")


def payload(span_id: int, name: str = "s", end: int = 20, trace_id: int = 1, flags: int = 0) -> bytes:
    span = Span(trace_id=trace_id.to_bytes(16, "big"), span_id=span_id.to_bytes(8, "big"), name=name, flags=flags)
    span.start_time_unix_nano, span.end_time_unix_nano = 10, end
    return span.SerializeToString()


def log(recordings: Path, frames: list[tuple[FrameType, bytes]], name: str = "made") -> Path:
    directory = begin(recordings, name)
    writer = LogWriter(directory / "wal")
    for kind, data in frames:
        writer.append(kind, data)
    writer.close()
    return directory


def test_a_sealed_recording_has_its_tables_its_manifest_and_no_log(lab: Any) -> None:
    work(lab)
    recording = lab.seal()
    assert sorted(path.name for path in lab.directory.iterdir()) == ["gaps.parquet", "manifest.json", "spans"]
    assert recording.spans().schema.equals(schema.SPANS)
    assert recording.gaps().schema.equals(schema.GAPS)
    made = recording.manifest
    assert (made.id, made.spans, made.gaps, made.seed, made.commit) == ("lab", 5, 0, 7, "c0ffee")
    assert (made.tool_version, made.durability) == (VERSION, "survives process kill")
    [spans, _] = made.files
    assert spans.sequences == {lab.processor.producer: (2, 10)}
    written = json.loads((lab.directory / "manifest.json").read_text())
    assert written["sha256"] == made.sha256


def test_pages_carry_checksums_and_compress(lab: Any) -> None:
    work(lab)
    lab.seal()
    path = lab.directory / "spans" / "part-00000.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    damaged = bytearray(path.read_bytes())
    damaged[column.data_page_offset + 100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"CRC|checksum|corrupt"):
        pq.read_table(path, page_checksum_verification=True)


def test_sealing_again_changes_nothing(lab: Any) -> None:
    work(lab)
    first = lab.seal()
    before = (lab.directory / "manifest.json").read_bytes()
    second = seal(lab.directory, tool_version="other")
    assert (lab.directory / "manifest.json").read_bytes() == before
    assert second.spans().equals(first.spans())


def test_a_producer_that_still_lives_is_a_gap_from_its_last_frame_on(lab: Any) -> None:
    work(lab)
    recording = seal(lab.directory, tool_version=VERSION)
    assert recording.manifest.spans == 5
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["first_seq"], gap["last_seq"], gap["lost"]) == ("still_recording", 11, None, None)
    assert gap["since_unix_nano"] > 10**18
    assert gap["until_unix_nano"] is None
    assert recording.manifest.producers[0].ended == "still_recording"


def test_recovering_waits_for_the_producers_and_then_finishes(lab: Any) -> None:
    work(lab)
    with pytest.raises(RecorderError, match=f"process {os.getpid()} is still recording"):
        recover(lab.directory, tool_version=VERSION)
    with pytest.raises(RecordingUnsealed, match=r"stop the processes [^,]*, then seal it"):
        open_recording(lab.directory)
    lab.processor.shutdown()
    assert recover(lab.directory, tool_version=VERSION).manifest.spans == 5


def test_a_recording_without_a_single_producer_is_empty_but_whole(recordings: Path) -> None:
    recording = seal(begin(recordings, "empty"), tool_version=VERSION)
    assert (recording.spans().num_rows, recording.gaps().num_rows) == (0, 0)
    assert recording.spans().schema.equals(schema.SPANS)


def test_a_span_sent_twice_is_kept_once(recordings: Path) -> None:
    whole = [(FrameType.WHOLE, payload(1)), (FrameType.WHOLE, payload(2)), (FrameType.WHOLE, payload(1))]
    recording = seal(log(recordings, whole), tool_version=VERSION)
    assert recording.spans()["span_id"].to_pylist() == [f"{1:016x}", f"{2:016x}"]
    assert recording.manifest.duplicates == 1
    assert "conflicting_duplicate" not in recording.gaps()["cause"].to_pylist()


def test_a_span_that_came_with_the_flags_of_its_context_and_without_is_one(recordings: Path) -> None:
    """The SDK's OTLP exporters leave out the lowest byte of the flags; what else they say counts."""
    whole = [(FrameType.WHOLE, payload(1, flags=flags)) for flags in (0x103, 0x101, 0x303)]
    recording = seal(log(recordings, whole), tool_version=VERSION)
    assert recording.spans()["flags"].to_pylist() == [0x103, 0x303]
    assert recording.manifest.duplicates == 1
    assert recording.gaps()["cause"].to_pylist() == ["conflicting_duplicate"]


def test_a_different_span_under_the_same_id_is_kept_and_said_so(recordings: Path) -> None:
    frames = [
        (FrameType.START, payload(1, end=0)),
        (FrameType.END, payload(1)),
        (FrameType.START, payload(1, "other", end=0)),
        (FrameType.END, payload(1, "other")),
        (FrameType.START, payload(1, trace_id=2, end=0)),
    ]
    recording = seal(log(recordings, frames), tool_version=VERSION)
    assert recording.spans()["name"].to_pylist() == ["s", "other", "s"]
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["first_seq"], gap["last_seq"]) == ("conflicting_duplicate", 2, 3)
    assert (gap["since_unix_nano"], gap["until_unix_nano"]) == (10, 20)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x0a\x10" + bytes(16) + b"\x12\x08" + bytes(8), payload(1)[:-3]])
def test_a_frame_that_holds_no_span_is_a_gap_and_the_rest_is_kept(recordings: Path, data: bytes) -> None:
    frames = [(FrameType.START, data), (FrameType.WHOLE, payload(5)), (FrameType.NOTE, b"[1]")]
    recording = seal(log(recordings, frames), tool_version=VERSION)
    assert recording.spans()["span_id"].to_pylist() == [f"{5:016x}"]
    assert [gap["lost"] for gap in recording.gaps().to_pylist() if gap["cause"] == "poison_span"] == [1, 1]


def test_a_torn_log_keeps_its_good_frames_and_says_from_when_on_it_is_blind(lab: Any) -> None:
    work(lab)
    lab.processor.shutdown()
    data = lab.log.read_bytes()
    lab.log.write_bytes(data[:-60])
    recording = seal(lab.directory, tool_version=VERSION)
    assert recording.manifest.spans == 4
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["first_seq"], gap["last_seq"], gap["lost"]) == ("torn_tail", 10, None, None)
    assert gap["since_unix_nano"] > 10**18
    assert "ends within a frame" in gap["detail"]


def test_a_log_with_a_damaged_header_or_a_wrong_name_is_a_gap_of_unknown_size(lab: Any) -> None:
    work(lab)
    lab.processor.shutdown()
    shutil.copy(lab.log, lab.wal / "copy.wal")
    (lab.wal / "noise.wal").write_bytes(b"noise")
    recording = seal(lab.directory, tool_version=VERSION)
    assert recording.manifest.spans == 5
    found = {gap["producer"]: (gap["cause"], gap["lost"]) for gap in recording.gaps().to_pylist()}
    assert found == {"copy": ("torn_tail", None), "noise": ("torn_tail", None)}


def test_frames_missing_from_the_middle_are_counted(recordings: Path) -> None:
    directory = begin(recordings, "broken")
    writer = LogWriter(directory / "wal")
    writer.append(FrameType.START, payload(1, end=0))
    writer._next += 3
    writer.append(FrameType.END, payload(1))
    writer.close()
    [gap] = seal(directory, tool_version=VERSION).gaps().to_pylist()
    assert (gap["cause"], gap["first_seq"], gap["last_seq"], gap["lost"]) == ("sequence_break", 1, 3, 3)


def test_foreign_things_in_the_log_folder_stop_the_sealing_before_it_changes_anything(lab: Any) -> None:
    work(lab)
    for name in ("notes.txt", "link.wal", "folder.wal"):
        foreign = lab.wal / name
        if name == "link.wal":
            foreign.symlink_to(lab.log)
        elif name == "folder.wal":
            foreign.mkdir()
        else:
            foreign.write_text("x")
        with pytest.raises(RecorderError, match=f"{name} is no log of a recording: move it away"):
            seal(lab.directory, tool_version=VERSION)
        assert lab.wal.is_dir()
        foreign.rmdir() if foreign.is_dir() and not foreign.is_symlink() else foreign.unlink()
    assert lab.seal().manifest.spans == 5


def test_a_link_in_place_of_a_folder_is_not_followed(lab: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.parquet").write_text("precious")
    (lab.directory / "spans").symlink_to(outside)
    with pytest.raises(RecordingDamaged, match="symbolic link"):
        lab.seal()
    assert (outside / "keep.parquet").read_text() == "precious"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 65, "é", "a\n", "../up"])
def test_only_plain_ids_name_a_recording(recordings: Path, name: str) -> None:
    with pytest.raises(InvalidRecordingId, match=r"1 to 64 characters"):
        begin(recordings, name)


def test_sealing_what_is_no_recording_says_so(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for name in ("nothing", "absent"):
        with pytest.raises(RecordingNotFound, match=f"there is no recording in .*{name}"):
            seal(tmp_path / name, tool_version=VERSION)


def test_two_sealings_at_once_do_not_meet(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work(lab)
    seen: list[str] = []
    rename = durable.rename

    def meanwhile(source: Path, target: Path) -> None:
        try:
            seal(lab.directory, tool_version=VERSION)
        except RecorderError as error:
            seen.append(str(error))
        rename(source, target)

    monkeypatch.setattr(staging, "PATIENCE_S", 0)
    monkeypatch.setattr(durable, "rename", meanwhile)
    lab.seal()
    assert seen
    assert all("is being sealed by another process" in sentence for sentence in seen)


@pytest.mark.parametrize(
    ("operation", "code", "sentence"),
    [
        ("write", errno.ENOSPC, "the disk is full"),
        ("write", errno.EFBIG, "file size limit"),
        ("sync", errno.EIO, "check the disk"),
        ("rename", errno.EROFS, "read-only"),
    ],
)
def test_a_disk_that_fails_leaves_the_log_and_a_sentence_and_sealing_again_finishes(
    lab: Any, monkeypatch: pytest.MonkeyPatch, operation: str, code: int, sentence: str
) -> None:
    work(lab)
    lab.processor.shutdown()
    calls = {"sync": 0}

    def failing(*_: Any) -> int:
        calls["sync"] += 1
        error = OSError(code, os.strerror(code))
        raise durable.storage_error("rename to", "x", error) if operation == "rename" else error

    with monkeypatch.context() as patch:
        patch.setattr(durable, operation, failing)
        with pytest.raises(StorageError, match=sentence):
            seal(lab.directory, tool_version=VERSION)
    # A second fsync after a failed one would report success though the pages are lost.
    assert calls["sync"] == 1
    with pytest.raises(RecordingUnsealed):
        open_recording(lab.directory)
    assert seal(lab.directory, tool_version=VERSION).manifest.spans == 5


CRASHES = """
    import hashlib, os, shutil, signal, sys
    from pathlib import Path
    from fencepost_recorder import RecordingUnsealed, durable, open_recording, seal

    OPERATIONS = ("write", "sync", "rename", "remove", "remove_directory", "make_directory", "sync_directory")
    home = Path(sys.argv[1])

    def fork(work):
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    def killed_at(number):
        # Before the nth step, which is after the one before it; of the many writes, every fortieth.
        left, writes = [number], [0]
        def wrap(operation):
            def step(*arguments):
                writes[0] += operation.__name__ == "write"
                left[0] -= operation.__name__ != "write" or writes[0] % 40 == 0
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments)
            return step
        for name in OPERATIONS:
            setattr(durable, name, wrap(getattr(durable, name)))

    def check(directory):
        try:
            open_recording(directory)  # whole, or nothing
        except RecordingUnsealed:
            pass
        recording = seal(directory, tool_version="v")
        content = repr(recording.spans().to_pylist()) + repr(recording.gaps().to_pylist())
        digest = hashlib.sha256(content.encode()).hexdigest()
        leftovers = sorted(path.name for path in directory.iterdir())
        print(digest, leftovers, sorted(path.name for path in (directory / "spans").iterdir()), flush=True)

    number = 0
    while True:
        number += 1
        directory = home / f"crash-{number}"
        shutil.copytree(home / "original", directory)
        def victim():
            killed_at(number)
            seal(directory, tool_version="v")
        status = fork(victim)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
        assert fork(lambda: check(directory)) == 0
        if status == 0:
            print("crash points", number - 1)
            break
"""


def test_a_kill_at_any_step_of_sealing_loses_nothing_and_sealing_again_gives_the_same(
    lab: Any, tmp_path: Path, run: Any
) -> None:
    work(lab)
    lab.processor.shutdown()
    home = tmp_path / "crashes"
    home.mkdir()
    shutil.copytree(lab.directory, home / "original")
    done = run(CRASHES, None, str(home))
    assert done.returncode == 0, done.stderr
    *results, last = done.stdout.splitlines()
    assert len(set(results)) == 1
    assert results[0].endswith("['gaps.parquet', 'manifest.json', 'spans'] ['part-00000.parquet']")
    assert int(last.split()[-1]) >= 15


def test_huge_and_many_spans_end_in_several_row_groups_and_files(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fencepost_recorder.parts.ROW_GROUP_ROWS", 10)
    monkeypatch.setattr("fencepost_recorder.parts.PART_ROWS", 30)
    frames = [(FrameType.WHOLE, payload(number, str(number))) for number in range(1, 101)]
    recording = seal(log(recordings, frames), tool_version=VERSION)
    assert [entry.rows for entry in recording.manifest.files] == [30, 30, 30, 10, 0]
    assert recording.spans()["name"].to_pylist() == [str(number) for number in range(1, 101)]


def test_what_a_span_had_to_drop_is_a_gap_of_its_producer_and_time(lab: Any) -> None:
    span = lab.tracer.start_span("s", start_time=5)
    for number in range(130):
        span.set_attribute(f"k{number}", number)
    span.end(end_time=9)
    [gap] = lab.seal().gaps().to_pylist()
    assert (gap["cause"], gap["lost"], gap["producer"]) == ("dropped_attributes", 2, lab.processor.producer)
    assert (gap["since_unix_nano"], gap["until_unix_nano"], gap["first_seq"], gap["last_seq"]) == (5, 9, 2, 3)


def test_a_new_producer_cannot_join_a_recording_that_is_sealed(lab: Any) -> None:
    lab.seal()
    with pytest.raises(StorageError, match="give a folder made by"):
        RecordingSpanProcessor(lab.wal)
