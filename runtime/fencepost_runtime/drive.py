"""What both drivers share: performing one step, striking it with its fault, and knowing when a run is over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from .actors import MS
from .errors import BackendError, ConnectionLost
from .facts import Narrator
from .operations import Backend, Clock, Scanned, State
from .scenario import Fault, Point, Queue, Scenario, When
from .steps import Step

# Steps that a driver answers by itself: nothing durable happens and nothing is told.
SILENT = ("work", "idle", "sleep")
# Steps that ask whether there is something to do.
POLLS = ("lease", "scan")
# What the reason of a death ends with where the supervisor brought it about because the run had to end.
INTERRUPTED, OUT_OF_TIME = CUT_SHORT = (", interrupted", ", out of time")


class Faults:
    """The scenario's faults by the step they strike; each strikes once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._left: list[Fault] = list(faults)
        self._struck: list[Fault] = []
        self._names = _struck_by(self._left)

    def add(self, fault: Fault) -> None:
        self._left.append(fault)
        self._names = _struck_by(self._left)

    @property
    def left(self) -> tuple[Fault, ...]:
        """Those that have not struck."""
        return tuple(self._left)

    @property
    def struck(self) -> Sequence[Fault]:
        """Those that have, in the order in which they did."""
        return self._struck

    def copy(self) -> Faults:
        copied = Faults(self._left)
        copied._struck = list(self._struck)
        return copied

    def may_strike(self, step: Step) -> bool:
        """Whether any of them strikes steps of this name."""
        return step.name in self._names

    def strike(self, step: Step, when: When | None = None) -> Fault | None:
        """The fault due at this step; with `when`, only a kill or pause at that moment of it."""
        if step.name not in self._names:
            return None
        for fault in self._left:
            wanted = fault.kind in ("kill", "pause") and fault.at.when == when
            if when is None:
                wanted = fault.kind not in ("kill", "pause")
            if wanted and matches(fault.at, step):
                self._left.remove(fault)
                self._struck.append(fault)
                self._names = _struck_by(self._left)
                return fault
        return None


def _struck_by(faults: Iterable[Fault]) -> set[str]:
    """The steps that any of them strikes, by their own names: most steps are none of these."""
    names = {fault.at.step for fault in faults}
    if "settle" in names:
        names.add("apply")  # It may settle as well.
    return names


def matches(point: Point, step: Step) -> bool:
    return (
        point.step in step.names
        and point.job == step.job_id
        and point.attempt == step.attempt
        and point.index == step.index
    )


def reaches(point: Point, step: Step, answer: Any) -> bool:
    """Whether a step that was performed is the one until which a pause lasts: a scan is that of each job whose lease it
    found run out, and a reclaim is the next, whichever it is of its job."""
    if step.name == "scan":
        return point.step == "scan" and isinstance(answer, Scanned) and point.job in dict(answer.leases)
    if step.name == "reclaim":
        return point.step == "reclaim" and point.job == step.job_id
    return matches(point, step)


def perform(
    step: Step,
    faults: Faults,
    *,
    backend: Backend,
    clock: Clock,
    narrator: Narrator,
    die: Callable[[], NoReturn],
) -> Any:
    """Tell that the step begins, apply it, tell what it answered; answers that.

    Raises BackendError or ConnectionLost, for the coroutine to handle, when the step or its fault does.
    """
    fault = faults.strike(step)
    step = narrator.before(step, clock())
    try:
        if faults.strike(step, "begun"):
            narrator.unsent(step, clock())
            die()
        _refuse(fault, step)
        result = backend.apply(step.operation, clock) if step.operation is not None else None
        if faults.strike(step, "committed"):
            narrator.unheard(step, result, clock())
            die()
        if fault is not None and fault.kind == "lost_reply":
            narrator.unheard(step, result, clock())
            raise ConnectionLost
    except (BackendError, ConnectionLost) as error:
        narrator.failed(step, error, clock())
        raise
    narrator.after(step, result, clock())
    return result


def _refuse(fault: Fault | None, step: Step) -> None:
    if fault is None:
        return
    # Whatever goes wrong inside an open transaction, it is rolled back: there is no doubt.
    if fault.kind == "db_error" or step.effect is not None:
        raise BackendError(f"The database refused the {step.name} step, as the scenario told it to.")
    if fault.kind == "lost_request":
        raise ConnectionLost


def work_ns(step: Step, faults: Faults) -> int:
    """How long a work step takes: as planned, or as long as its slow fault says."""
    fault = faults.strike(step)
    return fault.at_most_ms * MS if fault is not None else step.planned_ns


def producer_name(queue: Queue) -> str:
    return f"{queue.name}-producer"


def worker_name(queue: Queue, number: int) -> str:
    """The name of a queue's worker `number`, from 1."""
    return f"{queue.name}-worker-{number}"


def reclaimer_name(queue: Queue) -> str:
    return f"{queue.name}-reclaimer"


def nothing_left(
    scenario: Scenario, held: Callable[[str], tuple[tuple[str, State], ...]], live: Collection[str]
) -> bool:
    """Whether no queue holds a job that an actor could still move, given the names of those alive, all of them idle."""
    for queue in scenario.queues:
        movable: set[State] = set()
        if any(worker_name(queue, number) in live for number in range(1, queue.workers + 1)):
            movable.add("ready")
        if reclaimer_name(queue) in live:
            movable.add("leased")
        if any(state in movable for _, state in held(queue.name)):
            return False
    return True
