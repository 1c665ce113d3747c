"""Running a command and watching over all of its processes: who dies by which signal, who is stopped and continued.

The command is run in fencepost's own process group, so the terminal sees one job: Ctrl-C and Ctrl-Z reach the command
by themselves, and what is sent to fencepost alone is passed on (`bystander.py` tells the two apart). fencepost is the
subreaper of its descendants: orphans become its children. What it sees it tells as spans (`told.py`).
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fencepost_recorder import linux
from fencepost_recorder.bystander import Bystander
from fencepost_recorder.connector import Connector, Exited, Forked
from fencepost_recorder.descendants import Descendants, Process, read_stat
from fencepost_recorder.errors import RecorderError
from fencepost_recorder.heeding import ENDING, PASSED_ON, STOPPING, Heeded, stop_as
from fencepost_recorder.launching import start
from fencepost_recorder.told import Told, signal_name

HEEDED = PASSED_ON | STOPPING | {signal.SIGCHLD, signal.SIGCONT}
# How often /proc is read for new processes: soon after one was found, seldom while nothing changes, and never so
# often that it costs more than a fiftieth of a processor.
_SOON_S, _SELDOM_S, _AT_MOST_S = 0.01, 0.05, 1.0
_SHARE = 50
# How long a stopped command may take to be stopped, and a process that was asked to end to do so.
_STOPPING_S = 0.1
_ENDING_S = 2.0
# By these somebody ends the waiting; a terminal that closes hangs up more than once, and nobody is tired of anything.
_TIRED = ENDING - {signal.SIGHUP}
# Processes that only take a moment longer than the command are not worth a word.
_WORTH_SAYING_S = 0.5
_KILLED = 100
_Source = TypeVar("_Source")
_PRODUCER = re.compile(r"(.+-([0-9]+)-[0-9a-f]{8})(?:\.[0-9]+)?\.wal")


@dataclass(frozen=True, slots=True)
class Killed:
    """A process that a signal ended."""

    pid: int
    name: str
    signal: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went. `code` is the command's exit code as a shell tells it: 128 + n after signal n.

    `crashes` counts the processes that were seen to end by a signal, the command's own included, and `killed` has the
    first of them; `left` are the ids of processes that ran on; `unwatched` counts processes that could not be watched,
    for want of descriptors; `spans` what was told of all this.
    """

    code: int
    signal: str | None
    crashes: int
    killed: tuple[Killed, ...]
    left: tuple[int, ...]
    unwatched: int
    spans: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How to supervise. `say` is given sentences for people, `tick` is called some times a second, and the processes
    in `own` are fencepost's own, which are no part of what is recorded.

    After the command's end its other processes have `grace_seconds` to end by themselves. Those that do not are left
    alone, or, with `end_rest`, sent SIGTERM and two seconds later SIGKILL.
    """

    grace_seconds: float = 5.0
    end_rest: bool = False
    say: Callable[[str], None] = lambda _: None
    tick: Callable[[], None] = lambda: None
    own: set[int] = field(default_factory=set)


class Supervisor:
    """Runs one command and tells of its processes into the folder `wal`. `started`: whether it came to that.

    Raises StorageError when that cannot be written to, OSError where Linux denies what is needed.
    """

    def __init__(self, wal: Path, bystander: Bystander, heeded: Heeded, rules: Rules | None = None) -> None:
        self._bystander = bystander
        self._heeded = heeded
        self._rules = rules or Rules()
        linux.become_subreaper()
        if read_stat(os.getpid()) is None:
            raise RecorderError("/proc cannot be read, so nothing can be supervised: mount it")
        self._told = Told(wal)
        self._logs = _or_none(lambda: linux.FolderWatch(wal))
        self._kernel = _or_none(Connector)
        self._rules.own.add(bystander.pid)
        self._tree = Descendants(self._rules.own)
        self._poll = select.epoll()
        self._producers: dict[int, list[str]] = {}
        self._lingering: dict[int, Process] = {}
        # From the kernel's news: processes that were gone before they could be held, each with its parent; and when
        # processes ended that are held.
        self._ghosts: dict[int, int] = {}
        self._exits: dict[int, Exited] = {}
        self.started = False
        self._pid = 0
        self._status: int | None = None
        self._crashes = 0
        self._killed: list[Killed] = []
        self._deadline: float | None = None
        self._asked_to_end = self._said = False
        self._polled_at = 0
        self._scan_at, self._interval = 0.0, _SOON_S

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> Ended:
        """Run the command to its end, and its other processes to theirs or that of their grace.

        Raises CommandNotStarted when there is no such command.
        """
        try:
            self._begin(command, environment)
            self._watch()
            return self._ended()
        finally:
            self._told.end({"process.exit.code": None if self._status is None else self._code()})
            self._poll.close()
            for source in (self._logs, self._kernel):
                if source is not None:
                    source.close()
            for process in self._tree:
                self._tree.drop(process)

    def _begin(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        for watched in (self._heeded, self._logs, self._kernel):
            if watched is not None:
                self._poll.register(watched.fileno(), select.EPOLLIN)
        self._pid = start(command, environment)
        self.started = True
        # Only now: the command has the limits that it would have without us.
        _raise_descriptor_limit()
        name = Path(command[0]).name
        self._told.begin({"process.pid": self._pid, "process.executable.name": name})
        self._scan()

    def _watch(self) -> None:
        while not self._is_over():
            polled_at = time.time_ns()
            ready = self._poll.poll(max(0.0, self._scan_at - time.monotonic()))
            self._hear_of_logs()
            self._hear_of_forks_and_exits()
            changed = {descriptor for descriptor, _ in ready}
            # Before the ends are looked at: the Ctrl-C that ended the command is no second one, to end the waiting.
            self._heed()
            for process in self._tree:
                if process.pidfd in changed or process.pid in self._lingering:
                    self._look(process)
            self._polled_at = polled_at
            if time.monotonic() >= self._scan_at:
                self._scan()
                self._rules.tick()

    # What there is to see

    def _scan(self) -> None:
        begun = time.monotonic()
        found = self._tree.scan()
        for process in found:
            self._poll.register(process.pidfd, select.EPOLLIN | select.EPOLLET)
        self._see_stops()
        now = time.monotonic()
        slower = _SOON_S if found else min(self._interval * 1.5, _SELDOM_S)
        self._interval = min(max(slower, (now - begun) * _SHARE), _AT_MOST_S)
        self._scan_at = now + self._interval

    def _see_stops(self) -> None:
        for process in self._tree.changes():
            if process.stopped:
                name = signal_name(process.stop_signal) if process.stop_signal else None
                self._tell("pause", process, signal=name)
            else:
                self._tell("resume", process, signal="SIGCONT")

    def _look(self, process: Process) -> None:
        """Tell of a process's end, if it has ended."""
        ended, status = self._tree.end_of(process)
        if not ended:
            self._lingering[process.pid] = process
            return
        self._lingering.pop(process.pid, None)
        self._tree.drop(process)
        if process.pid == self._pid:
            self._status = status or 0
            self._deadline = time.monotonic() + self._rules.grace_seconds
            # What it did last, before anybody asks whether all is over.
            self._hear_of_forks_and_exits()
            self._scan()
        self._tell_end(process, status)

    def _tell_end(self, process: Process, status: int | None) -> None:
        exited = self._exits.pop(process.pid, None)
        if status is None and exited is not None:
            status = exited.status
        if exited is not None and exited.status == status:
            since = until = exited.at_unix_nano
        else:
            # It lived when it was found, and when a later poll did not report it.
            polled = process.held_unix_nano <= self._polled_at
            since, until = max(process.alive_unix_nano, self._polled_at if polled else 0), time.time_ns()
        if process.stopped and status != signal.SIGKILL:
            # Whatever else ended it, it was continued before.
            self._tell("resume", process, signal="SIGCONT", moment=(self._polled_at, until))
        self._tell_how(process, status, (since, until))

    def _tell_how(self, process: Process, status: int | None, moment: tuple[int, int]) -> None:
        if status is not None and os.WIFSIGNALED(status):
            self._crashed(process, signal_name(os.WTERMSIG(status)), moment)
        elif process.pid == self._pid or process.pid in self._producers:
            self._tell("exit", process, code=None if status is None else os.WEXITSTATUS(status), moment=moment)
        self._producers.pop(process.pid, None)

    def _crashed(self, process: Process, name: str, moment: tuple[int, int]) -> None:
        self._crashes += 1
        if len(self._killed) < _KILLED:
            self._killed.append(Killed(process.pid, process.name, name))
        self._tell("crash", process, signal=name, moment=moment)

    def _tell(
        self,
        event: str,
        process: Process,
        *,
        signal: str | None = None,
        code: int | None = None,
        moment: tuple[int, int] | None = None,
    ) -> None:
        attributes = {
            "process.pid": process.pid,
            "process.parent_pid": process.parent,
            "process.executable.name": process.name or None,
            "process.signal": signal,
            "process.exit.code": code,
            "fencepost.producers": tuple(self._producers.get(process.pid, ())) or None,
        }
        self._told.event(event, attributes, moment)

    def _hear_of_logs(self) -> None:
        """A new log is a process that records: it is watched from now on, not only from the next look at /proc."""
        for name in self._logs.names() if self._logs is not None else ():
            match = _PRODUCER.fullmatch(name)
            pid = int(match[2]) if match is not None else os.getpid()
            if match is None or pid == os.getpid():
                continue
            known = self._producers.setdefault(pid, [])
            if match[1] not in known:
                known.append(match[1])
            if pid not in self._tree.by_pid:
                self._scan()

    def _hear_of_forks_and_exits(self) -> None:
        """The kernel's news, where it can be had: a process is held as soon as it is forked, and its end is exact."""
        if self._kernel is None:
            return
        for event in self._kernel.news():
            if isinstance(event, Forked):
                if event.pid not in self._rules.own and self._is_ours(event.parent):
                    process = self._tree.hold(event.pid)
                    if process is not None:
                        self._poll.register(process.pidfd, select.EPOLLIN | select.EPOLLET)
                    elif event.pid not in self._tree.by_pid:
                        self._ghosts[event.pid] = event.parent
            elif event.pid in self._tree.by_pid:
                self._exits[event.pid] = event
            elif (parent := self._ghosts.pop(event.pid, None)) is not None:
                self._hear_of_logs()  # It may have recorded since they were last asked for.
                at = event.at_unix_nano
                self._tell_how(Process(event.pid, parent, "", 0, -1, at, at), event.status, (at, at))
        if self._kernel.overrun:
            self._kernel.overrun = False
            self._ghosts.clear()
            self._scan()

    def _is_ours(self, pid: int) -> bool:
        return pid == os.getpid() or pid in self._tree.by_pid or pid in self._ghosts

    # What there is to do

    def _heed(self) -> None:
        numbers = self._heeded.numbers()
        if signal.SIGCHLD in numbers:
            # A child stopped or went on, or an orphan that became ours before it was found has ended.
            self._scan_at = min(self._scan_at, time.monotonic() + _SOON_S / 2)
        for number in numbers:
            if number in STOPPING:
                self._stop(number)
            elif number == signal.SIGCHLD:
                continue
            elif self._status is None:
                if not self._bystander.heard(number):
                    self._send(number)
            elif number in _TIRED:
                self._hurry()

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self._pid, number)

    def _stop(self, number: int) -> None:
        """Be stopped together with the command, so that the shell sees the job stopped; back when continued."""
        if self._status is None and not self._bystander.heard(number):
            self._send(number)
        if not self._comes_to_stop():
            return
        stop_as(number)
        self._see_stops()

    def _comes_to_stop(self) -> bool:
        """Whether the command is stopped now or in a moment; it may as well catch the signal and go on."""
        until = time.monotonic() + _STOPPING_S
        while True:
            self._see_stops()
            process = self._tree.by_pid.get(self._pid)
            if process is None or process.stopped:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(_SOON_S / 2)

    def _say_who_is_left(self) -> None:
        left = sorted(self._tree.by_pid)
        seconds = (self._deadline or 0.0) - time.monotonic()
        if self._said or seconds > self._rules.grace_seconds - _WORTH_SAYING_S:
            return
        self._said = True
        self._rules.say(f"the command has ended; its processes {_listed(left)} have {seconds + 0.5:.0f} s to end, too")

    def _hurry(self) -> None:
        """The command has ended, and whoever waits is tired of it."""
        self._deadline = time.monotonic()

    def _is_over(self) -> bool:
        if self._status is None or self._deadline is None:
            return False
        if not self._tree.by_pid:
            return True
        if time.monotonic() < self._deadline:
            self._say_who_is_left()
            return False
        if not self._rules.end_rest:
            return True
        self._signal_all(signal.SIGKILL if self._asked_to_end else signal.SIGTERM)
        self._asked_to_end = True
        self._deadline = time.monotonic() + _ENDING_S
        return False

    def _signal_all(self, number: int) -> None:
        for process in self._tree:
            with suppress(OSError):
                signal.pidfd_send_signal(process.pidfd, number)

    def _ended(self) -> Ended:
        status = self._status or 0
        by_signal = signal_name(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else None
        left = tuple(sorted(self._tree.by_pid))
        killed = tuple(self._killed)
        return Ended(self._code(), by_signal, self._crashes, killed, left, len(self._tree.unwatched), self._told.spans)

    def _code(self) -> int:
        status = self._status or 0
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _listed(pids: list[int]) -> str:
    shown = ", ".join(str(pid) for pid in pids[:8])
    return shown if len(pids) <= 8 else f"{shown} and {len(pids) - 8} more"


def _or_none(make: Callable[[], _Source]) -> _Source | None:
    """A source of news, or None where the kernel gives none: then things are seen at the next look at /proc."""
    try:
        return make()
    except OSError:
        return None


def _raise_descriptor_limit() -> None:
    with suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
