"""Where the recorded faults strike under another policy: the same step, the nearest that it has, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from fencepost_analyzer.inference import Inference, named, where
from fencepost_runtime.operations import Job
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Point, Scenario, lacking, surplus

# Ways to place faults that are tried: where there are more, nothing that rests on all of them is said.
MAX_WAYS = 64
_HIDDEN = "how far the work was nobody told, so it strikes"


@dataclass(frozen=True, slots=True)
class Placed:
    """A scenario whose faults fit its policies. `moved`: faults that strike elsewhere than recorded; `homeless`: those
    that its policies have no place for, and why. In words."""

    scenario: Scenario
    moved: tuple[str, ...]
    homeless: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """Where faults may strike: `told`, where the recording says, and the `others`; `every`: whether these are all."""

    told: Placed
    others: tuple[Placed, ...]
    every: bool

    @property
    def placed(self) -> tuple[Placed, ...]:
        return (self.told, *self.others)


def everywhere(recorded: Scenario, scenario: Scenario, inferences: Sequence[Inference]) -> Ways:
    """All ways to place what befell the `recorded` scenario in the same one under other policies, MAX_WAYS at most."""
    found = ways(recorded, scenario, inferences)
    told, *others = islice(found, MAX_WAYS)
    return Ways(told, tuple(others), next(found, None) is None)


def place(recorded: Scenario, scenario: Scenario, inferences: Sequence[Inference]) -> Placed:
    """The scenario with the inferred faults where they were told to be, each bound to a step that its policies have."""
    return next(ways(recorded, scenario, inferences))


def ways(recorded: Scenario, scenario: Scenario, inferences: Sequence[Inference]) -> Iterator[Placed]:
    """The inferences as they were told, then every other way to place those of which the `recorded` policies leave open
    before or after which step of the others they came."""
    changes = {job.id: _Change(job, was, now) for job, was, now in _policies(recorded, scenario)}
    # Who is slow and then killed or stopped is so in one work step: only then it counts in which.
    struck = {(one.fault.at.job, one.fault.at.attempt) for one in inferences if one.fault.kind != "slow"}

    def places(one: Inference) -> Iterator[Inference]:
        yield one
        if not one.written and (one.fault.at.job, one.fault.at.attempt) in struck:
            yield from changes[one.fault.at.job].elsewhere(one)

    for number, found in enumerate(product(*map(places, inferences))):
        if number and not _forwards(found, changes):
            continue
        pairs = [(was, now) for was, now in zip(inferences, found, strict=True) if was.fault != now.fault]
        hidden = [f"{named(was.fault)}: {_HIDDEN} {where(now.fault.at)}" for was, now in pairs]
        placed = _placed(scenario, found, changes)
        yield replace(placed, moved=(*hidden, *placed.moved))


def _policies(recorded: Scenario, scenario: Scenario) -> Iterator[tuple[Job, Policy, Policy]]:
    now = {job.id: queue.policy for queue in scenario.queues for job in queue.jobs}
    for queue in recorded.queues:
        for job in queue.jobs:
            yield job, queue.policy, now[job.id]


def _forwards(found: Iterable[Inference], changes: Mapping[str, _Change]) -> bool:
    """Whether nothing comes before what it came after."""
    come: dict[tuple[str, int], int] = {}
    for one in found:
        at = one.fault.at
        if at.step == "renew" and changes[at.job].now.renews:
            continue  # It strikes with whatever work is slow.
        if one.work < come.get((at.job, at.attempt), 0):
            return False
        come[at.job, at.attempt] = one.work
    return True


def _placed(scenario: Scenario, inferences: Iterable[Inference], changes: Mapping[str, _Change]) -> Placed:
    """The scenario with the inferred faults, each bound to a step that its job's policy has.

    Who is killed or stopped in a step that there is no more is so at the work it fell into; who lost a request that is
    made no more loses the next one instead. So a fault is left out only where nothing corresponds to it."""
    faults: list[Fault] = []
    moved, homeless = [], []
    for inference in inferences:
        change = changes[inference.fault.at.job]
        job, policy = change.job, change.now
        at: Point | None = inference.fault.at
        if lack := lacking(inference.fault.at, policy, job):
            at = _nearest(inference.fault, inference.work, job, policy)
        elif lack := change.settles_otherwise(inference):
            at = change.unsettled(inference.fault.at)
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
class _Change:
    """A job under the policy that it was recorded under, and under the one that it is run under `now`."""

    job: Job
    was: Policy
    now: Policy

    def settles_otherwise(self, inference: Inference) -> str | None:
        """Why a step that somebody was killed or stopped in comes at another moment now: an early acknowledgement
        precedes the work."""
        at, befalls = inference.fault.at, inference.fault.kind in ("kill", "pause")
        came_early = self.was.ack == "early" and not inference.work
        if not befalls or inference.written or at.step != "settle" or came_early == self._early:
            return None
        return f'with ack = "{self.now.ack}" it comes {"before" if self._early else "after"} the work'

    def unsettled(self, at: Point) -> Point:
        """Where the settle was, before the work or after it, now that it is not there any more."""
        return replace(at, step="finish" if self._early else "work", index=0, when="before")

    def elsewhere(self, one: Inference) -> Iterator[Inference]:
        """Where else it may have struck. Nothing tells how far the work was before one transaction of all writes, which
        counts where they are made one by one; nor whether it had begun, which counts where its beginning is told."""
        at, befalls = one.fault.at, one.fault.kind in ("kill", "pause")
        hidden = self.was.writes == "atomic" and self.now.writes != "atomic"
        begins = at.step == "start" and self._early and self.was.ack != "early"
        for index in range(0 if begins else one.work + 1, (len(self.job.effects) if hidden else one.work) + 1):
            moved: Point | None = None
            if at.step in ("start", "work") and (befalls or one.fault.kind == "slow"):
                moved = replace(at, step="work", index=index, when="before")
            elif at.step == "write" and at.when == "before" and befalls:
                # At the end of slow work: of the last one, when all was written.
                last = index == len(self.job.effects)
                moved = replace(at, step="settle", index=0) if last else replace(at, index=index)
            elif at.step == "renew" and not self.now.renews:
                moved = at
            if moved is not None:
                yield replace(one, fault=replace(one.fault, at=moved), work=index)

    @property
    def _early(self) -> bool:
        return self.now.ack == "early"


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


def _nearest(fault: Fault, work: int, job: Job, policy: Policy) -> Point | None:
    at, last = fault.at, len(job.effects) - 1
    befalls = fault.kind in ("kill", "pause")
    found: Point | None = None
    match at.step:
        case "renew" if befalls:
            found = replace(at, step="work", index=min(work, last + 1), when="after")
        case "renew" if work <= last:
            found = replace(at, step="write", index=work)
        case "renew":
            lost = replace(at, step="settle" if policy.ack == "late" else "apply", index=0)
            found = None if lacking(lost, policy, job) else lost
        case "retry" if befalls:
            found = replace(at, step="finish", when="after" if at.when == "after" else "before")
        case "apply" if last >= 0:
            found = replace(at, step="write", index=last)
        # A transaction without writes only settles.
        case "apply" if policy.ack != "early":
            found = replace(at, step="settle")
        case "apply" if befalls:
            found = replace(at, step="finish", when="before")
    return found


def _awaited(until: Point | None, job: Job, policy: Policy) -> Point | None:
    """What ends a pause: a write is there for others once its transaction is."""
    if until is None:
        return None
    if until.step == "write" and policy.writes == "atomic":
        return replace(until, step="apply", index=0)
    if until.step == "apply" and policy.writes != "atomic" and job.effects:
        return replace(until, step="write", index=len(job.effects) - 1)
    return until
