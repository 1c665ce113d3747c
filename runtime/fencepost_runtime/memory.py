"""The queue as a model in memory: what the simulator runs on and every other backend is held to."""

from __future__ import annotations

from heapq import heappop, heappush

from .errors import UnknownJob
from .operations import Clock, Effect, ExpiredLeases, Job, Operation, Result, State
from .rules import Row, perform


class MemoryBackend:
    """A `Backend`. Everything is ordered by enqueueing, so nothing here depends on hashing.

    Most rows of a long run are of jobs that are done; what is asked again and again looks at the others alone.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._rows: dict[str, Row] = {}
        self._order: dict[str, int] = {}
        self._open: dict[str, Row] = {}
        # By queue, (available_at, order, id) of each time that a job was ready; what has become of it since is
        # looked up when its turn comes.
        self._ready: dict[str, list[tuple[int, int, str]]] = {}
        self._applied: set[str] = set()
        self._balances: dict[str, int] = {}
        self._counters: dict[str, int] = {}

    def copy(self) -> MemoryBackend:
        copied = MemoryBackend()
        # A row is never changed once it was saved.
        copied._jobs, copied._rows, copied._order = dict(self._jobs), dict(self._rows), dict(self._order)
        copied._open, copied._applied = dict(self._open), set(self._applied)
        copied._ready = {queue: list(ready) for queue, ready in self._ready.items()}
        copied._balances, copied._counters = dict(self._balances), dict(self._counters)
        return copied

    def apply(self, operation: Operation, clock: Clock) -> Result:
        return perform(self, operation, clock())

    def balances(self) -> dict[str, int]:
        return dict(sorted(self._balances.items()))

    def close(self) -> None:
        """Nothing to release."""

    def next_change(self, now: int) -> int | None:
        """The next moment at which time alone makes a difference, never before `now`: a job becomes available, a
        lease runs out. None if there is none."""
        found: int | None = None
        for row in self._open.values():
            if row.state == "dead":
                continue
            moment = row.available_at if row.state == "ready" else row.expires_at
            if moment <= now:
                return now
            found = moment if found is None else min(found, moment)
        return found

    def leased(self) -> list[tuple[str, int]]:
        """The jobs that are leased, and when each lease runs out or ran out."""
        return [(row.id, row.expires_at) for row in self._open.values() if row.state == "leased"]

    def count(self, counter: str) -> int:
        value = self._counters.get(counter, 0) + 1
        self._counters[counter] = value
        return value

    def add(self, job: Job, now: int, position: int) -> bool:
        if job.id in self._jobs:
            return False
        self._jobs[job.id] = job
        self._order[job.id] = len(self._order)
        self.save(Row(job.id, "ready", now, attempts=0, token=0, expires_at=0))
        return True

    def row(self, job_id: str) -> Row:
        row = self._rows.get(job_id)
        if row is None:
            raise UnknownJob(job_id)
        return row.copy()

    def save(self, row: Row) -> None:
        self._rows[row.id] = row
        if row.state == "done":
            self._open.pop(row.id, None)
            return
        self._open[row.id] = row
        if row.state == "ready":
            ready = self._ready.setdefault(self._jobs[row.id].queue, [])
            heappush(ready, (row.available_at, self._order[row.id], row.id))

    def job(self, job_id: str) -> Job:
        return self._jobs[job_id]

    def oldest_ready(self, queue: str, now: int) -> str | None:
        ready = self._ready.get(queue, [])
        while ready:
            available_at, _, job_id = ready[0]
            row = self._rows[job_id]
            if row.state == "ready" and row.available_at == available_at:
                return job_id if available_at <= now else None
            heappop(ready)
        return None

    def is_applied(self, effect_key: str) -> bool:
        return effect_key in self._applied

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None:
        self._applied.add(effect.key)
        self._balances[effect.account] = self._balances.get(effect.account, 0) + effect.amount

    def expired(self, queue: str, now: int) -> ExpiredLeases:
        rows = [
            row
            for row in self._open.values()
            if row.state == "leased" and row.expires_at <= now and self._jobs[row.id].queue == queue
        ]
        rows.sort(key=lambda row: (row.expires_at, self._order[row.id]))
        return tuple((row.id, row.token) for row in rows)

    def held(self, queue: str) -> tuple[tuple[str, State], ...]:
        rows = [row for row in self._open.values() if self._jobs[row.id].queue == queue]
        rows.sort(key=lambda row: self._order[row.id])
        return tuple((row.id, row.state) for row in rows)
