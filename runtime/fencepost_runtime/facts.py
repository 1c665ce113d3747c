"""The one seam through which the runtime tells what it does.

A `Narrator` turns an actor's steps into facts, in the vocabulary of the events; a `Sink` keeps them: as
OpenTelemetry spans (`spans.py`) or as columns (`columns.py`). A fact is opened before its step is performed, so
that a worker killed in the middle leaves it behind, open, its outcome unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from .errors import BackendError, ConnectionLost
from .operations import (
    Answer,
    Batch,
    Effect,
    Enqueue,
    Held,
    Job,
    Leased,
    Reclaim,
    Retry,
    Scanned,
    State,
    Write,
    WriteAll,
)
from .steps import Step

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
ROLLED_BACK = "RolledBack"


@dataclass(slots=True)
class Fact:
    """One event as its actor saw it. Times are Unix nanoseconds; `carrier` is the enqueue's trace context."""

    event: str
    worker_id: str
    at: int
    queue: str | None = None
    job_id: str | None = None
    job_name: str | None = None
    attempt: int | None = None
    token: int | None = None
    until: int | None = None
    position: int | None = None
    effect_key: str | None = None
    effect_index: int | None = None
    effect_keys: tuple[str, ...] | None = None
    outcome: str = UNKNOWN
    reason: str | None = None
    error: str | None = None
    early: bool = False
    carrier: str = ""
    held: tuple[tuple[str, State], ...] | None = None
    delay_ns: int | None = None
    pid: int | None = None


class Sink(Protocol):
    """Keeps facts. Opened facts that are never closed stay open for ever: that is the evidence of a crash."""

    def open(self, fact: Fact, parent: Any) -> Any:
        """Keep a fact whose end is still to come; answers a handle for `close` and for children."""

    def carrier(self, handle: Any) -> str:
        """The trace context that links later spans to this one; empty if the sink has none."""

    def close(self, handle: Any, fact: Fact, now: int) -> None:
        """The fact is complete."""


