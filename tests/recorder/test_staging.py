"""Staging changes when a log is converted, not what it becomes; no crash of it loses or doubles anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from fencepost_recorder import (
    RecorderError,
    Recording,
    RecordingDamaged,
    RecordingNotFound,
    RecordingUnsealed,
    StorageError,
    assembling,
    begin,
    duplicates,
    durable,
    open_recording,
    recover,
    seal,
    sealing,
    stage,
    staging,
    workers,
)
from fencepost_recorder.logs import list_logs
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.test"
SEGMENT_BYTES = 3000
SPANS = 120


def span(number: int, end: int = 20, name: str = "span", **more: Any) -> bytes:
    made = Span(trace_id=(7).to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"{name} {number}", **more)
    made.start_time_unix_nano, made.end_time_unix_nano = 10, end
    return made.SerializeToString()


class Process:
    """A process that records, in small segments."""

    def __init__(self, directory: Path, name: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.writer = LogWriter(directory / "wal", producer=name, segment_bytes=segment_bytes)
        resource = ResourceSpans()
        resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=name)))
        made = self.writer.append(FrameType.RESOURCE, resource.SerializeToString())
        scope = ScopeSpans(scope={"name": "lab"})
        self.scope = self.writer.append(FrameType.SCOPE, scope.SerializeToString(), made)

    def start(self, number: int, **more: Any) -> None:
        self.writer.append(FrameType.START, span(number, end=0, **more), self.scope)

    def end(self, number: int, **more: Any) -> None:
        self.writer.append(FrameType.END, span(number, **more), self.scope)


def record(directory: Path) -> list[Process]:
    """Two processes: spans that overlap, some that never end, one that ends in the other process, one told twice."""
    one, other = Process(directory, "one"), Process(directory, "other")
    for number in range(1, SPANS + 1):
        one.start(number)
        if number > 10 and number % 11:
            one.end(number - 10)
        other.start(1000 + number, dropped_events_count=int(number % 50 == 0))
        other.end(1000 + number, dropped_events_count=int(number % 50 == 0))
    one.start(5000)
    other.end(5000)
    for _ in range(2):
        other.start(6000, dropped_links_count=1)
        other.end(6000, dropped_links_count=1)
        for number in range(40):
            other.start(7000 + number)
            other.end(7000 + number)
    one.start(6001)
    one.end(6001)
    other.start(6001)
    other.end(6001, name="different")
    return [one, other]


def content(recording: Recording) -> dict[str, Any]:
    """What a recording says, in an order of its own."""
    made = recording.manifest
    return {
        "rows": sorted(recording.spans().to_pylist(), key=repr),
        "gaps": sorted(recording.gaps().to_pylist(), key=repr),
        "counts": (made.spans, made.gaps, made.duplicates, made.created_unix_nano),
        "producers": made.producers,
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of two processes in many segments."""
    directory = begin(tmp_path_factory.mktemp("original"), "r")
    for process in record(directory):
        process.writer.close()
    assert len(list_logs(directory / "wal")) > 15
    return directory


@pytest.fixture(scope="module")
def expected(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it is sealed to at once."""
    directory = tmp_path_factory.mktemp("expected") / "r"
    shutil.copytree(original, directory)
    found = content(seal(directory, tool_version=VERSION))
    # The two have seen everything that staging could get wrong.
    assert found["counts"][2] == 41
    causes = sorted(gap["cause"] for gap in found["gaps"])
    assert causes == ["conflicting_duplicate", "dropped_events", "dropped_events", "dropped_links"]
    assert [row["producer_end_seq"] for row in found["rows"] if row["name"] == "span 5000"] == [None]
    assert any(row["duration_time_unix_nano"] is None for row in found["rows"])
    return found


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "r"))


def test_what_is_closed_is_staged_and_its_segments_go(directory: Path, expected: dict[str, Any]) -> None:
    assert stage(directory) > 150
    assert [log.producer for log in list_logs(directory / "wal")] == ["one", "other"]
    with pytest.raises(RecordingUnsealed):
        open_recording(directory)
    assert content(seal(directory, tool_version=VERSION)) == expected
    assert sorted(path.name for path in directory.iterdir()) == ["gaps.parquet", "manifest.json", "spans"]


def test_staging_while_recording_goes_on_ends_in_the_same_recording(
    recordings: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged at every tenth frame, in units of one segment each: the same rows, gaps and producers."""
    monkeypatch.setattr(staging, "UNIT_BYTES", 1)
    directory = begin(recordings, "r")
    real, calls, staged = LogWriter.append, [0], [0]

    def append(self: LogWriter, *given: Any) -> int:
        calls[0] += 1
        if calls[0] % 10 == 0:
            staged[0] += stage(directory)
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LogWriter, "append", append)
        processes = record(directory)
    for process in processes:
        process.writer.close()
    found = content(seal(directory, tool_version=VERSION))
    assert staged[0] > 150
    timeless = ("received_time_unix_nano", "since_unix_nano", "until_unix_nano")
    for one, other in zip(found["rows"], expected["rows"], strict=True):
        assert {**one, timeless[0]: 0} == {**other, timeless[0]: 0}
    assert found["gaps"] == expected["gaps"]
    assert found["counts"][:3] == expected["counts"][:3]


