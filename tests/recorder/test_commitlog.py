"""A log of which nothing is acknowledged before it is on disk, and nothing that was acknowledged is ever missing."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from recorder.conftest import Run
from recorder.receiving import body_of, numbers

from fencepost_recorder import (
    Recording,
    StorageError,
    begin,
    durable,
    export_recording,
    import_otlp,
    open_recording,
    seal,
)
from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.errors import Overloaded
from fencepost_recorder.logs import list_logs
from fencepost_recorder.wal import Ending, Frame, FrameType, open_log

SEGMENT_BYTES = 16 * 1024
NOTE = b'{"cause": "refused", "producer": null, "detail": "x"}'


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "received")


@pytest.fixture
def log(directory: Path) -> Iterator[CommitLog]:
    made = CommitLog(directory / "wal", producer="r", segment_bytes=SEGMENT_BYTES)
    yield made
    made.close()


def frames(directory: Path) -> list[Frame]:
    found: list[Frame] = []
    for log in list_logs(directory / "wal"):
        reader = open_log(log.path)
        with reader.stream:
            found += reader.frames()
        assert reader.ending is Ending.CLEAN
        assert reader.breaks == []
    return found


def sealed(directory: Path, log: CommitLog) -> Recording:
    log.close()
    seal(directory, tool_version="0.0.test")
    return open_recording(directory)


def test_requests_and_notes_are_in_the_log_as_they_came(directory: Path, log: CommitLog) -> None:
    """A request in pieces is one frame, which names the ordinal of its first span; a note follows its request."""
    one, two = body_of(range(3)), body_of(range(3, 5))
    log.append([one[:10], memoryview(one)[10:]], 3)
    log.append([bytearray(two)], 2, [NOTE])
    log.append((), 0, [NOTE])
    log.close()
    found = [(frame.type, frame.sequence, frame.ref, frame.payload) for frame in frames(directory)]
    assert found == [
        (FrameType.REQUEST, 0, 0, one),
        (FrameType.REQUEST, 1, 3, two),
        (FrameType.NOTE, 2, 0, NOTE),
        (FrameType.NOTE, 3, 0, NOTE),
        (FrameType.CLOSE, 4, 0, b"{}"),
    ]


def test_an_append_returns_only_once_its_frame_is_synced(
    directory: Path, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, then synced, then told: at the moment of telling, the file holds no byte that was not synced."""
    [path] = (directory / "wal").iterdir()
    synced: list[int] = []
    sync = durable.sync_data
    monkeypatch.setattr(durable, "sync_data", lambda fd: (sync(fd), synced.append(os.fstat(fd).st_size)))
    for number in range(5):
        log.append([body_of(range(number, number + 1))], 1)
        assert synced[-1] == path.stat().st_size
    assert len(synced) == 5


def test_the_file_and_its_name_are_on_disk_before_the_log_is_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a new segment both the folder and the file are synced."""
    done: list[str] = []
    for name in ("create", "sync_directory", "write_pieces", "sync_data"):
        real: Callable[..., Any] = getattr(durable, name)

        def told(*arguments: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            done.append(name)
            return real(*arguments)

        monkeypatch.setattr(durable, name, told)
    CommitLog(directory / "wal").close()
    assert done[:4] == ["create", "sync_directory", "write_pieces", "sync_data"]


def test_who_waits_together_is_written_together(
    directory: Path, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one group is being synced the next gathers, so a slow disk makes larger groups, not longer queues."""
    syncs: list[int] = []
    entered, go_on = threading.Event(), threading.Event()
    sync = durable.sync_data

    def slow(descriptor: int) -> None:
        if not syncs:
            entered.set()
            assert go_on.wait(20)
        syncs.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(durable, "sync_data", slow)
    first = appending(log, 0)
    assert entered.wait(20)
    others = [appending(log, number) for number in range(1, 8)]
    until(lambda: len(log._waiting) == 7)
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert len(syncs) == 2
    assert numbers(sealed(directory, log)) == list(range(8))


def test_many_threads_lose_and_double_nothing(directory: Path, log: CommitLog) -> None:
    """Eight threads over many segments: every number once, every ordinal once, without a gap in the log."""

    def work(which: int) -> None:
        for number in range(50):
            log.append([body_of(range(1000 * which + number, 1000 * which + number + 1))], 1)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(list((directory / "wal").iterdir())) > 2
    assert all(path.stat().st_size <= SEGMENT_BYTES for path in (directory / "wal").iterdir())
    requests = [frame for frame in frames(directory) if frame.type is FrameType.REQUEST]
    assert [frame.ref for frame in requests] == list(range(400))
    recording = sealed(directory, log)
    assert numbers(recording) == sorted(1000 * which + number for which in range(8) for number in range(50))
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}


