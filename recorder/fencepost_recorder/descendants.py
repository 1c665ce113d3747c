"""The processes below this one: who they are, which are stopped, and how each of them ended.

Found by reading /proc, held by a pidfd each. A child of ours is reaped here and its end is known exactly; of a
grandchild that its own parent reaps, the kernel tells through the pidfd (Linux 6.15 and later), or, while it is a
zombie, /proc does. Where neither does, its end is known and the manner is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fencepost_recorder.linux import status_of_reaped

_STOPPED = "T"
_ENDED = "ZX"


@dataclass(slots=True)
class Process:
    """A process below this one. `stopped` as it was last seen; `started` in the kernel's ticks tells it from another
    of the same id. It lived at `alive_unix_nano`, and is held since `held_unix_nano`."""

    pid: int
    parent: int
    name: str
    started: int
    pidfd: int
    alive_unix_nano: int
    held_unix_nano: int
    stopped: bool = False
    stop_signal: int = 0


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of /proc/PID/stat, as far as it matters here. `status` is that of waitpid(2), of one that has ended; of
    one that is stopped, the signal. None or 0 where the kernel does not tell."""

    name: str
    state: str
    parent: int
    started: int
    status: int | None


class Descendants:
    """Keeps track of all processes below this one but those in `own`, which are fencepost's.

    Not thread-safe. Descendants of another reaper, as inside containers that a daemon starts, are not ours to see.
    """

    def __init__(self, own: set[int]) -> None:
        self.own = own
        self.by_pid: dict[int, Process] = {}
        self.unwatched: set[int] = set()
        self._me = os.getpid()
        # Zombies whose end was told and whom nobody has reaped yet, each with its start.
        self._told: dict[int, int] = {}

    def scan(self) -> list[Process]:
        """Look for processes that are new; those that were found."""
        found: list[Process] = []
        children = children_of if _CHILDREN else _children_by_parent()
        seen, queue = {self._me}, [self._me]
        while queue:
            parent = queue.pop()
            for pid in children(parent):
                if pid in seen or pid in self.own:
                    continue
                seen.add(pid)
                queue.append(pid)
                if (process := self.hold(pid)) is not None:
                    found.append(process)
        self._told = {pid: started for pid, started in self._told.items() if pid in seen or _is_same(pid, started)}
        return found

    def changes(self) -> Iterator[Process]:
        """The processes that were stopped or continued since the last look; their `stopped` says which."""
        for process in list(self.by_pid.values()):
            stat = read_stat(process.pid)
            # A zombie is neither; its end is told on its own.
            if stat is None or stat.state in _ENDED:
                continue
            process.parent, process.name = stat.parent, stat.name
            stopped = stat.state == _STOPPED
            if stopped != process.stopped:
                process.stopped = stopped
                process.stop_signal = (stat.status or 0) if stopped else 0
                yield process

    def end_of(self, process: Process) -> tuple[bool, int | None]:
        """Whether the process has ended, and how as waitpid(2) tells it, None where nobody knows.

        (False, None) for one that lives; also for one that has ended, if more may be known once its parent has asked.
        """
        with suppress(ChildProcessError):
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            return (True, status) if pid else (False, None)
        kept = status_of_reaped(process.pidfd)
        if kept is not None:
            return True, kept
        stat = read_stat(process.pid)
        if stat is None or stat.started != process.started:
            # Its parent may have reaped it between the two questions.
            return True, status_of_reaped(process.pidfd)
        return (True, stat.status) if stat.state in _ENDED and stat.status is not None else (False, None)

    def drop(self, process: Process) -> None:
        """Forget a process that has ended."""
        self._told[process.pid] = process.started
        del self.by_pid[process.pid]
        os.close(process.pidfd)

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self.by_pid.values()))

    def hold(self, pid: int) -> Process | None:
        """Keep track of a process below this one; None when it is gone, or is kept track of already."""
        if pid in self.by_pid:
            return None
        if pid in self._told and self._is_told(pid):
            return None
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        except OSError:
            self.unwatched.add(pid)  # no descriptor left for it
            return None
        # Read only now: whoever has this id while we hold the pidfd is the process that the pidfd means.
        stat = read_stat(pid)
        if stat is None:
            os.close(pidfd)
            return None
        now = time.time_ns()
        alive = _started_unix_nano(stat) if stat.state in _ENDED else now
        process = Process(pid, stat.parent, stat.name, stat.started, pidfd, alive, now)
        self.by_pid[pid] = process
        return process

    def _is_told(self, pid: int) -> bool:
        """Whether this is a zombie whose end was told; if it has become ours since, it is laid to rest."""
        if not _is_same(pid, self._told[pid]):
            del self._told[pid]
            return False
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return True


def children_of(pid: int) -> Iterable[int]:
    """The children of all the threads of a process; none when it is gone."""
    found: list[int] = []
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            with suppress(OSError, ValueError):
                found.extend(int(child) for child in _read(f"{thread.path}/children").split())
    return found


def read_stat(pid: int) -> Stat | None:
    """What /proc says of a process; None when it is gone."""
    try:
        line = _read(f"/proc/{pid}/stat")
        # The name may hold blanks and parentheses, so what follows it is found from the right. Fields: proc(5).
        head, _, tail = line.rpartition(b")")
        fields = tail.split()
        state = fields[0].decode()
        # Of a process of somebody else's the kernel says 0 to whoever may not know.
        known = state in _ENDED + _STOPPED and os.geteuid() in (0, Path(f"/proc/{pid}").stat().st_uid)
        status = int(fields[49]) if known else None
        name = head.partition(b"(")[2].decode(errors="replace")
        return Stat(name, state, int(fields[1]), int(fields[19]), status)
    except (OSError, ValueError, IndexError):
        return None


def _is_same(pid: int, started: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.started == started


def _started_unix_nano(stat: Stat) -> int:
    """When a process was started, to the kernel's tick of 10 ms."""
    since_boot = stat.started * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot


def _children_by_parent() -> Callable[[int], Iterable[int]]:
    """As `children_of`, for kernels that do not list children: everybody is asked for the parent."""
    children: dict[int, list[int]] = {}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        if (stat := read_stat(pid)) is not None:
            children.setdefault(stat.parent, []).append(pid)
    return lambda pid: children.get(pid, ())


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = bytearray()
        while data := os.read(descriptor, 65536):
            found += data
        return bytes(found)
    finally:
        os.close(descriptor)


# CONFIG_PROC_CHILDREN
_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()
