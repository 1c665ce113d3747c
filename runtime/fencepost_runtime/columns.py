"""Facts as columns: the events relation without spans between, for histories that are judged in bulk."""

from __future__ import annotations

from typing import Any

from .facts import FAILED, Fact

COLUMNS = (
    "schedule",
    "event",
    "job_id",
    "attempt",
    "execution_id",
    "worker_id",
    "queue",
    "at",
    "until",
    "decided_by",
    "position",
    "token",
    "effect_key",
    "effect_index",
    "effect_total",
    "outcome",
    "reason",
    "intent",
    "order_key",
    "host",
    "producer",
    "producer_seq",
    "producer_end_seq",
    "trace_id",
    "span_id",
)

HOST = "simulated"


class ColumnSink:
    """Collects facts of one history; `rows` gives them as events, one dictionary a row, in COLUMNS' order, and
    `records` one tuple a row. `schedule` is what the rows say they belong to."""

    def __init__(self, schedule: int = 0) -> None:
        self.schedule = schedule
        self._facts: list[tuple[Fact, int, int | None]] = []
        self._sequence: dict[str, int] = {}

    def open(self, fact: Fact, parent: Any) -> int:
        self._facts.append((fact, self._next(fact.worker_id), None))
        return len(self._facts) - 1

    def carrier(self, handle: Any) -> str:
        return ""

    def close(self, handle: int, fact: Fact, now: int) -> None:
        _, opened, _ = self._facts[handle]
        self._facts[handle] = (fact, opened, self._next(fact.worker_id))

    def copy(self) -> ColumnSink:
        copied = ColumnSink(self.schedule)
        copied.go_on_as(self)
        return copied

    def go_on_as(self, other: ColumnSink) -> None:
        """Hold what another one holds so far."""
        self._facts, self._sequence = list(other._facts), dict(other._sequence)

    def rows(self) -> list[dict[str, Any]]:
        return [dict(zip(COLUMNS, record, strict=True)) for record in self.records()]

    def records(self) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for fact, first, last in self._facts:
            reason = "early" if fact.early and fact.outcome != FAILED else fact.reason
            found.append(_record(self.schedule, fact, fact.job_id, reason, first, last))
            if fact.held:
                # An inventory's own row names no job; each job that it found has one more.
                found += (_record(self.schedule, fact, job, state, first, last) for job, state in fact.held)
        return found

    def _next(self, actor: str) -> int:
        value = self._sequence.get(actor, 0) + 1
        self._sequence[actor] = value
        return value


def _record(
    schedule: int, fact: Fact, job_id: str | None, reason: str | None, first: int, last: int | None
) -> tuple[Any, ...]:
    return (
        schedule,
        fact.event,
        job_id,
        fact.attempt,
        f"{fact.job_id}#{fact.token}" if fact.token is not None else None,
        fact.worker_id,
        fact.queue,
        fact.at,
        fact.until,
        None,
        fact.position,
        fact.token,
        fact.effect_key,
        fact.effect_index,
        len(fact.effect_keys) if fact.effect_keys is not None else None,
        fact.outcome,
        reason,
        None,
        None,
        HOST,
        fact.worker_id,
        first,
        last,
        "0" * 32,
        # Names the fact itself, so that a witness found in columns can be pointed at.
        f"{fact.worker_id}:{first}",
    )