class Narrator:
    """Tells one actor's steps to a sink: what the actor knows of them, or with `all_told` what the database does, too,
    so that no step that the scenario struck is left in doubt."""

    def __init__(self, actor: str, sink: Sink, *, all_told: bool = False) -> None:
        self._actor = actor
        self._sink = sink
        self._all_told = all_told
        # The attempt that it tells of, from its start on. Its fact is replaced, never changed: runs may share it.
        self.run: tuple[Any, Fact] | None = None
        self._open: list[tuple[Any, Fact]] = []

    def before(self, step: Step, now: int) -> Step:
        """Open the step's facts; answers the step to perform (an enqueue carries its trace context along)."""
        self._open = [(self._sink.open(fact, self._parent), fact) for fact in self._opening(step, now)]
        if isinstance(step.operation, Enqueue) and (carrier := self._sink.carrier(self._open[0][0])):
            return replace(step, operation=Enqueue(replace(step.operation.job, carrier=carrier)))
        return step

    def after(self, step: Step, result: Any, now: int) -> None:
        """Close the step's facts with what it answered."""
        opened, self._open = self._open, []
        match step.name, result:
            case "start", _:
                self.run = opened[0]
            case "finish", _:
                self._finish(step, now)
            case "lease", Leased():
                self._note(_lease(self._actor, result), now)
            case "scan", Scanned():
                self._note(self._reading(step, result), now)
            case "inventory", Held():
                fact = self._reading(step, result)
                fact.held = result.jobs
                self._note(fact, now)
            case _, Batch():
                answers = (*result.writes, result.settled) if result.settled else result.writes
                for (handle, fact), answer in zip(opened, answers, strict=True):
                    self._close(handle, fact, answer, now)
            case _, Answer():
                self._close(*opened[0], result, now)

    def failed(self, step: Step, error: Exception, now: int) -> None:
        """The step raised: not applied, or, if the connection was lost, nobody knows."""
        if step.effect is not None:
            # A write inside a transaction is told with its commit; one that ends the transaction, here.
            fact = self._about(step, "write", now)
            fact.effect_key, fact.effect_index, fact.outcome = step.effect.key, step.index, FAILED
            fact.error = fact.reason = ROLLED_BACK
            self._sink.close(self._sink.open(fact, self._parent), fact, now)
        opened, self._open = self._open, []
        for handle, fact in opened:
            fact.error = type(error).__name__
            doubt = isinstance(error, ConnectionLost) and not self._all_told
            fact.outcome = UNKNOWN if doubt else FAILED
            fact.reason = fact.error
            self._sink.close(handle, fact, now)

    def unheard(self, step: Step, result: Any, now: int) -> None:
        """The step was applied, but its actor will not hear of it."""
        if self._all_told:
            self.after(step, result, now)

    def unsent(self, step: Step, now: int) -> None:
        """The step will not be applied, and its actor will not tell."""
        if self._all_told:
            self.failed(step, BackendError("The request was never sent."), now)

    def observed(self, event: str, worker: str, signal: str, now: int, pid: int | None = None) -> None:
        """A crash, pause or resume of another process, seen from outside."""
        self._note(Fact(event, worker, now, reason=signal, outcome=OK, pid=pid), now)

    @property
    def _parent(self) -> Any:
        return self.run[0] if self.run else None

    def _opening(self, step: Step, now: int) -> list[Fact]:
        if isinstance(step.operation, Enqueue):
            return [_enqueue(self._actor, step.operation.job, now)]
        match step.name:
            case "start":
                return [self._about(step, "run", now)]
            case "write" | "apply":
                return self._writes(step, now)
            case "settle":
                fact = self._about(step, "ack", now)
                fact.early = step.early
                return [fact]
            case "renew" | "retry" | "reclaim":
                return [self._about(step, step.name, now)]
        return []

    def _about(self, step: Step, event: str, now: int) -> Fact:
        fact = Fact(event, self._actor, now, step.queue, step.job_id)
        if step.execution is not None:
            fact.attempt, fact.token = step.execution.attempt, step.execution.token
            fact.carrier = step.execution.carrier
        elif isinstance(step.operation, Reclaim):
            fact.token = step.operation.token
        if isinstance(step.operation, Retry):
            fact.delay_ns = step.operation.delay_ns
        return fact

    def _writes(self, step: Step, now: int) -> list[Fact]:
        facts = []
        for index, effect in _effects(step):
            fact = self._about(step, "write", now)
            fact.effect_key, fact.effect_index = effect.key, index
            facts.append(fact)
        if isinstance(step.operation, WriteAll) and step.operation.settle:
            facts.append(self._about(step, "ack", now))
        return facts

    def _finish(self, step: Step, now: int) -> None:
        if self.run is None:
            return
        handle, fact = self.run
        self.run = None
        self._sink.close(handle, replace(fact, outcome=step.outcome, reason=step.reason, until=now), now)

    def _close(self, handle: Any, fact: Fact, answer: Answer, now: int) -> None:
        fact.at, fact.position, fact.reason = answer.at, answer.position, answer.reason
        fact.outcome = OK if answer.accepted else FAILED
        if fact.event in ("renew", "retry"):
            fact.until = answer.until
        if answer.buried and fact.event == "retry":
            # No attempt is left to retry: what was asked as a retry was answered by burying the job.
            fact.event = "dead_letter"
        self._sink.close(handle, fact, now)
        if answer.buried and fact.event == "reclaim":
            self._note(replace(fact, event="dead_letter"), now)

    def _reading(self, step: Step, result: Scanned | Held) -> Fact:
        return Fact(step.name, self._actor, result.at, step.queue, position=result.position, outcome=OK)

    def _note(self, fact: Fact, now: int) -> None:
        self._sink.close(self._sink.open(fact, None), fact, now)


def _enqueue(actor: str, job: Job, now: int) -> Fact:
    fact = Fact("enqueue", actor, now, job.queue, job.id, job_name=job.name)
    fact.effect_keys = tuple(effect.key for effect in job.effects)
    return fact


def _lease(actor: str, leased: Leased) -> Fact:
    fact = Fact("lease", actor, leased.at, leased.job.queue, leased.job.id, outcome=OK)
    fact.attempt, fact.token, fact.position = leased.attempt, leased.token, leased.position
    fact.until, fact.carrier = leased.expires_at, leased.job.carrier
    return fact


def _effects(step: Step) -> list[tuple[int, Effect]]:
    operation = step.operation
    if isinstance(operation, Write):
        return [(step.index, operation.effect)]
    return list(enumerate(operation.effects)) if isinstance(operation, WriteAll) else []
