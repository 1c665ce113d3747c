"""What each operation does, said once for every backend, over the few things a storage can do.

A backend is one of these storages plus a transaction around `perform`: the guards that recovery rests on
(token, expiry, effect key) are here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .operations import (
    Answer,
    Batch,
    Effect,
    Enqueue,
    Expired,
    ExpiredLeases,
    Held,
    Inventory,
    Job,
    Lease,
    Leased,
    Operation,
    Reclaim,
    Renew,
    Result,
    Retry,
    Scanned,
    Settle,
    State,
    Write,
    WriteAll,
)


@dataclass(slots=True)
class Row:
    """A job's row. `token` is its newest lease's, `expires_at` when that ends, `attempts` its leases; 0 before any."""

    id: str
    state: State
    available_at: int
    attempts: int
    token: int
    expires_at: int

    def copy(self) -> Row:
        return Row(self.id, self.state, self.available_at, self.attempts, self.token, self.expires_at)


class Storage(Protocol):
    def count(self, counter: str) -> int:
        """The counter's next value, from 1."""

    def add(self, job: Job, now: int, position: int) -> bool:
        """Store a ready job; False if its id is taken."""

    def row(self, job_id: str) -> Row:
        """The job's row, locked until the transaction ends. Raises UnknownJob."""

    def save(self, row: Row) -> None: ...

    def job(self, job_id: str) -> Job: ...

    def oldest_ready(self, queue: str, now: int) -> str | None:
        """The ready job that has been available longest, ties by enqueue order."""

    def is_applied(self, effect_key: str) -> bool: ...

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None: ...

    def expired(self, queue: str, now: int) -> ExpiredLeases:
        """Leases with `expires_at <= now`, the longest expired first."""

    def held(self, queue: str) -> tuple[tuple[str, State], ...]:
        """Jobs that are not done, in enqueue order."""


def perform(storage: Storage, operation: Operation, now: int) -> Result:
    """Decide and apply one operation at `now`; the caller provides the transaction."""
    return _RULES[type(operation)](storage, operation, now)


def _answer(storage: Storage, now: int, refusal: str | None = None, until: int | None = None) -> Answer:
    return Answer(now, storage.count("position"), refusal is None, refusal, until)


def _enqueue(storage: Storage, op: Enqueue, now: int) -> Answer:
    position = storage.count("position")
    accepted = storage.add(op.job, now, position)
    return Answer(now, position, accepted, None if accepted else "duplicate")


def _lease(storage: Storage, op: Lease, now: int) -> Leased | None:
    job_id = storage.oldest_ready(op.queue, now)
    if job_id is None:
        return None
    row = storage.row(job_id)
    row.state = "leased"
    row.attempts += 1
    row.token = storage.count(f"token/{op.queue}")
    row.expires_at = now + op.lease_ns
    storage.save(row)
    position = storage.count("position")
    return Leased(now, position, storage.job(job_id), row.attempts, row.token, row.expires_at)


def _renew(storage: Storage, op: Renew, now: int) -> Answer:
    row = storage.row(op.job_id)
    if not _is_current(row, op.token):
        return _answer(storage, now, "stale_token")
    # An expired lease is lost even before anybody took it: its owner cannot know that nobody did.
    if row.expires_at <= now:
        return _answer(storage, now, "expired")
    row.expires_at = now + op.lease_ns
    storage.save(row)
    return _answer(storage, now, until=row.expires_at)


def _is_current(row: Row, token: int) -> bool:
    return row.state == "leased" and row.token == token


def _write(storage: Storage, op: Write, now: int) -> Answer:
    return _apply_effect(storage, op, op.effect, now)


def _apply_effect(storage: Storage, op: Write | WriteAll, effect: Effect, now: int) -> Answer:
    answer = _answer(storage, now, _write_refusal(storage, op, effect))
    if answer.accepted:
        storage.add_effect(effect, op.job_id, op.token, answer.position)
    return answer


def _write_refusal(storage: Storage, op: Write | WriteAll, effect: Effect) -> str | None:
    if op.fencing and op.token < storage.row(op.job_id).token:
        return "fenced"
    if op.dedupe and storage.is_applied(effect.key):
        return "duplicate"
    return None


def _write_all(storage: Storage, op: WriteAll, now: int) -> Batch:
    row = storage.row(op.job_id)
    if op.settle and not _is_current(row, op.token):
        refused = [_answer(storage, now, "stale_token") for _ in (*op.effects, None)]
        return Batch(tuple(refused[:-1]), refused[-1])
    writes = tuple(_apply_effect(storage, op, effect, now) for effect in op.effects)
    if not op.settle:
        return Batch(writes, None)
    row.state = "done"
    storage.save(row)
    return Batch(writes, _answer(storage, now))


def _settle_refusal(row: Row, token: int, by_token: bool) -> str | None:
    if by_token:
        return None if _is_current(row, token) else "stale_token"
    return None if row.state in ("ready", "leased") else "already_settled"


def _settle(storage: Storage, op: Settle, now: int) -> Answer:
    row = storage.row(op.job_id)
    refusal = _settle_refusal(row, op.token, op.by_token)
    if refusal is None:
        row.state = "dead" if op.settlement == "dead_letter" else "done"
        storage.save(row)
    return _answer(storage, now, refusal)


def _retry(storage: Storage, op: Retry, now: int) -> Answer:
    row = storage.row(op.job_id)
    refusal = _settle_refusal(row, op.token, op.by_token)
    if refusal is not None:
        return _answer(storage, now, refusal)
    return _release(storage, row, now, now + op.delay_ns, op.max_attempts)


def _release(storage: Storage, row: Row, now: int, available_at: int, max_attempts: int) -> Answer:
    """Ready again, or dead when its leases are used up: they were counted when granted, crashes included."""
    if row.attempts >= max_attempts:
        row.state = "dead"
        storage.save(row)
        return Answer(now, storage.count("position"), True, "attempts_exhausted", buried=True)
    row.state = "ready"
    row.available_at = available_at
    storage.save(row)
    return _answer(storage, now, until=available_at)


def _expired(storage: Storage, op: Expired, now: int) -> Scanned | None:
    leases = storage.expired(op.queue, now)
    return Scanned(now, storage.count("position"), leases) if leases else None


def _reclaim(storage: Storage, op: Reclaim, now: int) -> Answer:
    row = storage.row(op.job_id)
    if op.guarded and not (_is_current(row, op.token) and row.expires_at <= now):
        return _answer(storage, now, "lease_changed")
    return _release(storage, row, now, now, op.max_attempts)


def _inventory(storage: Storage, op: Inventory, now: int) -> Held:
    return Held(now, storage.count("position"), storage.held(op.queue))


_RULES: dict[type[Operation], Callable[[Storage, Any, int], Result]] = {
    Enqueue: _enqueue,
    Lease: _lease,
    Renew: _renew,
    Write: _write,
    WriteAll: _write_all,
    Settle: _settle,
    Retry: _retry,
    Expired: _expired,
    Reclaim: _reclaim,
    Inventory: _inventory,
}
