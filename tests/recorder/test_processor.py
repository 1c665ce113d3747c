"""What a process records is on disk before the call returns, whatever happens to the process afterwards."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from fencepost_recorder import RecorderError, RecordingSpanProcessor, StorageError, begin, seal
from fencepost_recorder.wal import FrameType, open_log

VERSION = "0.0.test"


def rows(directory: Path) -> list[dict[str, Any]]:
    return seal(directory, tool_version=VERSION).spans().to_pylist()


def gaps(directory: Path) -> list[dict[str, Any]]:
    return seal(directory, tool_version=VERSION).gaps().to_pylist()


def test_a_killed_process_leaves_its_open_spans_as_started_never_ended_and_no_gap(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "killed")
    source = """
        import os, signal
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker", {"deployment": "test"})
        tracer = trace.get_tracer("scope")
        for number in range(5):
            with tracer.start_as_current_span(f"done {number}"):
                pass
        with tracer.start_as_current_span("outer"):
            tracer.start_span("inner", attributes={"job": "j1"})
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(source, directory / "wal").returncode == -signal.SIGKILL
    recording = seal(directory, tool_version=VERSION)
    found = {row["name"]: row for row in recording.spans().to_pylist()}
    assert len(found) == 7
    assert {name for name, row in found.items() if row["duration_time_unix_nano"] is None} == {"outer", "inner"}
    assert found["inner"]["parent_span_id"] == found["outer"]["span_id"]
    assert found["inner"]["span_attributes"] == '{"job":"j1"}'
    assert found["inner"]["producer_end_seq"] is None
    assert '"deployment":"test"' in found["inner"]["resource_attributes"]
    assert recording.gaps().num_rows == 0
    [producer] = recording.manifest.producers
    assert (producer.ended, producer.last_seq) == ("died", 13)


