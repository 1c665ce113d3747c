"""The wall clock, watched: a process that records says when somebody set it, for then its times prove nothing.

Beside it runs a clock that nobody can set. Both are slowed and hurried alike by time synchronisation, so the distance
between the two is constant, until the wall clock is set.
"""

from __future__ import annotations

import time
from time import monotonic_ns, time_ns

# Less than this is not told: it is in the order of what two looks at two clocks differ by.
STEP_NANO = 1_000_000
_LOOKS = 8
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_ns() -> int:
    """A clock that nobody sets and that counts the machine's sleep, in nanoseconds from some moment on."""
    return time.clock_gettime_ns(_BOOTTIME)


class WatchedClock:
    """Notices when the wall clock is set."""

    def __init__(self) -> None:
        self._seen = time_ns() - monotonic_ns()
        self._ahead, _ = _distance()

    def was_set(self) -> tuple[int, int] | None:
        """Since the last look: what the clock would say now, and what it says, both unix ns; None if nobody set it."""
        # This much is done for every frame; the rest only where something is odd.
        seen = time_ns() - monotonic_ns()
        return None if -STEP_NANO < seen - self._seen < STEP_NANO else self._look_closer(seen)

    def _look_closer(self, seen: int) -> tuple[int, int] | None:
        """Tell a clock that was set from a machine that slept, and from a process that was halted between two looks."""
        ahead, doubt = _distance()
        if abs(ahead - self._ahead) < STEP_NANO + doubt:
            self._seen = time_ns() - monotonic_ns()
            return None
        before, self._ahead, self._seen = self._ahead, ahead, seen
        now = steady_ns()
        return now + before, now + ahead


def _distance() -> tuple[int, int]:
    """How far the wall clock is ahead of the steady one, and how wrong that may be: the surest of a few looks."""
    found: tuple[int, int] | None = None
    for _ in range(_LOOKS):
        before = steady_ns()
        wall = time_ns()
        took = steady_ns() - before
        if found is None or took < found[1]:
            found = (wall - before, took)
        if took < STEP_NANO // 4:
            break
    assert found is not None
    return found
