"""Shrink: the smallest scenario that still breaks the same promise.

Every way to take one thing away is tried at once and judged in one query; the shortest history that still
breaks the invariant is taken, until nothing can go: then no queue, job, worker, fault or effect, no wait and no
earlier attempt can be left out by itself. That is 1-minimality (Zeller and Hildebrandt, Simplifying and Isolating
Failure-Inducing Input, 2002); as there, large parts are tried before small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.lab.bulk import judged
from fencepost_analyzer.lab.cases import only
from fencepost_runtime.errors import ScenarioError
from fencepost_runtime.operations import Job
from fencepost_runtime.scenario import Fault, Point, Queue, Scenario

# Parts that jobs are cut into before they are tried one by one.
MAX_PARTS = 16


class NothingToShrink(AnalyzerError):
    """The scenario does not break that invariant in the simulator: `explore` finds schedules that do."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """`events`, `events_before`: of the simulated histories; `tried`: scenarios that were simulated and judged."""

    scenario: Scenario
    invariant: str
    events: int
    events_before: int
    tried: int


def shrink(
    scenario: Scenario,
    seed: int,
    invariant: str,
    *,
    suspects: Iterable[str] = (),
    invariants: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Shrunk:
    """The smallest scenario that is left of this one by taking things away and still breaks `invariant`.

    `suspects`: jobs that are tried by themselves first. `progress(events, tried)` is called for each smaller one.
    Raises NothingToShrink, and InvariantError for an invariant that is not there."""
    judge = _Judge(seed, invariant, invariants)
    first = judge.smallest([scenario])
    if first is None:
        raise NothingToShrink(
            f"The scenario does not break {invariant} in the simulator with seed {seed}: there is nothing to shrink. "
            "`fencepost explore` looks for schedules that break something."
        )
    found, events = first
    alone = [only(scenario, {job}) for job in dict.fromkeys((*suspects, *_struck(scenario)))]
    found, events = judge.smallest(alone) or (found, events)
    progress(events, judge.tried)
    smaller = True
    while smaller:
        smaller = False
        for ways in (_coarse(found), _fine(found)):
            better = judge.smallest(ways)
            if better is not None:
                (found, events), smaller = better, True
                progress(events, judge.tried)
                break
    return Shrunk(found, invariant, events, first[1], judge.tried)


def broken_by(scenario: Scenario, seed: int, invariants: Sequence[Path] = ()) -> tuple[str, ...]:
    """The invariants that a scenario breaks in the simulator."""
    return next(judged([scenario], seed, invariants)).judgement.violated


def ways(scenario: Scenario) -> list[Scenario]:
    """Every scenario that is this one without one thing."""
    return list(_fine(scenario))


class _Judge:
    def __init__(self, seed: int, invariant: str, invariants: Sequence[Path]) -> None:
        self._seed = seed
        self._invariant = invariant
        self._invariants = invariants
        self.tried = 0

    def smallest(self, scenarios: Iterable[Scenario]) -> tuple[Scenario, int] | None:
        """Of those that break the invariant the one with the shortest history, and its number of events."""
        broken: list[tuple[Scenario, int]] = []
        for scenario, events, judgement in judged(scenarios, self._seed, self._invariants, (self._invariant,)):
            self.tried += 1
            if judgement.violated:
                broken.append((scenario, events))
        return min(broken, key=lambda one: (one[1], _weight(one[0])), default=None)


def _weight(scenario: Scenario) -> tuple[int, ...]:
    """What counts among histories of one length."""
    workers = sum(queue.workers for queue in scenario.queues)
    waits = sum(fault.until is not None for fault in scenario.faults)
    attempts = sum(fault.at.attempt for fault in scenario.faults)
    work = sum(job.work_ms for job in scenario.jobs)
    return len(scenario.faults), workers, waits, attempts, work


def _struck(scenario: Scenario) -> Iterator[str]:
    for fault in scenario.faults:
        yield fault.at.job


def _coarse(scenario: Scenario) -> Iterator[Scenario]:
    """Without whole queues, and without half of the jobs, a quarter, and so on."""
    ids = [job.id for job in scenario.jobs]
    if len(scenario.queues) > 1:
        for queue in scenario.queues:
            yield only(scenario, set(ids) - {job.id for job in queue.jobs})
    parts = 2
    while parts <= min(MAX_PARTS, len(ids) // 2):
        size = -(-len(ids) // parts)
        for start in range(0, len(ids), size):
            yield only(scenario, {*ids[:start], *ids[start + size :]})
        parts *= 2


def _fine(scenario: Scenario) -> Iterator[Scenario]:
    """Without one thing."""
    ids = {job.id for job in scenario.jobs}
    if len(ids) > 1:
        for job_id in sorted(ids):
            yield only(scenario, ids - {job_id})
    for number, fault in enumerate(scenario.faults):
        before, after = scenario.faults[:number], scenario.faults[number + 1 :]
        for fewer in ((), *((simpler,) for simpler in _simpler(fault))):
            yield from _possible(replace(scenario, faults=(*before, *fewer, *after)))
    for number, queue in enumerate(scenario.queues):
        for smaller in _smaller(queue):
            queues = (*scenario.queues[:number], smaller, *scenario.queues[number + 1 :])
            yield from _possible(replace(scenario, queues=queues))
    for job in scenario.jobs:
        for index in range(len(job.effects)):
            yield from _possible(_without_effect(scenario, job, index))


def _simpler(fault: Fault) -> Iterator[Fault]:
    """The same at an earlier attempt, or without waiting for another's step."""
    if fault.until is not None:
        yield replace(fault, until=None)
    if fault.at.attempt > 1:
        yield replace(fault, at=replace(fault.at, attempt=fault.at.attempt - 1))


def _smaller(queue: Queue) -> Iterator[Queue]:
    if queue.workers > 1:
        yield replace(queue, workers=queue.workers - 1)
    for number, job in enumerate(queue.jobs):
        if job.work_ms:
            jobs = (*queue.jobs[:number], replace(job, work_ms=0), *queue.jobs[number + 1 :])
            yield replace(queue, jobs=jobs)


def _without_effect(scenario: Scenario, job: Job, index: int) -> Scenario:
    """A job without one effect; faults that were bound to it strike the next one, or the last that is left."""
    left = (*job.effects[:index], *job.effects[index + 1 :])
    smaller = replace(job, effects=left)
    queues = tuple(
        replace(queue, jobs=tuple(smaller if one.id == job.id else one for one in queue.jobs))
        for queue in scenario.queues
    )

    def moved(point: Point) -> Point:
        if point.job != job.id or point.step not in ("write", "work"):
            return point
        last = len(left) if point.step == "work" else len(left) - 1
        return replace(point, index=max(0, min(last, point.index - (point.index > index))))

    faults = tuple(
        replace(fault, at=moved(fault.at), until=moved(fault.until) if fault.until is not None else None)
        for fault in scenario.faults
    )
    return replace(scenario, queues=queues, faults=faults)


def _possible(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario if it can be run."""
    try:
        yield Scenario.from_dict(scenario.to_dict())
    except ScenarioError:
        return