def test_segments_go_on_from_each_other_and_only_the_last_is_locked(directory: Path, log: CommitLog) -> None:
    """Whoever stages while recording goes on finds all but the last closed for good."""
    for number in range(300):
        log.append([body_of(range(number, number + 1))], 1)
    segments = list_logs(directory / "wal")
    written = [one for one in segments if one.bytes]
    assert len(written) > 2
    assert [one.locked_now for one in written] == [False] * (len(written) - 1) + [True]
    assert {stat.S_IMODE(one.path.stat().st_mode) for one in segments} == {0o600}
    kinds = []
    for one in written:
        reader = one.open()
        with reader.stream:
            kinds.append([frame.type for frame in reader.frames()][-1])
    assert set(kinds[:-1]) == {FrameType.NEXT}


def test_a_log_that_is_closed_leaves_no_empty_segment(directory: Path, log: CommitLog) -> None:
    """What was made in time for later is removed again."""
    until_prepared = SEGMENT_BYTES // 2 // len(body_of(range(1)))
    for number in range(until_prepared):
        log.append([body_of(range(number, number + 1))], 1)
    until(lambda: len(list((directory / "wal").iterdir())) == 2)
    log.close()
    assert len(list((directory / "wal").iterdir())) == 1
    with pytest.raises(StorageError, match="closed"):
        log.append([body_of(range(1))], 1)


def test_a_log_killed_when_it_had_made_its_next_segment_is_whole(directory: Path, run: Run) -> None:
    """The empty file is no gap: nothing was promised to be in it."""
    source = """
        import os, signal, sys
        from pathlib import Path
        from fencepost_recorder.commitlog import CommitLog

        wal, body = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
        log = CommitLog(wal, producer="r", segment_bytes=1024)
        log.append([body], 3)
        while len(list(wal.iterdir())) < 2:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run(source, None, str(directory / "wal"), body_of(range(3)).hex())
    assert [one.bytes > 0 for one in list_logs(directory / "wal")] == [True, False]
    recording = seal(directory, tool_version="0.0.test")
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}
    assert numbers(recording) == [0, 1, 2]


def test_a_receiver_that_was_killed_says_that_others_may_have_gone_on(directory: Path, run: Run) -> None:
    """Whoever sent only afterwards is known to nobody, so the gap is of no producer; a receiver that ended has none."""
    source = """
        import os, signal, sys
        from pathlib import Path
        from fencepost_recorder.commitlog import CommitLog

        log = CommitLog(Path(sys.argv[1]), producer="r")
        log.append([bytes.fromhex(sys.argv[2])], 1)
        if sys.argv[3] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        log.close()
    """
    found = {}
    for how in ("kill", "close"):
        one = begin(directory.parent, how)
        run(source, None, str(one / "wal"), body_of(range(1)).hex(), how)
        recording = seal(one, tool_version="0.0.test")
        found[how] = [gap for gap in recording.gaps().to_pylist() if gap["producer"] is None]
        export_recording(recording, directory.parent / f"{how}.jsonl")
    [gap] = found["kill"]
    assert gap["cause"] == "unsequenced" and gap["since_unix_nano"] > 0 and gap["until_unix_nano"] is None
    assert found["close"] == []
    again = import_otlp([directory.parent / "kill.jsonl"], directory.parent, "again", tool_version="0.0.test")
    assert [gap for gap in again.gaps().to_pylist() if gap["producer"] is None] == found["kill"]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, times: set[int], how: Callable[..., Any]) -> list[int]:
    """Let the given calls of an operation fail; how often it was called."""
    calls = [0]
    real: Callable[..., Any] = getattr(durable, name)

    def counted(*arguments: Any) -> Any:
        calls[0] += 1
        return how(*arguments) if calls[0] in times else real(*arguments)

    monkeypatch.setattr(durable, name, counted)
    return calls


def broken_disk(*_: Any) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def half(descriptor: int, pieces: Sequence[Any]) -> int:
    whole = b"".join(pieces)
    return os.write(descriptor, whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("name", "how"), [("sync_data", broken_disk), ("write_pieces", broken_disk), ("write_pieces", half)]
)
def test_a_failed_write_or_sync_is_told_and_its_segment_given_up(
    directory: Path, log: CommitLog, monkeypatch: pytest.MonkeyPatch, name: str, how: Callable[..., Any]
) -> None:
    """Nothing is synced again there: the next segment begins with the frame that nobody was promised."""
    log.append([body_of(range(2))], 2)
    failing(monkeypatch, name, {1, 2}, how)
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot write the log"):
            log.append([body_of(range(2, 4))], 2)
    log.append([body_of(range(2, 4))], 2)
    recording = sealed(directory, log)
    assert numbers(recording) == [0, 1, 2, 3]
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}
    assert recording.spans()["producer_seq"].to_pylist() == [0, 1, 2, 3]


def test_a_file_whose_sync_failed_is_never_synced_again(log: CommitLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fsync reports success though the pages are gone."""
    log.append([body_of(range(2))], 2)
    synced: list[int] = []

    def once(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        synced.append(inode)
        if len(synced) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "sync_data", once)
    with pytest.raises(StorageError):
        log.append([body_of(range(2, 4))], 2)
    for number in range(4, 8):
        log.append([body_of(range(number, number + 1))], 1)
    assert synced[0] not in synced[1:]


