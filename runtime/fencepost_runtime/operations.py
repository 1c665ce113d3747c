"""The queue's contract: every durable operation and what it answers.

An operation is one transaction. Each fact that a transaction establishes takes the next *position*, one counter
for the whole database: the order of positions is the order in which things really happened. Times are Unix
nanoseconds, read from the caller's clock inside the transaction.

Nobody changes an operation or an answer; they are not frozen because that makes making them four times as dear, and
the simulator makes little else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Clock = Callable[[], int]
State = Literal["ready", "leased", "done", "dead"]
Settlement = Literal["ack", "dead_letter"]


@dataclass(frozen=True, slots=True)
class Effect:
    """One write that a job makes: `amount` is added to `account`; `key` names the effect once and for all."""

    key: str
    account: str
    amount: int


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work and the effects that it must have, all of them or none.

    `work_ms`: milliseconds of work before the first write. `carrier`: the enqueue's W3C trace context.
    """

    id: str
    queue: str
    name: str
    effects: tuple[Effect, ...]
    work_ms: int = 0
    carrier: str = ""


@dataclass(slots=True)
class Enqueue:
    job: Job


@dataclass(slots=True)
class Lease:
    """Take the job that has been available longest. Answers None if there is none."""

    queue: str
    worker: str
    lease_ns: int


@dataclass(slots=True)
class Renew:
    """Extend a lease; refused unless the token is the current one and has not expired."""

    job_id: str
    token: int
    lease_ns: int


@dataclass(slots=True)
class Write:
    """Apply one effect. `fencing` refuses a token older than the newest lease's, `dedupe` a key already there."""

    job_id: str
    effect: Effect
    token: int
    fencing: bool
    dedupe: bool


@dataclass(slots=True)
class WriteAll:
    """Apply effects in one transaction, and settle in it if `settle`: then all stands or falls with the token."""

    job_id: str
    effects: tuple[Effect, ...]
    token: int
    fencing: bool
    dedupe: bool
    settle: bool


@dataclass(slots=True)
class Settle:
    """End the job. `by_token` refuses all but the current lease's token; without it naming the job is enough."""

    job_id: str
    token: int
    settlement: Settlement
    by_token: bool


@dataclass(slots=True)
class Retry:
    """Give the job back for a later attempt, or bury it when `max_attempts` leases were granted."""

    job_id: str
    token: int
    delay_ns: int
    max_attempts: int
    by_token: bool


@dataclass(slots=True)
class Expired:
    """Read which leases of a queue have run out. Answers None if none has."""

    queue: str


@dataclass(slots=True)
class Reclaim:
    """Take back one lease: `guarded` only if it still is the job's lease, else whatever became of the job."""

    job_id: str
    token: int
    guarded: bool
    max_attempts: int


@dataclass(slots=True)
class Inventory:
    """Read what a queue still holds, job by job: ready, leased or dead."""

    queue: str


Operation = Enqueue | Lease | Renew | Write | WriteAll | Settle | Retry | Expired | Reclaim | Inventory


@dataclass(slots=True)
class Leased:
    at: int
    position: int
    job: Job
    attempt: int
    token: int
    expires_at: int


@dataclass(slots=True)
class Answer:
    """What a durable change came to. `reason` says why it was refused; `until` when what it granted ends.

    `buried`: the job was dead-lettered by this very change.
    """

    at: int
    position: int
    accepted: bool
    reason: str | None = None
    until: int | None = None
    buried: bool = False


@dataclass(slots=True)
class Batch:
    """The answers to a WriteAll, one an effect, and the settle's if it was asked for."""

    writes: tuple[Answer, ...]
    settled: Answer | None


@dataclass(slots=True)
class Held:
    at: int
    position: int
    jobs: tuple[tuple[str, State], ...]


ExpiredLeases = tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Scanned:
    """The leases that a scan found expired, as (job id, token)."""

    at: int
    position: int
    leases: ExpiredLeases


Result = Answer | Leased | Batch | Held | Scanned | None


class Backend(Protocol):
    """A persistent queue and the store its jobs write to."""

    def apply(self, operation: Operation, clock: Clock) -> Result:
        """One transaction. Raises BackendError, having applied nothing, if the database refuses."""

    def balances(self) -> dict[str, int]:
        """Every account's balance, by name."""

    def close(self) -> None:
        """Release the connection."""