def test_start_and_end_are_one_write_each(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.tracer.start_span("first").end()
    sizes = [lab.log.stat().st_size]
    written: list[int] = []

    def counted(descriptor: int, data: bytes) -> int:
        written.append(len(data))
        return os.write(descriptor, data)

    monkeypatch.setattr("fencepost_recorder.writer._write", counted)
    span = lab.tracer.start_span("second", attributes={"a": 1})
    sizes.append(lab.log.stat().st_size)
    span.end()
    sizes.append(lab.log.stat().st_size)
    assert written == [sizes[1] - sizes[0], sizes[2] - sizes[1]]


def test_everything_about_a_span_reaches_the_table(lab: Any) -> None:
    remote = SpanContext(0xA1, 0xB2, True, TraceFlags(1))
    context = set_span_in_context(NonRecordingSpan(remote))
    span = lab.tracer.start_span(
        "work", context, SpanKind.CONSUMER, {"at.start": "x"}, [Link(remote, {"why": "enqueue"})], start_time=1_000
    )
    span.set_attribute("later", 2)
    span.add_event("seen", {"n": 1}, timestamp=1_500)
    span.set_status(Status(StatusCode.ERROR, "broke"))
    span.end(end_time=3_000)
    [row] = lab.seal().spans().to_pylist()
    received, producer = row.pop("received_time_unix_nano"), row.pop("producer")
    assert received > 10**18
    assert producer in str(lab.seal().manifest.producers)
    span_id = format(span.get_span_context().span_id, "016x")
    assert row == {
        "start_time_unix_nano": 1_000,
        "duration_time_unix_nano": 2_000,
        "trace_id": format(0xA1, "032x"),
        "span_id": span_id,
        "parent_span_id": format(0xB2, "016x"),
        "trace_state": None,
        "service_name": "lab",
        "service_namespace": None,
        "service_instance_id": "lab-1",
        "name": "work",
        "kind": 5,
        "status_code": 2,
        "status_status_message": "broke",
        "resource_attributes": '{"service.name":"lab","service.instance.id":"lab-1","host.name":"here",'
        f'"process.pid":{os.getpid()}}}',
        "scope_name": "lab.scope",
        "scope_version": "1.2",
        "scope_attributes": "{}",
        "span_attributes": '{"at.start":"x","later":2}',
        "events_json": '[{"time_unix_nano":1500,"name":"seen","attributes":{"n":1},"dropped_attributes_count":0}]',
        "links_json": f'[{{"trace_id":"{0xA1:032x}","span_id":"{0xB2:016x}","trace_state":"",'
        '"attributes":{"why":"enqueue"},"dropped_attributes_count":0,"flags":769}]',
        "dropped_attributes_count": 0,
        "dropped_events_count": 0,
        "dropped_links_count": 0,
        # Sampled, remoteness of the parent known, and it was remote.
        "flags": row["flags"],
        "producer_seq": 2,
        "producer_end_seq": 3,
    }
    assert row["flags"] & 0x301 == 0x301


@pytest.mark.parametrize("said", [{}, {"host.name": "elsewhere", "service.instance.id": "mine"}, {"host.name": ""}])
def test_a_provider_of_ones_own_is_told_by_host_and_process(recordings: Path, said: dict[str, str]) -> None:
    """A stock resource has neither, and without them no clock compares and no crash that was seen ends anything."""
    directory = begin(recordings, "own")
    provider = TracerProvider(resource=Resource({"service.name": "s", **said}))
    provider.add_span_processor(RecordingSpanProcessor(directory / "wal"))
    provider.get_tracer("scope").start_span("work").end()
    provider.shutdown()
    [row] = rows(directory)
    assert gaps(directory) == []
    resource = json.loads(row["resource_attributes"])
    assert resource == {**said, "service.name": "s", "process.pid": os.getpid(), "host.name": resource["host.name"]}
    assert resource["host.name"] == (said.get("host.name") or gethostname())


def test_a_forked_child_records_under_its_own_name_into_its_own_file(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "forked")
    source = """
        import os
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker")
        tracer = trace.get_tracer("scope")
        with tracer.start_as_current_span("parent"):
            pids = []
            for number in range(3):
                pid = os.fork()
                if pid == 0:
                    with tracer.start_as_current_span(f"child {number}"):
                        pass
                    os._exit(0)
                pids.append(pid)
            for pid in pids:
                os.waitpid(pid, 0)
    """
    assert run(source, directory / "wal").stderr == ""
    recording = seal(directory, tool_version=VERSION)
    found = {row["name"]: row for row in recording.spans().to_pylist()}
    children = [found[f"child {number}"] for number in range(3)]
    everyone = [found["parent"], *children]
    assert len({row["producer"] for row in everyone}) == 4
    assert len({row["service_instance_id"] for row in everyone}) == 4
    assert all(row["parent_span_id"] == found["parent"]["span_id"] for row in children)
    pids = {producer.producer: producer.pid for producer in recording.manifest.producers}
    for row in everyone:
        assert f'"process.pid":{pids[row["producer"]]}' in row["resource_attributes"]
    assert {(row["producer_seq"], row["producer_end_seq"]) for row in children} == {(2, 3)}
    assert recording.gaps().num_rows == 0


def test_a_fork_while_another_thread_writes_does_not_deadlock_the_child(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "threads-fork")
    source = """
        import os, threading
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker")
        tracer = trace.get_tracer("scope")
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                tracer.start_span("busy").end()
        threads = [threading.Thread(target=busy) for _ in range(2)]
        [thread.start() for thread in threads]
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                tracer.start_span("child").end()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        [thread.join() for thread in threads]
    """
    done = run(source, directory / "wal")
    assert done.returncode == 0, done.stderr
    recording = seal(directory, tool_version=VERSION)
    names = recording.spans()["name"].to_pylist()
    assert names.count("child") == 10
    assert recording.gaps().num_rows == 0


def test_a_span_that_both_sides_of_a_fork_end_is_kept_twice_and_said_so(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "both")
    source = """
        import os
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker")
        with trace.get_tracer("scope").start_as_current_span("shared"):
            pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    """
    run(source, directory / "wal")
    recording = seal(directory, tool_version=VERSION)
    first, second = recording.spans().to_pylist()
    assert first["span_id"] == second["span_id"]
    assert (first["producer_seq"], second["producer_seq"]) == (2, None)
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["producer"]) == ("conflicting_duplicate", second["producer"])


