"""Lineage: from which steps a run's good ends followed, and so which further faults could have prevented them.

A job came to its end through some of what was done about it: the executions whose writes and settlement counted, the
leases they held, whatever took back a lease before. A fault elsewhere leaves that end as it is, and faults in the
lineages of two different ends break nothing together that neither breaks alone. So the sets worth trying first have all
of their faults in the lineage of one end, as it is in the run with those that struck before (Alvaro, Rosen and
Hellerstein, Lineage-driven Fault Injection, 2015). What jobs share beside the queue, workers and time, is not lineage:
whoever wants to be sure explores everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fencepost_runtime.scenario import Fault
from fencepost_runtime.simulate import Passed

# Job, attempt, step, index: a place where a fault could strike.
Place = tuple[str, int, str, int]


def lineage(rows: Iterable[Mapping[str, Any]], trail: Sequence[Passed]) -> frozenset[Place]:
    """The steps from which the ends of a run's jobs followed. `rows`: its events, `trail`: its steps."""
    counted: dict[str, set[int]] = defaultdict(set)
    ended: dict[str, int] = {}
    for row in rows:
        if row["event"] in ("write", "ack", "dead_letter") and row["outcome"] == "ok":
            counted[row["job_id"]].add(row["attempt"] or 0)
            ended[row["job_id"]] = max(row["at"], ended.get(row["job_id"], 0))
    found = set[Place]()
    for passed in trail:
        step = passed.step
        job = step.job_id
        # Attempt 0 is nobody's: the enqueue, and the taking back of a lease, which can undo an end as well.
        if job is not None and (
            not step.attempt or (step.attempt in counted[job] and passed.at <= ended.get(job, passed.at))
        ):
            found.update((job, step.attempt, name, step.index) for name in step.names)
    return frozenset(found)


def concerns(fault: Fault, before: Iterable[Fault], found: frozenset[Place]) -> bool:
    """Whether a fault could, with all of those before it, prevent one end."""
    at = fault.at
    if (at.job, at.attempt, at.step, at.index) not in found:
        return False
    return {one.at.job for one in before} <= {at.job}
