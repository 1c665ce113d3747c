"""Random scenarios with random policies and faults, and the schedule that a history of one was made along."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args, get_type_hints

from fencepost_runtime.following import How, Told
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import DURABLE, Fault, Point, Queue, Scenario
from fencepost_runtime.workloads import jobs, workloads

Row = Mapping[str, Any]


def random_policy(draw: random.Random) -> Policy:
    fields: dict[str, Any] = {
        name: draw.choice(get_args(hint)) for name, hint in get_type_hints(Policy).items() if get_args(hint)
    }
    if fields["ack"] == "with_writes":
        fields["writes"] = "atomic"
    return Policy(
        **fields,
        lease_ms=draw.choice((50, 300, 1_000)),
        renew=draw.random() < 0.4,
        fencing=draw.random() < 0.4,
        max_attempts=draw.choice((1, 2, 3)),
        backoff_ms=draw.choice((0, 10, 200)),
    )


def random_scenario(seed: int) -> Scenario:
    draw = random.Random(seed)
    queues = tuple(
        Queue(
            shape,
            jobs(shape, draw.randint(1, 3), shape, draw.choice((0, 5, 400, 400))),
            random_policy(draw),
            draw.randint(1, 3),
        )
        for shape in draw.sample(sorted(workloads()), draw.choice((1, 1, 2)))
    )
    # One death and one loss a step: of two only the first strikes, and no row could say which.
    faults: dict[tuple[str, Point], Fault] = {}
    for _ in range(draw.randint(0, 6)):
        fault = _random_fault(draw, queues)
        what = fault.kind if fault.kind in ("kill", "pause", "slow") else "loss"
        faults[what, replace(fault.at, when="before")] = fault
    scenario = Scenario(f"random-{seed}", queues, tuple(faults.values()), draw.choice((5, 20, 70)), 20_000)
    # What people may write, no more: whatever cannot strike is refused here.
    return Scenario.from_dict(scenario.to_dict())


def _random_fault(draw: random.Random, queues: Sequence[Queue]) -> Fault:
    kind = draw.choice(("kill", "kill", "pause", "pause", "slow", "lost_request", "lost_reply", "db_error"))
    everywhere = (*DURABLE, "start", "work", "finish", "renew", "renew")
    at_most_ms = draw.choice((1, 120, 1_500))
    match kind:
        case "slow":
            return Fault(kind, _random_point(draw, queues, ("work",)), None, at_most_ms)
        case "kill":
            when = draw.choice(("before", "begun", "committed", "after"))
            return Fault(kind, _random_point(draw, queues, DURABLE if when in MIDDLE else everywhere, when))
        case "pause":
            until = _random_point(draw, queues, DURABLE, "after") if draw.random() < 0.5 else None
            if until is not None and until.step == "reclaim":
                until = replace(until, index=0)  # it lasts until the next one, whichever that is
            when = draw.choice(("before", "after"))
            return Fault(kind, _random_point(draw, queues, everywhere, when), until, at_most_ms)
    return Fault(kind, _random_point(draw, queues, DURABLE))


MIDDLE = ("begun", "committed")


def _random_point(draw: random.Random, queues: Sequence[Queue], steps: Sequence[str], when: str = "before") -> Point:
    queue = draw.choice(queues)
    job, step = draw.choice(queue.jobs), draw.choice(steps)
    attempt = 0 if step in ("enqueue", "reclaim") else draw.choice((1, 1, 1, 2))
    last = {"work": len(job.effects), "write": len(job.effects) - 1, "reclaim": 1}.get(step, 0)
    return Point(job.id, attempt, step, draw.randint(0, last), when)


_STEPS_OF = {"write": ("write", "apply", "settle"), "ack": ("settle", "apply"), "dead_letter": ("retry",)}


def schedule_of(scenario: Scenario, rows: Sequence[Row]) -> tuple[Told, ...]:
    """The schedule that a simulated history was made along, from its rows and the faults of its scenario."""
    told = [(row, _told(scenario, row)) for row in rows if row["event"] != "inventory" or row["job_id"] is None]
    for run in [row for row, _ in told if row["event"] == "run" and row["until"] is not None]:
        # The end of an attempt is told by closing its row: an entry of its own, before all that came later.
        place = next((place for place, (row, _) in enumerate(told) if _is_later(row, run)), len(told))
        told.insert(place, (run | {"event": "finish", "at": run["until"]}, Told(run["worker_id"], run["until"])))
    return tuple(entry for _, entry in told)


def _is_later(row: Row, run: Row) -> bool:
    """Whether a row was told after the end of an attempt: by the clock, or by the same worker's own count."""
    same = row["worker_id"] == run["worker_id"] and row["event"] != "finish"
    return row["at"] > run["until"] or (same and row["producer_seq"] > run["producer_end_seq"])


def _told(scenario: Scenario, row: Row) -> Told:
    if row["event"] in ("crash", "pause", "resume"):
        return Told(row["worker_id"], row["at"], row["event"], signal=row["reason"])
    if row["reason"] == "RolledBack":
        return Told(row["worker_id"], row["at"], "rolled_back", row["effect_index"])
    return Told(row["worker_id"], row["at"], _how(scenario, row))


def _how(scenario: Scenario, row: Row) -> How:
    if row["event"] == "run" or (row["outcome"] != "unknown" and row["reason"] != "BackendError"):
        return "normal"
    if row["producer_end_seq"] is None:
        whens = {fault.at.when for fault in _explaining(scenario, row, ("kill",))}
        # Of two deaths in one step the earlier comes first.
        return "begun" if "begun" in whens else "committed"
    return next(fault.kind for fault in _explaining(scenario, row, ("lost_request", "lost_reply", "db_error")))


def _explaining(scenario: Scenario, row: Row, kinds: tuple[str, ...]) -> Iterator[Fault]:
    """The faults of these kinds that strike the step which told a row."""
    steps = _steps(scenario, row)
    for fault in scenario.faults:
        at = fault.at
        here = (at.job, at.attempt) == (row["job_id"], row["attempt"] or 0) and at.step in steps
        if fault.kind in kinds and here and (at.step != "write" or at.index == row["effect_index"]):
            yield fault


def _steps(scenario: Scenario, row: Row) -> tuple[str, ...]:
    """What a fault may call the step that told a row."""
    (policy,) = (queue.policy for queue in scenario.queues if queue.name == row["queue"])
    joined = policy.ack == "with_writes"
    match row["event"]:
        case "write":
            return ("apply", "settle") if joined else ("apply",) if policy.writes == "atomic" else ("write",)
        case "ack":
            return ("apply", "settle") if joined else ("settle",)
    return (row["event"],)