def test_everybody_in_a_group_that_failed_is_told(
    directory: Path, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose frames were written by another thread; those in the group after it are not concerned."""
    entered, go_on = threading.Event(), threading.Event()
    calls = [0]
    sync = durable.sync_data

    def sometimes(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 1:
            entered.set()
            assert go_on.wait(20)
        if calls[0] == 2:
            broken_disk()
        sync(descriptor)

    monkeypatch.setattr(durable, "sync_data", sometimes)
    failed: list[int] = []
    first = appending(log, 0, failed)
    assert entered.wait(20)
    others = [appending(log, number, failed) for number in range(1, 6)]
    until(lambda: len(log._waiting) == 5)
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert sorted(failed) == [1, 2, 3, 4, 5]
    log.append([body_of(range(6, 7))], 1)
    assert numbers(sealed(directory, log)) == [0, 6]


def test_a_disk_that_stays_full_leaves_no_litter_and_works_again(
    directory: Path, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every append is told; no file is left for each of them."""
    log.append([body_of(range(1))], 1)
    with monkeypatch.context() as full:
        full.setattr(durable, "write_pieces", half)
        for _ in range(20):
            with pytest.raises(StorageError, match="disk is full"):
                log.append([body_of(range(1, 2))], 1)
    assert len(list((directory / "wal").iterdir())) == 1
    log.append([body_of(range(1, 2))], 1)
    assert numbers(sealed(directory, log)) == [0, 1]


def test_a_queue_beyond_its_limit_is_told_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never waits, never acknowledges from memory: whoever comes too much is asked to come again."""
    body = body_of(range(1))
    log = CommitLog(directory / "wal", queue_bytes=2 * len(body))
    entered, go_on = threading.Event(), threading.Event()
    sync = durable.sync_data

    def slow(descriptor: int) -> None:
        entered.set()
        assert go_on.wait(20)
        sync(descriptor)

    monkeypatch.setattr(durable, "sync_data", slow)
    threads = [appending(log, 0)]
    assert entered.wait(20)
    threads += [appending(log, number) for number in (1, 2)]
    until(lambda: len(log._waiting) == 2)
    with pytest.raises(Overloaded):
        log.append([body], 1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert numbers(sealed(directory, log)) == [0, 1, 2]


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    """With the way out."""
    with pytest.raises(StorageError, match="cannot write a log into") as refused:
        CommitLog(tmp_path / "missing")
    assert "\n" not in str(refused.value)


def test_a_request_larger_than_a_frame_is_refused(log: CommitLog) -> None:
    """The reader would not believe it."""
    with pytest.raises(ValueError, match="16 MiB"):
        log.append([bytes(2**24 + 1)], 1)


def appending(log: CommitLog, number: int, failed: list[int] | None = None) -> threading.Thread:
    """Append a span in a thread of its own."""

    def work() -> None:
        try:
            log.append([body_of(range(number, number + 1))], 1)
        except StorageError:
            assert failed is not None
            failed.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    end = threading.Event()
    for _ in range(20_000):
        if holds():
            return
        end.wait(0.001)
    raise AssertionError("it did not come to pass")
