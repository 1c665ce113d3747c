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
    """Collects facts of one history; `rows` gives them as events, one dictionary a row, in COLUMNS' order."""

    def __init__(self, schedule: int = 0) -> None:
        self._schedule = schedule
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

    def rows(self) -> list[dict[str, Any]]:
        return [row for fact, first, last in self._facts for row in _rows(self._schedule, fact, first, last)]

    def _next(self, actor: str) -> int:
        value = self._sequence.get(actor, 0) + 1
        self._sequence[actor] = value
        return value


def _rows(schedule: int, fact: Fact, first: int, last: int | None) -> list[dict[str, Any]]:
    row = dict.fromkeys(COLUMNS)
    row |= {
        "schedule": schedule,
        "event": fact.event,
        "job_id": fact.job_id,
        "attempt": fact.attempt,
        "execution_id": f"{fact.job_id}#{fact.token}" if fact.token is not None else None,
        "worker_id": fact.worker_id,
        "queue": fact.queue,
        "at": fact.at,
        "until": fact.until,
        "position": fact.position,
        "token": fact.token,
        "effect_key": fact.effect_key,
        "effect_index": fact.effect_index,
        "effect_total": len(fact.effect_keys) if fact.effect_keys is not None else None,
        "outcome": fact.outcome,
        "reason": "early" if fact.early and fact.outcome != FAILED else fact.reason,
        "host": HOST,
        "producer": fact.worker_id,
        "producer_seq": first,
        "producer_end_seq": last,
        "trace_id": "0" * 32,
        # Names the fact itself, so that a witness found in columns can be pointed at.
        "span_id": f"{fact.worker_id}:{first}",
    }
    held = [row | {"job_id": job_id, "reason": state} for job_id, state in fact.held or ()]
    return [row, *held]
