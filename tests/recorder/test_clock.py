"""A clock that is set is told, and what was lost meanwhile has bounds that hold it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from fencepost_recorder import begin, clock, seal, writer
from fencepost_recorder.gaps import Gap, Gaps
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.test"
NOW = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


class Clocks:
    """The three clocks of a machine, in hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady, self.awake = NOW, 5 * SECOND, 5 * SECOND
        for module in (clock, writer):
            patch.setattr(module, "time_ns", lambda: self.wall)
        patch.setattr(clock, "steady_ns", lambda: self.steady)
        patch.setattr(clock, "monotonic_ns", lambda: self.awake)

    def pass_by(self, nanoseconds: int, *, asleep: bool = False) -> None:
        self.wall += nanoseconds
        self.steady += nanoseconds
        self.awake += 0 if asleep else nanoseconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "clock")


def gaps(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = seal(directory, tool_version=VERSION).gaps().to_pylist()
    return found


@pytest.mark.parametrize(("by", "way"), [(3600 * SECOND, "forward"), (-5_000_000, "back")])
def test_a_clock_that_is_set_is_a_gap_between_what_it_said_and_what_it_would_have_said(
    clocks: Clocks, directory: Path, by: int, way: str
) -> None:
    log = LogWriter(directory / "wal")
    log.append(FrameType.NOTE, b'{"cause": "sampled", "first_seq": 0, "last_seq": 0}')
    clocks.pass_by(SECOND)
    clocks.wall += by
    log.close()
    [told] = [gap for gap in gaps(directory) if gap["cause"] == "clock_set"]
    due, found = NOW + SECOND, NOW + SECOND + by
    assert (told["since_unix_nano"], told["until_unix_nano"]) == (min(due, found), max(due, found))
    assert (told["producer"], told["lost"]) == (log.producer, None)
    assert told["detail"] == f"the clock was set {way} by {abs(by) / SECOND:,.3f} s"


def test_a_clock_that_only_goes_on_and_a_machine_that_sleeps_are_no_gap(clocks: Clocks, directory: Path) -> None:
    log = LogWriter(directory / "wal")
    for asleep in (False, True, False):
        clocks.pass_by(3600 * SECOND, asleep=asleep)
        log.append(FrameType.NOTE, b'{"cause": "sampled", "first_seq": 0, "last_seq": 0}')
    log.close()
    assert [gap for gap in gaps(directory) if gap["cause"] == "clock_set"] == []


def test_a_process_that_is_halted_between_two_looks_at_the_clocks_is_no_gap(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, halts = clock.WatchedClock(), [2 * SECOND]

    def look() -> int:
        wall = clocks.wall
        clocks.pass_by(halts.pop() if halts else 0)
        return wall

    monkeypatch.setattr(clock, "time_ns", look)
    assert watched.was_set() is None
    assert halts == []
    assert watched.was_set() is None
    clocks.wall += SECOND
    assert watched.was_set() == (clocks.wall - SECOND, clocks.wall)
    assert watched.was_set() is None


def test_a_clock_that_is_set_back_while_frames_are_lost_leaves_bounds_that_hold_them_all(
    clocks: Clocks, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogWriter(directory / "wal")
    real, full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data)

    monkeypatch.setattr(writer, "_write", write)
    for wall in (NOW + 60 * SECOND, NOW + 61 * SECOND, NOW):
        clocks.wall = wall
        log.append(FrameType.WHOLE, b"")
    full.clear()
    log.close()
    [told] = [gap for gap in gaps(directory) if gap["cause"] == "write_failed"]
    assert (told["since_unix_nano"], told["until_unix_nano"]) == (NOW, NOW + 61 * SECOND)


def test_a_gap_that_ends_before_it_begins_is_one_of_any_time() -> None:
    found, backwards = Gaps(), Gap("sequence_break", "p", 1, 2, NOW, NOW - 1, 2)
    found.add(backwards)
    [gap] = found
    assert (gap.since_unix_nano, gap.until_unix_nano, gap.first_seq, gap.lost) == (None, None, 1, 2)
    found.remove(backwards)
    assert list(found) == []
