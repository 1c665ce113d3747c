"""The supervisor of a run of real processes: sees crashes, pauses and resumes, and knows when the run is over."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import NoReturn

from . import drive
from .actors import MS, stocktaking
from .drive import Faults, nothing_left, perform, producer_name
from .errors import BackendError, ConnectionLost
from .facts import Narrator
from .processes import Spec, flush, fork_child, hook
from .scenario import REPEATED
from .spans import SpanSink, announce
from .world import SUPERVISOR, cast

# How long one wait may last before the supervisor looks at its children and deadlines again.
TICK_S = 0.05

INTERRUPTED, OVERDUE = 130, 4
"""Exit codes: after Ctrl-C or SIGTERM, and when the run had not come to its end after the scenario's at_most_ms."""


@dataclass(slots=True)
class _Paused:
    """A stopped process: resumed when point number `until` (-1: none) is reached, or at `deadline_ns`."""

    until: int
    deadline_ns: int
    stopped: bool = False


class Supervisor:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._names: dict[int, str] = {}
        self._idle: set[str] = set()
        self._paused: dict[str, _Paused] = {}
        self._reached: set[int] = set()
        awaited = [fault.until.step for fault in spec.scenario.faults if fault.until is not None]
        self._repeated = {number for number, step in enumerate(awaited) if step in REPEATED}
        self._buffer = b""
        self._interrupted = False
        # Why we ended the actors ourselves: told with their deaths, or these would pass for crashes of their own.
        self._cut = ""

    def run(self) -> int:
        """Answers the exit code: 0, INTERRUPTED or OVERDUE. An actor that failed by itself is a crash told."""
        database = self._spec.database
        database.open().close()  # The tables are there before anybody races to use them.
        self._reports, report = os.pipe()
        stop, self._stop = os.pipe()
        configure = hook(self._spec.telemetry)
        self._heed_signals()
        self._fork(report, stop)
        os.close(report)
        os.close(stop)
        configure(SUPERVISOR)
        self._narrator = Narrator(SUPERVISOR, SpanSink(database.system))
        self._backend = database.open()
        scenario = self._spec.scenario
        announce(scenario.id, self._spec.seed, scenario.to_json(), time.time_ns(), database.system)
        self._supervise()
        self._take_stock()
        flush()
        return INTERRUPTED if self._interrupted else OVERDUE if self._cut else 0

    def _heed_signals(self) -> None:
        """Signals end a wait at once: a death is told when it happens, not when somebody looks."""
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)
        signal.signal(signal.SIGCHLD, _wake)

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True

    def _fork(self, report: int, stop: int) -> None:
        def close() -> None:
            os.close(self._reports)
            os.close(self._stop)

        for name, script in cast(self._spec.scenario):
            pid = fork_child(name, self._spec, script, close=close, report=report, stop=stop)
            self._names[pid] = name

    def _supervise(self) -> None:
        deadline = time.monotonic() + self._spec.scenario.at_most_ms / 1_000
        stopping = False
        while self._names:
            self._listen()
            self._watch()
            self._resume_due()
            if self._interrupted or time.monotonic() > deadline:
                self._watch()  # Whoever died before by another hand is told as such.
                self._cut = drive.INTERRUPTED if self._interrupted else drive.OUT_OF_TIME
                self._kill_all()
            elif not stopping and self._finished():
                os.close(self._stop)
                stopping = True

    def _listen(self, wait_s: float = TICK_S) -> None:
        """Hear what the children have said, waiting for a word or a signal."""
        ready, _, _ = select.select([self._reports, self._signals], [], [], wait_s)
        if self._signals in ready:
            os.read(self._signals, 65_536)
        if self._reports not in ready:
            return
        self._buffer += os.read(self._reports, 65_536)
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._hear(*json.loads(line))

    def _hear(self, name: str, what: str, *values: int) -> None:
        match what:
            case "idle":
                self._idle.add(name)
            case "busy":
                self._idle.discard(name)
            case "reached":
                self._reach(values[0])
            case "stopping":
                # Heard before or after its process was seen to stop.
                stopped = name in self._paused
                self._paused[name] = _Paused(values[0], time.monotonic_ns() + values[1] * MS, stopped)

    def _reach(self, number: int) -> None:
        if number not in self._repeated:
            self._reached.add(number)
        for paused in self._paused.values():
            if paused.until == number:
                paused.deadline_ns = 0

    def _watch(self) -> None:
        """Take note of children that stopped or ended."""
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            name = self._names[pid]
            if os.WIFSTOPPED(status):
                self._narrator.observed("pause", name, "SIGSTOP", time.time_ns(), pid)
                # Its last words may still be in the pipe; whoever stopped it from outside said none.
                self._paused.setdefault(name, _Paused(-1, time.monotonic_ns() + 10_000 * MS)).stopped = True
                continue
            del self._names[pid]
            self._paused.pop(name, None)
            if os.WIFSIGNALED(status):
                word = signal.Signals(os.WTERMSIG(status)).name + self._cut
                self._narrator.observed("crash", name, word, time.time_ns(), pid)
            elif os.WEXITSTATUS(status):
                self._narrator.observed("crash", name, f"exit {os.WEXITSTATUS(status)}", time.time_ns(), pid)

    def _resume_due(self) -> None:
        pids = {name: pid for pid, name in self._names.items()}
        for name, paused in list(self._paused.items()):
            due = paused.until in self._reached or time.monotonic_ns() >= paused.deadline_ns
            if paused.stopped and due:
                del self._paused[name]
                # Told first, so that nothing which the process does next can seem to precede it.
                self._narrator.observed("resume", name, "SIGCONT", time.time_ns(), pids[name])
                os.kill(pids[name], signal.SIGCONT)

    def _finished(self) -> bool:
        """Nothing moves any more: every live actor is idle and no queue holds a job that one could take."""
        live = set(self._names.values())
        if self._paused or any(producer_name(queue) in live for queue in self._spec.scenario.queues):
            return False
        # Read the queues first, the reports after: a worker that took a job in between has said so.
        if not nothing_left(self._spec.scenario, self._backend.held, live):
            return False
        self._listen(wait_s=0)
        return live <= self._idle

    def _kill_all(self) -> None:
        for pid in self._names:
            os.kill(pid, signal.SIGKILL)

    def _take_stock(self) -> None:
        script = stocktaking(queue.name for queue in self._spec.scenario.queues)
        answer = None
        while True:
            try:
                step = script.send(answer)
            except StopIteration:
                return
            try:
                answer = perform(
                    step,
                    Faults(()),
                    backend=self._backend,
                    clock=time.time_ns,
                    narrator=self._narrator,
                    die=_never,
                )
            except (BackendError, ConnectionLost):
                return  # No inventory: the analyzer says unknown, not lost.


def _wake(number: int, frame: object) -> None:
    """Nothing to do but to end the wait."""


def _never() -> NoReturn:
    raise AssertionError("the supervisor has no faults")
