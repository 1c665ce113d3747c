"""What forked children record, and what is said where they cannot: another user, no descriptors, a full disk."""

from __future__ import annotations

import errno
import textwrap
from pathlib import Path
from typing import Any

from fencepost_recorder import Recording, begin, seal

VERSION = "test"
PARENT = """
    import errno, os, resource, sys, time
    from fencepost_recorder import install, segment, writer
    from opentelemetry import trace

    install("worker")
    tracer = trace.get_tracer("scope")

    def span(name):
        with tracer.start_as_current_span(name):
            pass

    def in_child(work):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        os.waitpid(pid, 0)

    begin_segment = segment.Segment.begin

    def full(*_):
        raise OSError(errno.ENOSPC, "the disk is full")

    span("parent")
"""


def recorded(recordings: Path, run: Any, source: str) -> Recording:
    directory = begin(recordings, "forks")
    done = run(textwrap.dedent(PARENT) + textwrap.dedent(source), directory / "wal")
    assert (done.returncode, done.stderr) == (0, "")
    return seal(directory, tool_version=VERSION)


def names(recording: Recording) -> list[str]:
    return sorted(recording.spans()["name"].to_pylist())


def test_a_child_that_may_open_nothing_any_more_is_recorded(recordings: Path, run: Any) -> None:
    """Its log was begun when it was forked: before it became another user, entered another root, or had no descriptor
    left."""
    source = """
        def work():
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
            span("child")

        in_child(work)
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["child", "parent"]
    assert recording.gaps().num_rows == 0


def test_what_a_child_lost_before_it_could_begin_a_log_is_counted(recordings: Path, run: Any) -> None:
    source = """
        def work():
            span("lost")
            span("lost")
            segment.Segment.begin = begin_segment
            span("kept")

        segment.Segment.begin = full
        in_child(work)
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["kept", "parent"]
    losses = {gap["cause"]: gap for gap in recording.gaps().to_pylist()}
    assert set(losses) == {"unrecorded", "write_failed"}
    # Two starts and two ends; by the time that the first was lost, the log could not be begun.
    assert losses["write_failed"]["lost"] == 4
    assert losses["unrecorded"]["since_unix_nano"] <= losses["write_failed"]["since_unix_nano"]
    assert losses["write_failed"]["since_unix_nano"] < losses["write_failed"]["until_unix_nano"]


def test_a_child_that_never_has_a_log_is_told_of_in_its_parents(recordings: Path, run: Any) -> None:
    """Also when its parent loses something afterwards, and tells of that in the same place."""
    source = """
        segment.Segment.begin = full
        in_child(lambda: span("lost"))
        segment.Segment.begin = begin_segment
        written, writer._write = writer._write, full
        span("lost by the parent")
        writer._write = written
        span("parent again")
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["parent", "parent again"]
    gaps = {gap["cause"]: gap for gap in recording.gaps().to_pylist()}
    assert gaps["unrecorded"]["producer"] is None
    assert f"errno {errno.ENOSPC}" in gaps["unrecorded"]["detail"]
    assert gaps["write_failed"]["lost"] == 2
    assert set(gaps) == {"unrecorded", "write_failed"}


def test_what_a_child_says_of_itself_hides_nothing_that_its_parent_had_lost(recordings: Path, run: Any) -> None:
    """On a full disk both have only that one place, and the parent may end before it can tell of anything."""
    source = """
        writer._write = segment.Segment.begin = full
        span("lost by the parent")
        time.sleep(1)
        in_child(lambda: span("lost"))
        os._exit(0)
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["parent"]
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["producer"], gap["until_unix_nano"]) == ("unrecorded", None, None)
    assert gap["since_unix_nano"] - recording.spans()["received_time_unix_nano"][0].as_py() < 1_000_000_000


def test_children_of_one_that_lost_its_way_to_the_folder_are_told_of_in_its_log(recordings: Path, run: Any) -> None:
    """As one that became another user did, or entered another root: it writes on, but no name leads there for a child,
    neither to a log of its own nor to its parent's header."""
    source = """
        wal = os.environ["FENCEPOST_WAL"]
        os.rename(wal, wal + "-away")
        in_child(lambda: span("lost"))
        in_child(lambda: span("lost"))
        span("parent still")
        os.rename(wal + "-away", wal)
        in_child(lambda: span("child"))
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["child", "parent", "parent still"]
    assert_unrecorded_child(recording, errno.ENOENT)


def test_a_child_forked_without_pythons_hooks_that_finds_no_way_to_the_folder_is_told_of(
    recordings: Path, run: Any
) -> None:
    """As a server written in C forks; the first span is where it can be seen."""
    source = """
        import ctypes

        wal = os.environ["FENCEPOST_WAL"]
        os.rename(wal, wal + "-away")
        if (pid := ctypes.PyDLL(None).fork()) == 0:
            span("lost")
            os._exit(0)
        os.waitpid(pid, 0)
        span("parent still")
        os.rename(wal + "-away", wal)
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["parent", "parent still"]
    assert_unrecorded_child(recording, errno.ENOENT)


def test_a_child_of_one_that_may_open_nothing_more_is_told_of(recordings: Path, run: Any) -> None:
    """Its parent writes on to what it has open, above the limit that it set itself; no number is free below that."""
    source = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        in_child(lambda: span("lost"))
        span("parent still")
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["parent", "parent still"]
    assert_unrecorded_child(recording, errno.EMFILE)


def test_a_child_of_one_with_no_number_left_is_recorded_by_that_of_its_parents_log(recordings: Path, run: Any) -> None:
    source = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        opened = []
        while True:
            try:
                opened.append(os.dup(1))
            except OSError:
                break
        in_child(lambda: span("child"))
        span("parent still")
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["child", "parent", "parent still"]
    assert recording.gaps().num_rows == 0


def test_one_that_may_open_nothing_more_can_still_say_what_it_lost(recordings: Path, run: Any) -> None:
    source = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        writer._write = full
        span("lost")
        os._exit(0)
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["parent"]
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["lost"]) == ("write_failed", 2)


def assert_unrecorded_child(recording: Recording, why: int) -> None:
    [gap] = recording.gaps().to_pylist()
    assert (gap["cause"], gap["producer"], gap["lost"]) == ("unrecorded", None, None)
    assert f"errno {why}" in gap["detail"]


def test_no_frame_goes_into_a_file_that_got_our_descriptor(recordings: Path, tmp_path: Path, run: Any) -> None:
    """A daemon closes every descriptor and opens hundreds: ours is found out as theirs, and the log opened anew."""
    source = f"""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 1024), limit))
        os.closerange(3, 1024)
        theirs = [os.open({str(tmp_path)!r} + f"/file{{n}}", os.O_RDWR | os.O_CREAT) for n in range(600)]
        span("after")
        trace.get_tracer_provider().shutdown()
        assert [os.fstat(one).st_size for one in theirs] == [0] * 600
    """
    recording = recorded(recordings, run, source)
    assert names(recording) == ["after", "parent"]
    assert recording.gaps().num_rows == 0
