"""Steps: what the coroutines await and the drivers perform, one at a time, by name.

A step with an operation is durable: one transaction. The others are local, yet have names too, so that a fault
can be bound to the moment before or after them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from .operations import Effect, Operation, WriteAll

STEPS = {
    "enqueue": "the producer hands a job to the queue",
    "lease": "a worker asks the queue for a job",
    "start": "a worker begins an attempt",
    "work": "the computation before write `index`; index = number of effects: after the last write",
    "write": "effect `index` is applied: by a transaction of its own, or (atomic writes) inside the attempt's open one",
    "apply": "the transaction of all effects commits (atomic writes only)",
    "renew": "a worker extends its lease; index = how often it has in this attempt",
    "settle": "a worker acknowledges the job",
    "retry": "a worker gives a failed attempt back",
    "finish": "a worker ends an attempt",
    "idle": "nothing to do: wait for the next poll",
    "sleep": "time passes",
    "scan": "the reclaimer reads which leases have run out",
    "reclaim": "the reclaimer takes one lease back; index = how often it has one of this job",
    "inventory": "the supervisor reads what a queue still holds",
}


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt of one job: who runs what under which token."""

    job_id: str
    attempt: int
    token: int
    carrier: str


@dataclass(slots=True)
class Step:
    """`index` counts the effects, the renewals of an attempt, or how often a job is taken back, from 0; `planned_ns` is
    the duration of work, sleep and idle steps.

    `effect` is what a write inside an open transaction stages: such a step has no operation of its own.
    """

    name: str
    operation: Operation | None = None
    queue: str = ""
    execution: Execution | None = None
    index: int = 0
    effect: Effect | None = None
    planned_ns: int = 0
    outcome: str = ""
    reason: str | None = None
    early: bool = False

    def __await__(self) -> Generator[Step, Any, Any]:
        return (yield self)

    @property
    def names(self) -> tuple[str, ...]:
        """What a fault may call this step: a transaction that settles with the writes is the settle as well."""
        return ("apply", "settle") if isinstance(self.operation, WriteAll) and self.operation.settle else (self.name,)

    @property
    def job_id(self) -> str | None:
        if self.execution is not None:
            return self.execution.job_id
        job = getattr(self.operation, "job", None)
        return job.id if job is not None else getattr(self.operation, "job_id", None)

    @property
    def attempt(self) -> int:
        """The attempt that this step belongs to; 0 for steps outside any."""
        return self.execution.attempt if self.execution is not None else 0
