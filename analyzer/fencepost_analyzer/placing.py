"""Where the recorded faults strike under another policy: the same step, the nearest that it has, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from fencepost_analyzer.inference import Inference, named, where
from fencepost_runtime.operations import Job
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Point, Scenario, When, lacking, surplus


@dataclass(frozen=True, slots=True)
class Placed:
    """A scenario whose faults fit its policies. `moved`: faults that strike elsewhere than recorded; `homeless`: those
    that its policies have no place for, and why. In words."""

    scenario: Scenario
    moved: tuple[str, ...]
    homeless: tuple[str, ...]


def place(scenario: Scenario, inferences: Iterable[Inference]) -> Placed:
    """The scenario with the inferred faults, each bound to a step that its job's policy has.

    Who is killed or stopped in a step that there is no more is so at the work it fell into; who lost a request that is
    made no more loses the next one instead. So a fault is left out only where nothing corresponds to it."""
    jobs = {job.id: (job, queue.policy) for queue in scenario.queues for job in queue.jobs}
    faults: list[Fault] = []
    moved, homeless = [], []
    for inference in inferences:
        job, policy = jobs[inference.fault.at.job]
        lack = lacking(inference.fault.at, policy, job) or _later(inference, policy, job)
        at = _nearest(inference.fault, inference.work, job, policy) if lack else inference.fault.at
        if at is None:
            homeless.append(f"{named(inference.fault)}: {lack}")
            continue
        if lack:
            moved.append(f"{named(inference.fault)}: {lack}, so it strikes {where(at)}")
        fault = replace(inference.fault, at=at, until=_awaited(inference.fault.until, job, policy))
        if fault not in faults:
            faults.append(fault)
    return Placed(replace(scenario, faults=tuple(faults)), tuple(moved), tuple(homeless))


@dataclass(frozen=True, slots=True)
class Way:
    """Inferences, of which some may strike elsewhere than they were told: `moved` says which, in words."""

    inferences: tuple[Inference, ...]
    moved: tuple[str, ...] = ()


def elsewhere(recorded: Scenario, scenario: Scenario, inferences: Sequence[Inference]) -> Iterator[Way]:
    """The inferences as they are, then every other way to place deaths and stops that came before one transaction of
    all writes: nothing tells how far the work was, which counts where a policy writes one by one."""
    jobs = {job.id: (job, queue.policy) for queue in recorded.queues for job in queue.jobs}
    policies = {job.id: queue.policy for queue in scenario.queues for job in queue.jobs}

    def places(one: Inference) -> Iterator[Inference]:
        yield one
        at, (job, policy) = one.fault.at, jobs[one.fault.at.job]
        befalls = one.fault.kind in ("kill", "pause") and at.step in ("start", "work")
        if befalls and policy.writes == "atomic" and policies[at.job].writes != "atomic":
            for index in range(1, len(job.effects) + 1):
                yield replace(one, fault=replace(one.fault, at=Point(at.job, at.attempt, "work", index)), work=index)

    for found in product(*map(places, inferences)):
        pairs = [(was, now) for was, now in zip(inferences, found, strict=True) if was is not now]
        hidden = "how far the work was nobody told, so it strikes"
        yield Way(found, tuple(f"{named(was.fault)}: {hidden} {where(now.fault.at)}" for was, now in pairs))


def striking(scenario: Scenario) -> Scenario:
    """The same histories, as a file can say them: without faults that its policies never come to, and without waiting
    for steps that they never come to."""
    jobs = {job.id: (job, queue.policy) for queue in scenario.queues for job in queue.jobs}

    def never(point: Point) -> bool:
        job, policy = jobs[point.job]
        return bool(lacking(point, policy, job) or surplus(point, policy))

    faults = (
        replace(fault, until=None) if fault.until is not None and never(fault.until) else fault
        for fault in scenario.faults
        if not never(fault.at)
    )
    return replace(scenario, faults=tuple(faults))


def unstruck(faults: Iterable[Fault], scenario: Scenario) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of faults that never struck, those that had no place by the policy's own rules, and those that should have had
    one: their absence may be all that made a difference."""
    policies = {job.id: queue.policy for queue in scenario.queues for job in queue.jobs}
    allowed, missed = [], []
    for fault in faults:
        policy = policies[fault.at.job]
        if fault.kind == "slow":
            continue  # Slow is the work of one attempt: that was not done, so nothing was slow.
        if lack := surplus(fault.at, policy):
            allowed.append(f"{named(fault)}: {lack}")
        else:
            missed.append(f"{named(fault)} never struck: its step did not come")
    return tuple(allowed), tuple(missed)


def _later(inference: Inference, policy: Policy, job: Job) -> str | None:
    """Why a policy has a step that somebody was killed or stopped in at another moment: an early acknowledgement came
    before the work."""
    at, befalls = inference.fault.at, inference.fault.kind in ("kill", "pause")
    if befalls and at.step == "settle" and policy.ack != "early" and inference.work < len(job.effects):
        return f'with ack = "{policy.ack}" it comes after the work'
    return None


def _nearest(fault: Fault, work: int, job: Job, policy: Policy) -> Point | None:
    at, last = fault.at, len(job.effects) - 1
    befalls = fault.kind in ("kill", "pause")
    match at.step:
        case "settle" | "renew" if befalls:
            when: When = "after" if at.step == "renew" else "before"
            return replace(at, step="work", index=min(work, last + 1), when=when)
        case "renew" if work <= last:
            return replace(at, step="write", index=work)
        case "renew":
            lost = replace(at, step="settle" if policy.ack == "late" else "apply", index=0)
            return None if lacking(lost, policy, job) else lost
        case "retry" if befalls:
            return replace(at, step="finish", when="after" if at.when == "after" else "before")
        case "apply" if last >= 0:
            return replace(at, step="write", index=last)
    return None


def _awaited(until: Point | None, job: Job, policy: Policy) -> Point | None:
    """What ends a pause: a write is there for others once its transaction is."""
    if until is None:
        return None
    if until.step == "write" and policy.writes == "atomic":
        return replace(until, step="apply", index=0)
    if until.step == "apply" and policy.writes != "atomic" and job.effects:
        return replace(until, step="write", index=len(job.effects) - 1)
    return until
