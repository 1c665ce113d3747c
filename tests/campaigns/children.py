"""Children that can be cut at any operation: forked, so that one costs milliseconds, and the same each time.

In a child time goes on by a microsecond a look, every process has the number 4242 and nothing is drawn: two children
that do the same do the same operations with the same bytes, and two crashes that leave the same can be told.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.operations import PACKAGE, Operation, Plan, Tap

from fencepost_recorder.errors import RecorderError

PID = 4242
_EPOCH_NANO = 1_790_000_100_000_000_000
_real_getpid, _real_kill = os.getpid, os.kill


def die() -> None:
    """As by `kill -9` at this very point."""
    _real_kill(_real_getpid(), signal.SIGKILL)


class Cut(Plan):
    """Let everything pass up to operation `number`, and end there: before it, after half of a write, or after it."""

    def __init__(self, number: int, moment: str, end: Callable[[], None] = die) -> None:
        self.number = number
        self.moment = moment
        self._end = end

    def around(self, operation: Operation, call: Callable[[bytes | None], Any]) -> Any:
        if operation.number != self.number:
            return call(None)
        if self.moment == "half" and operation.data:
            call(operation.data[: len(operation.data) // 2])
        elif self.moment != "before":
            call(None)
        self._end()
        return None


class Traced(Plan):
    """Let everything pass, and keep it."""

    def __init__(self) -> None:
        self.seen: list[Operation] = []

    def around(self, operation: Operation, call: Callable[[bytes | None], Any]) -> Any:
        result = call(None)
        size = result if operation.kind in ("write", "pwrite") else None
        if size is not None and size < len(operation.data):
            operation = Operation(
                operation.number, operation.kind, operation.path, "", operation.data[:size], operation.at
            )
        self.seen.append(operation)
        return result


@dataclass
class Outcome:
    """How a child ended: killed at its operation, or with a value, a sentence for the user, or a traceback."""

    killed: bool = False
    value: Any = None
    refused: str = ""
    crashed: str = ""
    operations: list[Operation] = field(default_factory=list)
    count: int = 0

    @property
    def failed(self) -> str:
        """Why it did not do what it should; empty when it did, or was killed."""
        return self.crashed or self.refused


Change = Callable[[], None]


def run(action: Callable[[Tap], Any], root: Path, plan: Plan, change: Change | None = None) -> Outcome:
    """Run an action in a child whose operations below `root` go through the plan; `change` breaks its code first."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        _be_a_child(action, root, plan, change, say)
    os.close(say)
    with os.fdopen(hear, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Outcome(killed=os.WTERMSIG(status) == signal.SIGKILL, crashed=_signalled(status))
    outcome = pickle.loads(told) if told else Outcome(crashed=f"ended with status {status} and said nothing")
    assert isinstance(outcome, Outcome)
    return outcome


def _signalled(status: int) -> str:
    number = os.WTERMSIG(status)
    return "" if number == signal.SIGKILL else f"killed by signal {number}"


def _be_a_child(action: Callable[[Tap], Any], root: Path, plan: Plan, change: Change | None, say: int) -> None:
    outcome = Outcome()
    write = os.write
    tap = Tap(root, plan)
    try:
        _stand_still()
        tap.install()
        if change is not None:
            change()
        try:
            outcome.value = action(tap)
        except RecorderError as error:
            outcome.refused = str(error)
    except BaseException:
        outcome.crashed = traceback.format_exc()
    outcome.count = tap.count
    outcome.operations = plan.seen if isinstance(plan, Traced) else []
    data = pickle.dumps(outcome)
    while data:
        data = data[write(say, data) :]
    os._exit(0)


def _stand_still() -> None:
    """Time and process numbers that are the same each time, under whatever name a module knows them."""
    ticks = itertools.count(_EPOCH_NANO, 1_000)
    still: dict[Any, Any] = {
        time.time_ns: lambda: next(ticks),
        time.time: lambda: next(ticks) / 1e9,
        time.clock_gettime_ns: lambda _: next(ticks),
        time.monotonic_ns: lambda: next(ticks),
        os.getpid: lambda: PID,
    }
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == PACKAGE]
    for module in (os, time, *modules):
        for name, value in list(vars(module).items()):
            for real, stand_in in still.items():
                if value is real:
                    setattr(module, name, stand_in)