def test_a_span_that_only_the_child_of_a_fork_ends_has_ended(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "child-ends")
    source = """
        import os, signal
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker")
        span = trace.get_tracer("scope").start_span("handed over")
        if os.fork() == 0:
            span.end()
            os._exit(0)
        os.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run(source, directory / "wal")
    [row] = rows(directory)
    assert row["duration_time_unix_nano"] is not None
    assert (row["producer_seq"], row["producer_end_seq"]) == (2, None)


def test_threads_share_one_unbroken_sequence(lab: Any) -> None:
    def work() -> None:
        for _ in range(200):
            lab.tracer.start_span("s").end()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording = lab.seal()
    assert recording.manifest.spans == 1600
    assert recording.gaps().num_rows == 0
    [producer] = recording.manifest.producers
    assert (producer.frames, producer.last_seq, producer.ended) == (1600 * 2 + 3, 1600 * 2 + 2, "closed")


def test_a_signal_handler_may_record_while_it_interrupts_the_recorder(lab: Any) -> None:
    tracer = lab.tracer  # fetched once: the SDK's own lock around its tracers is not safe in handlers
    going = True

    def handler(*_: object) -> None:
        tracer.start_span("from handler").end()
        # Python may call it when the timer has been stopped: started again, it would end this process.
        if going:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    try:
        for _ in range(2000):
            tracer.start_span("s").end()
    finally:
        going = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    recording = lab.seal()
    names = recording.spans()["name"].to_pylist()
    assert names.count("s") == 2000
    assert "from handler" in names
    assert recording.gaps().num_rows == 0
    assert recording.spans()["duration_time_unix_nano"].null_count == 0


def test_a_handler_that_raises_out_of_the_recorder_raises_in_the_program_and_loses_nothing_unseen(lab: Any) -> None:
    class Stop(BaseException):
        pass

    going = True

    def handler(*_: object) -> None:
        if going:
            raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                for _ in range(200):
                    lab.tracer.start_span("s").end()
            except Stop:
                continue
    finally:
        going = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    lab.tracer.start_span("last").end()
    recording = lab.seal()
    assert "last" in recording.spans()["name"].to_pylist()
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} <= {"write_failed", "sequence_break"}


def fail(times: int, code: int, monkeypatch: pytest.MonkeyPatch, partial: int = 0) -> None:
    left = [times]

    def failing(descriptor: int, data: bytes) -> int:
        if left[0] > 0:
            left[0] -= 1
            if partial:
                return os.write(descriptor, data[:partial])
            raise OSError(code, os.strerror(code))
        return os.write(descriptor, data)

    monkeypatch.setattr("fencepost_recorder.writer._write", failing)


@pytest.mark.parametrize("partial", [0, 20])
def test_writes_that_fail_for_a_while_become_a_gap_with_their_numbers(
    lab: Any, monkeypatch: pytest.MonkeyPatch, partial: int
) -> None:
    lab.tracer.start_span("before").end()
    fail(2, errno.ENOSPC, monkeypatch, partial)
    lab.tracer.start_span("lost").end()
    lab.tracer.start_span("after").end()
    assert lab.processor.lost == 2 - 1  # the second failure was the note about the first
    recording = lab.seal()
    names = recording.spans()["name"].to_pylist()
    assert names == ["before", "after", "lost"]  # a span that lacks a half comes last
    assert recording.spans().to_pylist()[2]["producer_seq"] is None  # its end was written, its start was not
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["lost"], gap["first_seq"]) == ("write_failed", 1, 4)
    assert gap["since_unix_nano"] <= gap["until_unix_nano"]


def test_writes_that_fail_to_the_end_are_told_all_the_same(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.tracer.start_span("before").end()
    fail(10**6, errno.ENOSPC, monkeypatch)
    lab.tracer.start_span("lost").end()
    assert not lab.processor.force_flush()
    recording = lab.seal()
    assert recording.spans()["name"].to_pylist() == ["before"]
    [gap] = recording.gaps().to_pylist()
    # Start, end and the closing frame.
    assert (gap["cause"], gap["lost"], gap["first_seq"]) == ("write_failed", 3, 4)


def test_a_file_size_limit_does_not_reach_the_program_and_is_told(recordings: Path, run: Any) -> None:
    directory = begin(recordings, "limited")
    source = """
        import resource
        from fencepost_recorder import install
        from opentelemetry import trace
        install("worker")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        tracer = trace.get_tracer("scope")
        for number in range(500):
            tracer.start_span(f"span {number}").end()
        print("survived")
    """
    done = run(source, directory / "wal")
    assert (done.stdout, done.stderr) == ("survived\n", "")
    recording = seal(directory, tool_version=VERSION)
    kept = recording.spans()["name"].to_pylist()
    assert 0 < len(kept) < 500
    assert kept == [f"span {number}" for number in range(len(kept))]
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"write_failed"}
    assert sum(gap["lost"] for gap in recording.gaps().to_pylist()) >= 2 * (500 - len(kept))


def test_a_program_that_closes_every_descriptor_is_still_recorded(lab: Any) -> None:
    lab.tracer.start_span("before").end()
    os.close(lab.processor._writer._segment.fd)
    lab.tracer.start_span("after").end()
    recording = lab.seal()
    assert recording.spans()["name"].to_pylist() == ["before", "after"]
    assert recording.gaps().num_rows == 0


def test_spans_that_end_after_shutdown_are_recorded(lab: Any) -> None:
    span = lab.tracer.start_span("late")
    lab.processor.shutdown()
    span.end()
    recording = lab.seal()
    assert recording.spans()["duration_time_unix_nano"].null_count == 0
    assert recording.gaps().num_rows == 0


def test_a_log_that_was_sealed_away_loses_spans_but_not_the_program(lab: Any) -> None:
    lab.seal()
    lab.tracer.start_span("too late").end()
    assert lab.processor.lost > 0


def test_an_orderly_exit_writes_a_closing_frame(lab: Any) -> None:
    lab.tracer.start_span("s").end()
    lab.processor.shutdown()
    lab.processor.shutdown()
    reader = open_log(lab.log)
    with reader.stream:
        types = [frame.type for frame in reader.frames()]
    assert types == [FrameType.RESOURCE, FrameType.SCOPE, FrameType.START, FrameType.END, FrameType.CLOSE]


def test_logs_are_the_owners_alone(lab: Any) -> None:
    assert lab.log.stat().st_mode & 0o777 == 0o600
    assert lab.wal.stat().st_mode & 0o777 == 0o700


def test_nothing_a_span_holds_raises_into_the_program(lab: Any) -> None:
    class Bomb:
        def __str__(self) -> str:
            raise RuntimeError

    odd: Any = {"a": 2**200, "b": "\ud800", "c": None, "d": b"\xff", "e": "x" * 2_000_000, "f": [1, "a", None]}
    span = lab.tracer.start_span("odd", attributes=odd)
    span.update_name("\udfff")
    span.end()
    span = lab.tracer.start_span("broken")
    span._attributes = Bomb()
    span.end()
    recording = lab.seal()
    odd_row, broken_row = recording.spans().to_pylist()
    assert odd_row["dropped_attributes_count"] == 1
    assert broken_row["name"] == "broken"
    assert broken_row["duration_time_unix_nano"] is not None
    assert [gap["cause"] for gap in recording.gaps().to_pylist()] == ["dropped_attributes"] * 2


def test_a_span_that_cannot_be_told_at_all_is_a_gap(lab: Any) -> None:
    lab.tracer.start_span("before").end()
    span = lab.tracer.start_span("gone")
    span._status = None
    span.end()
    recording = lab.seal()
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["lost"], gap["first_seq"], gap["last_seq"]) == ("write_failed", 1, 5, 5)


def test_a_folder_that_cannot_be_written_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write the log .* No such file or directory; give a folder"):
        RecordingSpanProcessor(tmp_path / "absent")


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        ("import os; os.environ.pop('FENCEPOST_WAL')", "nowhere to record to: pass wal=, or set FENCEPOST_WAL"),
        ("import os; os.environ['OTEL_SDK_DISABLED'] = 'true'", "OTEL_SDK_DISABLED is set"),
        ("install('first')", "has a TracerProvider already"),
    ],
)
def test_installing_where_it_cannot_work_says_why(recordings: Path, run: Any, prepare: str, sentence: str) -> None:
    directory = begin(recordings, "refused")
    source = f"""
        from fencepost_recorder import RecorderError, install
        {prepare}
        try:
            install("second")
        except RecorderError as error:
            print(error)
    """
    done = run(source, directory / "wal")
    assert sentence in done.stdout, done.stderr
    assert issubclass(StorageError, RecorderError)
