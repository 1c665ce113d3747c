"""The process driver: the same coroutines as operating-system processes on a real database.

Faults are real: SIGKILL and SIGSTOP that a process sends itself at the step, connections that lose what was
said. `python -m fencepost_runtime SPEC.json` runs one scenario in a process that has no threads, so that its
actors can be forked cheaply and safely.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from opentelemetry import trace

from .backends import Database
from .drive import SILENT, Faults, perform, reaches, work_ns
from .errors import BackendError, ConnectionLost, ScenarioError
from .facts import Narrator
from .operations import Backend
from .scenario import Scenario
from .spans import SpanSink
from .steps import Step

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Spec:
    """What one run needs. `telemetry` is `module:function`, called in each process with its actor's name.

    The runtime itself knows only the OpenTelemetry API: whoever starts it says by `telemetry` where the spans go.
    """

    scenario: Scenario
    database: Database
    seed: int
    telemetry: str
    simulated: bool = False

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Raises ScenarioError if the file is not a spec."""
        try:
            data = json.loads(path.read_text("utf-8"))
            scenario = Scenario.from_dict(data.pop("scenario"))
            return cls(scenario, Database(**data.pop("database")), **data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScenarioError(f"{path} is not a run's specification: {error}.") from error

    def write(self, path: Path) -> None:
        """Into a new file, which nobody else may read: a database's address may hold a password."""
        data = {
            "scenario": self.scenario.to_dict(),
            "database": self.database.to_dict(),
            "seed": self.seed,
            "telemetry": self.telemetry,
            "simulated": self.simulated,
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(data, file)


def hook(telemetry: str) -> Callable[[str], object]:
    """The function that says where a process's spans go. Imported before the fork, so that nobody pays for it twice.

    Raises ScenarioError if there is none.
    """
    module, _, function = telemetry.partition(":")
    try:
        found: Callable[[str], object] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScenarioError(f"There is no telemetry hook {telemetry!r}: {error}.") from error
    return found


def flush() -> None:
    """Let the tracer provider end in order, if it is one that can."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()


def die_with_parent(parent: int) -> None:
    """A supervisor that is killed must not leave its actors behind (Linux prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before it was asked.
        _kill_self()


class Child:
    """One actor in a process of its own: reports to the supervisor, waits on its word to stop."""

    def __init__(self, name: str, spec: Spec, report: int, stop: int) -> None:
        self._name = name
        self._faults = Faults(spec.scenario.faults)
        self._awaited = [fault.until for fault in spec.scenario.faults if fault.until is not None]
        self._report = report
        self._stop = stop
        self._backend: Backend = spec.database.open()
        self._narrator = Narrator(name, SpanSink(spec.database.system))

    def run(self, script: Coroutine[Step, Any, None]) -> None:
        answer: Any = None
        while True:
            try:
                step = script.throw(answer) if isinstance(answer, Exception) else script.send(answer)
            except StopIteration:
                return
            self._interrupt(step, "before")
            answer = self._silent(step) if step.name in SILENT else self._perform(step)
            self._interrupt(step, "after")

    def _perform(self, step: Step) -> Any:
        try:
            answer = perform(
                step,
                self._faults,
                backend=self._backend,
                clock=time.time_ns,
                narrator=self._narrator,
                die=_kill_self,
            )
        except (BackendError, ConnectionLost) as error:
            answer = error
        if answer is not None and step.name in ("lease", "scan"):
            self._say("busy")
        for number, point in enumerate(self._awaited):
            if reaches(point, step, answer):
                self._say("reached", number)
        return answer

    def _silent(self, step: Step) -> Any:
        match step.name:
            case "idle":
                self._say("idle")
                # The supervisor closes its end when the run is over: that wakes everybody at once.
                over, _, _ = select.select([self._stop], [], [], step.planned_ns / 1e9)
                return not over
            case "work":
                return work_ns(step, self._faults)
            case "sleep":
                time.sleep(step.planned_ns / 1e9)
        return None

    def _interrupt(self, step: Step, when: Any) -> None:
        fault = self._faults.strike(step, when)
        if fault is None:
            return
        if fault.kind == "kill":
            _kill_self()
        number = self._awaited.index(fault.until) if fault.until is not None else -1
        self._say("stopping", number, fault.at_most_ms)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _say(self, what: str, *values: int) -> None:
        # Shorter than PIPE_BUF, so lines of several processes never mix (pipe(7)).
        os.write(self._report, json.dumps([self._name, what, *values]).encode() + b"\n")


def _kill_self() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # The signal is on its way; not another step is taken.
        signal.pause()


def _leave_signals() -> None:
    """Ctrl-C reaches the whole group: the supervisor decides what becomes of its actors."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def fork_child(
    name: str,
    spec: Spec,
    script: Coroutine[Step, Any, None],
    *,
    close: Callable[[], None],
    report: int,
    stop: int,
) -> int:
    """Fork one actor; answers its process id."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        script.close()
        return pid
    status = 1
    try:
        die_with_parent(parent)
        close()
        _leave_signals()
        hook(spec.telemetry)(name)
        Child(name, spec, report, stop).run(script)
        flush()
        status = 0
    except BaseException as error:
        os.write(2, f"{name}: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)
