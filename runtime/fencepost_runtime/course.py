"""The way that a simulated run took, so that another one that begins alike need not repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .columns import ColumnSink
from .drive import Faults
from .memory import MemoryBackend
from .scenario import Fault, Point
from .steps import Step

# Of how many steps of one run it is kept how all stood: memory stays bounded however long the run is.
MAX_MOMENTS = 1_000

# Job, attempt, step, index: a place where a fault could strike.
Place = tuple[str, int, str, int]


class Stood(NamedTuple):
    """How an actor stood at a moment: `answered` of `answers` had been given then."""

    wake_at: int
    idle: bool
    paused: Fault | None
    drawn: int
    at_work: bool
    answers: list[Any]
    answered: int
    run: Any


class Moment(NamedTuple):
    """All that a run was when it came to its step `number`: copies, which nobody changes any more."""

    number: int
    now: int
    over: bool
    stopped: tuple[str, ...]
    reached: frozenset[Point]
    faults: Faults
    backend: MemoryBackend
    sink: ColumnSink
    trail: tuple[Any, ...]
    actors: tuple[Stood, ...]


class Course:
    """How all stood when a run first came to each step of a job. A run of the same scenario with one more fault is the
    same until it comes to the step which that fault strikes."""

    def __init__(self) -> None:
        # None: the run came there, but how all stood then was not kept.
        self._moments: dict[Place, Moment | None] = {}

    def note(self, step: Step, moment: Callable[[int], Moment]) -> None:
        """The run comes to a step; `moment(number)` is how all stand."""
        job_id = step.job_id
        if job_id is None:
            return
        new = [place for name in step.names if (place := (job_id, step.attempt, name, step.index)) not in self._moments]
        if new:
            number = len(self._moments)
            self._moments.update(dict.fromkeys(new, moment(number) if number < MAX_MOMENTS else None))

    def go_on_as(self, other: Course, moment: Moment) -> None:
        """The run is that of another course up to a moment, but for a fault that has not struck yet."""
        self._moments = {
            place: None for place, stood in other._moments.items() if stood is None or stood.number < moment.number
        }

    def before(self, fault: Fault) -> Moment | None:
        """A moment up to which the fault makes no difference; None if that is known of the beginning only."""
        moment = self._moments.get(_place(fault.at))
        if moment is not None and fault.until is not None and _place(fault.until) in self._moments:
            # Whoever waits for what has happened already does not wait, and nobody watched for it then.
            until = self._moments[_place(fault.until)]
            return moment if until is not None and until.number > moment.number else None
        return moment


def _place(point: Point) -> Place:
    return point.job, point.attempt, point.step, point.index
