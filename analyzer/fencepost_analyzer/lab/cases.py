"""An incident cut down to what advice is sought for: queue by queue, the jobs that it struck and one beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fencepost_analyzer.inference import Inference
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Scenario

# Schedules grow with the square of the jobs, what they show does not: jobs of one queue meet only in their workers.
MAX_JOBS, MAX_WORKERS = 3, 2


@dataclass(frozen=True, slots=True)
class Cut:
    """One queue of an incident: its `policy`, the `scenario` of the jobs kept and the inferences about these; `of` how
    many jobs the queue has."""

    queue: str
    policy: Policy
    scenario: Scenario
    inferences: tuple[Inference, ...]
    of: int


def cuts(scenario: Scenario, inferences: Sequence[Inference], suspects: Iterable[str]) -> Iterator[Cut]:
    """Each queue that anything befell; all of them if nothing befell any. `suspects`: jobs that witnesses name."""
    struck = dict.fromkeys((*(one.fault.at.job for one in inferences), *suspects))
    for queue in scenario.queues:
        befallen = [job.id for job in queue.jobs if job.id in struck]
        if struck and not befallen:
            continue
        others = [job.id for job in queue.jobs if job.id not in struck]
        kept = {*befallen[:MAX_JOBS], *others[: max(0, 2 - len(befallen))]}
        found = tuple(replace(one, fault=released(one.fault, kept)) for one in inferences if one.fault.at.job in kept)
        alone = only(scenario, kept)
        few = replace(alone.queues[0], workers=min(queue.workers, MAX_WORKERS))
        small = replace(alone, queues=(few,), faults=tuple(one.fault for one in found))
        yield Cut(queue.name, queue.policy, small, found, len(queue.jobs))


def only(scenario: Scenario, kept: set[str]) -> Scenario:
    """The scenario with these jobs alone, what befalls them, and the queues that have any."""
    queues = [
        replace(queue, jobs=tuple(job for job in queue.jobs if job.id in kept))
        for queue in scenario.queues
        if any(job.id in kept for job in queue.jobs)
    ]
    faults = [released(fault, kept) for fault in scenario.faults if fault.at.job in kept]
    return replace(scenario, queues=tuple(queues), faults=tuple(faults))


def released(fault: Fault, kept: set[str]) -> Fault:
    """The fault, waiting for no job that is not kept."""
    gone = fault.until is not None and fault.until.job not in kept
    return replace(fault, until=None) if gone else fault