def test_the_segment_that_is_written_is_left_alone(recordings: Path) -> None:
    directory = begin(recordings, "live")
    process = Process(directory, "p")
    process.start(1)
    assert stage(directory) == 0
    assert process.writer.path.exists()
    for number in range(2, 60):
        process.start(number)
    before = process.writer.path.read_bytes()
    assert stage(directory) == 0  # starts alone are no spans yet
    assert (process.writer.path.read_bytes(), len(list_logs(directory / "wal"))) == (before, 1)
    for number in range(1, 60):
        process.end(number)
    process.writer.close()
    recording = seal(directory, tool_version=VERSION)
    assert (recording.manifest.spans, recording.manifest.gaps) == (59, 0)
    assert recording.spans()["duration_time_unix_nano"].to_pylist() == [10] * 59


def test_staging_again_does_nothing(directory: Path) -> None:
    stage(directory)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert stage(directory) == 0
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_staging_what_is_sealed_or_no_recording(directory: Path, tmp_path: Path) -> None:
    seal(directory, tool_version=VERSION)
    assert stage(directory) == 0
    with pytest.raises(RecordingNotFound, match="there is no recording"):
        stage(tmp_path / "absent")


def test_staging_and_sealing_do_not_meet(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PATIENCE_S", 0)
    with staging.alone(directory):
        for act in (stage, lambda path: seal(path, tool_version=VERSION)):
            with pytest.raises(RecorderError, match="is being sealed by another process"):
                act(directory)


def test_what_a_killed_sealer_left_is_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes hold the lock a moment longer than itself."""
    lock, held = fcntl.flock, iter([True, True])

    def flock(descriptor: int, operation: int) -> None:
        if next(held, False):
            raise BlockingIOError
        lock(descriptor, operation)

    monkeypatch.setattr(staging.fcntl, "flock", flock)
    assert seal(directory, tool_version=VERSION).spans().num_rows > 0
    assert not next(held, False)


def test_a_foreign_file_in_the_log_stops_the_staging(directory: Path) -> None:
    (directory / "wal" / "notes.txt").write_text("x")
    with pytest.raises(RecorderError, match=r"notes\.txt is no log of a recording"):
        stage(directory)


@pytest.mark.parametrize("name", ["unit-00000.json", "unit-00000.halves", "unit-00000-0.parquet.ids"])
def test_a_byte_that_changed_in_what_was_staged_is_found_and_its_file_named(directory: Path, name: str) -> None:
    stage(directory)
    path = directory / "staging" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged, match=f"staging/{name} in .* is damaged"):
        seal(directory, tool_version=VERSION)


def test_a_staged_table_that_changed_is_found_before_the_log_goes(directory: Path) -> None:
    stage(directory)
    path = directory / "staging" / "unit-00000-0.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged, match=r"0+[-0]*\.parquet( in .*)? is damaged"):
        seal(directory, tool_version=VERSION)
    assert (directory / "wal.sealing").is_dir()


def test_a_staged_table_that_is_missing_is_named(directory: Path) -> None:
    stage(directory)
    (directory / "staging" / "unit-00000-0.parquet").unlink()
    with pytest.raises(RecordingDamaged, match=r"staging/unit-00000-0\.parquet in .* is missing"):
        seal(directory, tool_version=VERSION)


def test_a_link_in_place_of_the_staging_folder_is_not_followed(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "keep").write_text("precious")
    (directory / "staging").symlink_to(tmp_path / "outside")
    for act in (stage, lambda path: seal(path, tool_version=VERSION)):
        with pytest.raises(RecordingDamaged, match="symbolic link"):
            act(directory)
    assert (tmp_path / "outside" / "keep").read_text() == "precious"


def test_a_large_log_is_converted_in_units_and_gives_the_same(
    directory: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By processes of their own, at least two wherever there are two processors."""
    monkeypatch.setattr(sealing, "SMALL_BYTES", 0)
    monkeypatch.setattr(staging, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    recording = seal(directory, tool_version=VERSION)
    assert len(recording.manifest.files) > 3
    assert content(recording) == expected


def test_what_bounds_the_memory_changes_nothing(
    directory: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves and ids are looked at in passes: with a hundred passes over each the result is the same."""
    monkeypatch.setattr(staging, "UNIT_BYTES", 1)
    monkeypatch.setattr(assembling, "HALVES_BYTES", 100)
    monkeypatch.setattr(duplicates, "PASS_ROWS", 3)
    stage(directory)
    assert content(seal(directory, tool_version=VERSION)) == expected


def test_a_converting_process_that_is_killed_costs_a_sentence_and_nothing_else(
    directory: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "SMALL_BYTES", 0)
    monkeypatch.setattr(staging, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_MAIN", "import os; os.kill(os.getpid(), 9)")
        with pytest.raises(StorageError, match=r"ended before it was done \(SIGKILL\)"):
            seal(directory, tool_version=VERSION)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_MAIN", f"{workers._MAIN}; import os; os._exit(3)")
        with pytest.raises(StorageError, match="exit code 3"):
            seal(directory, tool_version=VERSION)
    assert content(seal(directory, tool_version=VERSION)) == expected


def test_an_error_of_a_converting_process_is_told_in_its_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "SMALL_BYTES", 0)
    monkeypatch.setattr(staging, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    (directory / "staging").write_text("in the way")
    monkeypatch.setattr("fencepost_recorder.units.load", lambda _: [])
    with pytest.raises(StorageError, match=r"cannot create .*staging"):
        seal(directory, tool_version=VERSION)


def test_a_process_that_outlives_an_interrupted_sealing_loses_nothing_by_it(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still written to is not kept as it is: the next sealing has all that was written until then."""
    monkeypatch.setattr(sealing, "SMALL_BYTES", 0)
    directory = begin(recordings, "outlived")
    process = Process(directory, "p")
    for number in range(1, 60):
        process.start(number)
        process.end(number)
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "_write_manifest", lambda *_: (_ for _ in ()).throw(StorageError("cut off")))
        with pytest.raises(StorageError, match="cut off"):
            seal(directory, tool_version=VERSION)
    assert (directory / "staging").is_dir()
    process.start(100)
    process.end(100)
    process.writer.close()
    recording = recover(directory, tool_version=VERSION)
    assert (recording.manifest.spans, recording.manifest.gaps) == (60, 0)


CUTS = """
    import hashlib, os, shutil, signal, sys
    from pathlib import Path
    from fencepost_recorder import RecordingUnsealed, durable, open_recording, seal, sealing, stage, staging, workers

    OPERATIONS = ("write", "sync", "rename", "remove", "remove_directory", "make_directory", "sync_directory")
    home, mode = Path(sys.argv[1]), sys.argv[2]
    step, offset = int(sys.argv[3]), int(sys.argv[4])
    staging.UNIT_BYTES = 12_000
    os.sched_getaffinity = lambda _: {0}  # one process, whose every step is counted

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
        left, writes = [number], [0]
        def wrap(operation):
            def counted(*arguments):
                writes[0] += operation.__name__ == "write"
                left[0] -= operation.__name__ != "write" or writes[0] % 40 == 0
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments)
            return counted
        for name in OPERATIONS:
            setattr(durable, name, wrap(getattr(durable, name)))

    def live(directory):
        if mode != "seal":
            stage(directory)
        if mode != "stage":
            sealing.SMALL_BYTES = 0
            seal(directory, tool_version="v")

    def finish(directory):
        try:
            open_recording(directory)  # whole, or nothing
        except RecordingUnsealed:
            pass
        if mode == "stage":
            stage(directory)
        recording = seal(directory, tool_version="v")
        rows = sorted(map(repr, recording.spans().to_pylist())), sorted(map(repr, recording.gaps().to_pylist()))
        leftovers = sorted(path.name for path in directory.iterdir())
        print(hashlib.sha256(repr(rows).encode()).hexdigest(), recording.manifest.duplicates, leftovers, flush=True)

    number = offset
    while True:
        directory = home / f"cut-{number}"
        shutil.copytree(home / "original", directory)
        def victim():
            killed_at(number)
            live(directory)
        def second():
            killed_at(1 + number * 7 % 23)
            live(directory)
        status = fork(victim)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
        if status and number % 2:
            fork(second)
        assert fork(lambda: finish(directory)) == 0
        shutil.rmtree(directory)
        number += step
        if status == 0:
            print("cuts", number)
            break
"""


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.campaign)])
@pytest.mark.parametrize(("mode", "most"), [("stage", 40), ("seal", 60), ("both", 60)])
def test_a_kill_at_any_step_of_staging_and_sealing_units_loses_and_doubles_nothing(
    original: Path, tmp_path: Path, mode: str, most: int, step: int
) -> None:
    """Every 23rd step here, and every second time killed again while it recovers; `make campaign` has them all."""
    shutil.copytree(original, tmp_path / "original")
    command = [sys.executable, "-c", textwrap.dedent(CUTS), str(tmp_path), mode, str(step), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    *results, last = done.stdout.splitlines()
    assert len(set(results)) == 1, set(results)
    assert results[0].endswith("41 ['gaps.parquet', 'manifest.json', 'spans']")
    assert int(last.split()[-1]) > most


def test_a_failed_operation_while_staging_leaves_everything_as_it_was(
    directory: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError, match="check the disk"):
            stage(directory)
    assert len(list_logs(directory / "wal")) > 15
    stage(directory)
    assert content(seal(directory, tool_version=VERSION)) == expected
