"""The producer, the worker, the reclaimer and the supervisor's stocktaking, each written once, as coroutines of steps.

What they do next depends only on what steps answered, never on a clock: any driver that gives the same answers
in the same order gets the same steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from .errors import BackendError, ConnectionLost
from .operations import (
    Answer,
    Batch,
    Enqueue,
    Expired,
    Inventory,
    Job,
    Lease,
    Leased,
    Reclaim,
    Renew,
    Retry,
    Scanned,
    Settle,
    Write,
    WriteAll,
)
from .policy import Policy
from .steps import Execution, Step

MS = 1_000_000


class _Abandoned(Exception):
    """The attempt goes no further: the queue or the store refused it. The message is the reason."""


async def producer(jobs: Iterable[Job]) -> None:
    """Enqueues each job once. A refused or unanswered enqueue is the caller's to see in the record."""
    for job in jobs:
        with suppress(BackendError, ConnectionLost):
            await Step("enqueue", Enqueue(job), job.queue)


async def worker(name: str, queue: str, policy: Policy, poll_ms: int) -> None:
    """Leases and executes jobs until the driver answers an idle step with False."""
    lease = Step("lease", Lease(queue, name, policy.lease_ms * MS), queue)
    idle = Step("idle", queue=queue, planned_ns=poll_ms * MS)
    while True:
        leased: Leased | None = None
        # A lease that was granted without our knowing runs out and is reclaimed like any other.
        with suppress(BackendError, ConnectionLost):
            leased = await lease
        if leased is not None:
            await _Attempt(leased, policy).run()
        elif not await idle:
            return


async def reclaimer(queue: str, policy: Policy, poll_ms: int) -> None:
    """Takes back leases that have run out until the driver answers an idle step with False."""
    idle = Step("idle", queue=queue, planned_ns=poll_ms * MS)
    guarded = policy.reclaim == "guarded"
    taken = Counter[str]()
    while True:
        # Whatever was not taken back is found again by the next scan.
        with suppress(BackendError, ConnectionLost):
            found: Scanned | None = await Step("scan", Expired(queue), queue)
            for job_id, token in found.leases if found else ():
                index, taken[job_id] = taken[job_id], taken[job_id] + 1
                await Step("reclaim", Reclaim(job_id, token, guarded, policy.max_attempts), queue, index=index)
        if not await idle:
            return


async def stocktaking(queues: Iterable[str]) -> None:
    """States what each queue still holds."""
    for queue in queues:
        await Step("inventory", Inventory(queue), queue)


class _Attempt:
    """One execution of one job under one lease."""

    def __init__(self, leased: Leased, policy: Policy) -> None:
        self._job = leased.job
        self._token = leased.token
        self._attempt = leased.attempt
        self._policy = policy
        self._execution = Execution(leased.job.id, leased.attempt, leased.token, leased.job.carrier)
        self._renewals = 0

    async def run(self) -> None:
        await self._step("start")
        outcome, reason = await self._outcome()
        await self._step("finish", outcome=outcome, reason=reason)

    async def _outcome(self) -> tuple[str, str | None]:
        """How the work ended, ok or failed, and why."""
        try:
            if self._policy.ack == "early":
                await self._settle(early=True)
            await (self._atomic() if self._policy.writes == "atomic" else self._stepwise())
        except _Abandoned as abandoned:
            return "failed", str(abandoned)
        except (BackendError, ConnectionLost) as error:
            await self._give_back()
            return "failed", type(error).__name__
        if self._policy.ack != "late":
            return "ok", None
        try:
            return "ok", await self._settle()
        except (BackendError, ConnectionLost):
            # The work is done but the queue may not know: the lease runs out and the job comes again.
            return "ok", "ack_lost"

    async def _stepwise(self) -> None:
        for index, effect in enumerate(self._job.effects):
            await self._work(index)
            operation = Write(self._job.id, effect, self._token, self._policy.fencing, self._dedupe)
            _stop_if_refused(await self._step("write", operation, index=index))
        await self._work(len(self._job.effects))

    async def _atomic(self) -> None:
        effects = self._job.effects
        for index, effect in enumerate(effects):
            await self._work(index)
            await self._step("write", index=index, effect=effect)  # In the open transaction: nothing is durable yet.
        await self._work(len(effects))
        settle = self._policy.ack == "with_writes"
        if not effects and not settle:
            return  # Nothing would be in the transaction, and nobody could tell how it ended.
        operation = WriteAll(self._job.id, effects, self._token, self._policy.fencing, self._dedupe, settle)
        batch: Batch = await self._step("apply", operation)
        for answer in (*batch.writes, batch.settled):
            _stop_if_refused(answer)

    async def _work(self, index: int) -> None:
        """Compute before write `index`, renewing the lease at every third of it if the policy says so.

        The slices are counted, not timed, so that the number of renewals depends on the work alone.
        """
        planned = self._job.work_ms * MS if index == 0 else 0
        left: int = await self._step("work", index=index, planned_ns=planned)
        slice_ns = self._policy.lease_ms * MS // 3
        while left > 0:
            pause = min(left, slice_ns) if self._policy.renews else left
            await self._step("sleep", planned_ns=pause)
            left -= pause
            # Only a worker that renews has work left after its first sleep.
            if left > 0:
                await self._renew()

    async def _renew(self) -> None:
        operation = Renew(self._job.id, self._token, self._policy.lease_ms * MS)
        index, self._renewals = self._renewals, self._renewals + 1
        answer: Answer = await self._step("renew", operation, index=index)
        if not answer.accepted:
            raise _Abandoned("lease_lost")

    async def _settle(self, *, early: bool = False) -> str | None:
        """Acknowledge; answers why that was refused, if it was."""
        operation = Settle(self._job.id, self._token, "ack", self._policy.settle == "by_token")
        answer: Answer = await self._step("settle", operation, early=early)
        return answer.reason

    async def _give_back(self) -> None:
        if self._policy.ack == "early":
            return  # The queue has forgotten the job already.
        delay_ns = self._policy.backoff_before(self._attempt) * MS
        by_token = self._policy.settle == "by_token"
        operation = Retry(self._job.id, self._token, delay_ns, self._policy.max_attempts, by_token)
        # If this fails too, the lease runs out instead.
        with suppress(BackendError, ConnectionLost):
            await self._step("retry", operation)

    @property
    def _dedupe(self) -> bool:
        return self._policy.dedupe == "effect_key"

    def _step(self, name: str, operation: Any = None, **fields: Any) -> Step:
        return Step(name, operation, self._job.queue, self._execution, **fields)


def _stop_if_refused(answer: Answer | None) -> None:
    """A duplicate was applied before us and is as good as done; any other refusal means the lease is lost."""
    if answer is not None and not answer.accepted and answer.reason != "duplicate":
        raise _Abandoned(answer.reason or "refused")
