"""What may go wrong next: the faults that could strike a simulated run after those that struck it already.

Moments between which nothing durable happens are one moment: a worker that dies after a write was committed, before it
was told, or before its next step leaves the same queue and the same store behind. So each interval between two durable
steps of an actor is tried once, which is the reduction by persistent sets (Godefroid, Partial-Order Methods, 1996) in
its simplest form. Orders of faults come from the runs themselves: a set of faults is reached along the one order in
which its members strike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fencepost_runtime.actors import MS
from fencepost_runtime.scenario import DURABLE, MAX_MS, OF_NO_JOB, REPEATED, Fault, Point, Queue, Scenario
from fencepost_runtime.simulate import Passed
from fencepost_runtime.steps import Step
from fencepost_runtime.world import Simulated

_SORTS = {
    "kill": "crashes",
    "pause": "pauses",
    "slow": "pauses",
    "lost_request": "losses",
    "lost_reply": "losses",
    "db_error": "losses",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """How many faults one schedule may have, in all and of each sort: crashes; pauses and slow work, each until after
    any step that others take meanwhile; lost replies and refusals by the database."""

    faults: int = 2
    crashes: int = 2
    pauses: int = 1
    losses: int = 1

    def allows(self, faults: Sequence[Fault]) -> bool:
        counted = dict.fromkeys(("crashes", "pauses", "losses"), 0)
        for fault in faults:
            counted[_SORTS[fault.kind]] += 1
        return len(faults) <= self.faults and all(number <= getattr(self, sort) for sort, number in counted.items())

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


NONE_ADDED = Bound(0, 0, 0, 0)


def lasting(scenario: Scenario, bound: Bound = NONE_ADDED) -> Scenario:
    """The scenario with time enough to come to its end, whatever strikes it within the bound: what was cut off by its
    time would seem to be healed. Each fault may cost a job every lease that its policy grants, and a pause. Simulated
    time costs nothing; a file holds an hour at most."""
    faults = len(scenario.faults) + bound.faults
    longest = max((one.policy.max_attempts + 1) * _stuck(one, scenario.poll_ms) for one in scenario.queues)
    return replace(scenario, at_most_ms=min(MAX_MS, scenario.at_most_ms + faults * longest))


def in_order(added: Sequence[Fault], ran: Simulated) -> bool:
    """Whether exactly these faults struck, in this order: else another set of faults stands for the same history."""
    wanted = list(added)
    return [fault for fault in ran.struck if fault in wanted] == wanted


def following(scenario: Scenario, added: Sequence[Fault], ran: Simulated, trail: Sequence[Passed]) -> Iterator[Fault]:
    """The faults that could strike a run after the last of the `added` ones did, one for each moment that differs."""
    queues = {job.id: queue for queue in scenario.queues for job in queue.jobs}
    taken = {(fault.kind, fault.at) for fault in scenario.faults}
    seen: set[Fault] = set()
    for passed in trail[_after(added, ran, trail) :]:
        step = passed.step
        if step.job_id not in queues:
            continue
        for fault in _faults(step, queues[step.job_id], scenario.poll_ms):
            if fault not in seen and (fault.kind, fault.at) not in taken:
                seen.add(fault)
                yield fault


def shorter(fault: Fault, trail: Sequence[Passed]) -> Iterator[Fault]:
    """A pause, or slow work, that ends sooner: after each step that others took for the same job meanwhile, but the
    last, after which its own end comes anyway. These are the orders in which the two can go on; where an execution
    begins, nothing durable happens, but two of them overlap from there on, and where a scan finds a lease run out, the
    reclaimer knows something that may be wrong when it takes the lease back."""
    began = next((passed for passed in trail if _is_at(passed.step, fault.at)), None)
    if began is None:
        return
    meanwhile: list[tuple[Passed, Point]] = []
    scans: dict[str, Passed] = {}
    for passed in trail:
        step = passed.step
        if passed.actor == began.actor or not began.at < passed.at <= began.at + fault.at_most_ms * MS:
            continue
        if fault.kind == "pause" and began.actor not in passed.stopped:
            continue
        if step.name == "scan":
            scans[passed.actor] = passed
        elif step.job_id == fault.at.job and (step.operation is not None or step.name == "start"):
            if step.name == "reclaim" and (scan := scans.get(passed.actor)) is not None:
                meanwhile.append((scan, Point(fault.at.job, 0, "scan", 0, "after")))
            attempt, name, index = _of(step)
            # Awaited is the next that comes.
            index = 0 if name in REPEATED else index
            meanwhile.append((passed, Point(fault.at.job, attempt, name, index, "after")))
    # One after which nothing of another comes is the end that it has anyway. Two may be one: they come within one
    # millisecond, or are of a sort of which the next is awaited.
    yield from dict.fromkeys(_until(fault, began, passed, point) for passed, point in meanwhile[:-1])


def _until(fault: Fault, began: Passed, passed: Passed, point: Point) -> Fault:
    if fault.kind == "slow":
        return Fault("slow", fault.at, at_most_ms=-(-(passed.at - began.at) // MS))
    return Fault("pause", fault.at, point, fault.at_most_ms)


def merged(
    added: Sequence[Fault], ran: Simulated, trail: Sequence[Passed], tried: Sequence[Fault], bound: Bound
) -> int:
    """How many crashes that a fault could name after the last of the `added` ones are not `tried`, for another one that
    is leaves the same behind."""
    crashes = [fault for fault in tried if fault.kind == "kill"]
    if not crashes or not bound.allows([*added, crashes[0]]):
        return 0
    named = sum(
        4 if _is_durable(passed.step) else 2
        for passed in trail[_after(added, ran, trail) :]
        if passed.step.job_id is not None and passed.step.name not in OF_NO_JOB
    )
    return max(0, named - len(crashes))


def plain(fault: Fault) -> dict[str, Any]:
    """A fault as plain data, which `fault_of` reads back."""
    return asdict(fault)


def fault_of(data: Mapping[str, Any]) -> Fault:
    """What `plain` gave. Raises KeyError or TypeError for anything else."""
    until = data["until"]
    fault = Fault(data["kind"], Point(**data["at"]), Point(**until) if until is not None else None, data["at_most_ms"])
    if fault.kind not in _SORTS or not isinstance(fault.at_most_ms, int):
        raise TypeError(fault.kind)
    return fault


def _after(added: Sequence[Fault], ran: Simulated, trail: Sequence[Passed]) -> int:
    """Where in the trail the last of the added faults had struck."""
    if not added:
        return 0
    number = max(place for place, fault in enumerate(ran.struck) if fault in added)
    return next((place + 1 for place, passed in enumerate(trail) if passed.struck > number), len(trail))


def _faults(step: Step, queue: Queue, poll_ms: int) -> Iterator[Fault]:
    point = Point(step.job_id or "", *_of(step))
    if step.name == "work":
        yield Fault("slow", point, at_most_ms=_long(queue, poll_ms))
    elif step.name == "finish":
        yield Fault("kill", point)
    elif _is_durable(step):
        yield Fault("kill", point)
        if step.execution is None:
            yield Fault("kill", Point(point.job, point.attempt, point.step, point.index, "after"))
        if step.name != "enqueue":
            lasting = _stuck if step.name == "reclaim" else _long
            yield Fault("pause", point, at_most_ms=lasting(queue, poll_ms))
        yield Fault("lost_reply", point)
        yield Fault("db_error", point)


def _of(step: Step) -> tuple[int, str, int]:
    return step.attempt, step.names[0], step.index


def _is_durable(step: Step) -> bool:
    return step.operation is not None and step.names[0] in DURABLE


def _is_at(step: Step, point: Point) -> bool:
    return step.job_id == point.job and point.step in step.names and _of(step)[::2] == (point.attempt, point.index)


def _long(queue: Queue, poll_ms: int) -> int:
    """Milliseconds after which a lease has run out, was taken back, and the work was done by another: whoever takes it
    back and whoever does the work look only so often, and the work may take longer than any lease."""
    policy = queue.policy
    leases = 3 * policy.lease_ms + max(1_000, 6 * poll_ms)
    work = policy.lease_ms + 2 * poll_ms + max((job.work_ms for job in queue.jobs), default=0) + 1_000
    return min(MAX_MS, policy.backoff_before(policy.max_attempts) + max(leases, work))


def _stuck(queue: Queue, poll_ms: int) -> int:
    """Milliseconds of a reclaimer's stop after which a lease counts as stuck: INV-010's grace is one lease length, 5 s
    at least."""
    lease_ms = queue.policy.lease_ms
    return min(MAX_MS, max(_long(queue, poll_ms), lease_ms + max(lease_ms, 5_000) + 1_000))
