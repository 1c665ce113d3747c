"""The queue as a model in memory: what the simulator runs on and every other backend is held to."""

from __future__ import annotations

from dataclasses import replace

from .errors import UnknownJob
from .operations import Clock, Effect, ExpiredLeases, Job, Operation, Result, State
from .rules import Row, perform


class MemoryBackend:
    """A `Backend`. Dictionaries keep the order of enqueueing, so nothing here depends on hashing."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._rows: dict[str, Row] = {}
        self._applied: set[str] = set()
        self._balances: dict[str, int] = {}
        self._counters: dict[str, int] = {}

    def apply(self, operation: Operation, clock: Clock) -> Result:
        return perform(self, operation, clock())

    def balances(self) -> dict[str, int]:
        return dict(sorted(self._balances.items()))

    def close(self) -> None:
        """Nothing to release."""

    def next_changes(self, now: int) -> list[int]:
        """The moments at which time alone makes a difference: a job becomes available, a lease runs out."""
        moments = []
        for row in self._rows.values():
            if row.state == "ready":
                moments.append(max(now, row.available_at))
            elif row.state == "leased" and row.expires_at > now:
                moments.append(row.expires_at)
            elif row.state == "leased":
                moments.append(now)
        return moments

    def count(self, counter: str) -> int:
        value = self._counters.get(counter, 0) + 1
        self._counters[counter] = value
        return value

    def add(self, job: Job, now: int, position: int) -> bool:
        if job.id in self._jobs:
            return False
        self._jobs[job.id] = job
        self._rows[job.id] = Row(job.id, "ready", now, attempts=0, token=0, expires_at=0)
        return True

    def row(self, job_id: str) -> Row:
        row = self._rows.get(job_id)
        if row is None:
            raise UnknownJob(job_id)
        return replace(row)

    def save(self, row: Row) -> None:
        self._rows[row.id] = row

    def job(self, job_id: str) -> Job:
        return self._jobs[job_id]

    def oldest_ready(self, queue: str, now: int) -> str | None:
        found: Row | None = None
        for row in self._rows.values():
            if row.state != "ready" or row.available_at > now or self._jobs[row.id].queue != queue:
                continue
            # Strictly earlier: of two equally old jobs the one enqueued first is met first.
            if found is None or row.available_at < found.available_at:
                found = row
        return found.id if found else None

    def is_applied(self, effect_key: str) -> bool:
        return effect_key in self._applied

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None:
        self._applied.add(effect.key)
        self._balances[effect.account] = self._balances.get(effect.account, 0) + effect.amount

    def expired(self, queue: str, now: int) -> ExpiredLeases:
        rows = [
            row
            for row in self._rows.values()
            if row.state == "leased" and row.expires_at <= now and self._jobs[row.id].queue == queue
        ]
        rows.sort(key=lambda row: row.expires_at)
        return tuple((row.id, row.token) for row in rows)

    def held(self, queue: str) -> tuple[tuple[str, State], ...]:
        return tuple(
            (row.id, row.state)
            for row in self._rows.values()
            if row.state != "done" and self._jobs[row.id].queue == queue
        )
