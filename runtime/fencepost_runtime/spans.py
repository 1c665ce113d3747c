"""Facts as OpenTelemetry spans, through the plain API: whoever configured a TracerProvider receives them."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .facts import FAILED, Fact

SCOPE = "fencepost.runtime"
SYSTEM = "fencepost"
# Less than any recorder's limit for one value (ours is 1 MiB) and for one span (16 MiB).
PART_CHARACTERS, MAX_PARTS = 500_000, 24

# event: (span name, kind, messaging.operation.type); a name's field is the fact's queue or effect.
_SPANS: dict[str, tuple[str, SpanKind, str | None]] = {
    "enqueue": ("send {queue}", SpanKind.PRODUCER, "send"),
    "lease": ("receive {queue}", SpanKind.CLIENT, "receive"),
    "run": ("process {queue}", SpanKind.CONSUMER, "process"),
    "renew": ("renew {queue}", SpanKind.CLIENT, None),
    "write": ("write {effect}", SpanKind.CLIENT, None),
    "ack": ("settle {queue}", SpanKind.CLIENT, "settle"),
    "dead_letter": ("settle {queue}", SpanKind.CLIENT, "settle"),
    "retry": ("retry {queue}", SpanKind.CLIENT, None),
    "scan": ("scan {queue}", SpanKind.CLIENT, None),
    "reclaim": ("reclaim {queue}", SpanKind.CLIENT, None),
    "inventory": ("inventory {queue}", SpanKind.CLIENT, None),
    "crash": ("crash", SpanKind.INTERNAL, None),
    "pause": ("pause", SpanKind.INTERNAL, None),
    "resume": ("resume", SpanKind.INTERNAL, None),
}
_PROPAGATOR = TraceContextTextMapPropagator()


class SpanSink:
    """Keeps each fact as one span; a child of its attempt's run span, which is linked to the enqueue."""

    def __init__(self, database: str | None = None) -> None:
        """`database`: the system that keeps what is written, if it is one."""
        self._tracer = trace.get_tracer(SCOPE)
        self._database = database

    def open(self, fact: Fact, parent: Span | None) -> Span:
        _, kind, _ = _SPANS[fact.event]
        context = trace.set_span_in_context(parent) if parent is not None else None
        links = _links(fact.carrier) if fact.event in ("lease", "run") else []
        about = _about(fact)
        if self._database is not None and fact.event == "write":
            about["db.system.name"] = self._database
        return self._tracer.start_span(
            _name(fact), context, kind, about, links, start_time=fact.at, record_exception=False
        )

    def carrier(self, handle: Span) -> str:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(handle))
        return carrier.get("traceparent", "")

    def close(self, handle: Span, fact: Fact, now: int) -> None:
        handle.update_name(_name(fact))
        handle.set_attributes(_outcome(fact))
        if fact.error is not None:
            handle.set_status(Status(StatusCode.ERROR, fact.error))
        handle.end(end_time=max(now, fact.at))


def announce(scenario_id: str, seed: int, scenario: str, now: int, database: str | None = None) -> None:
    """The run's own span: which scenario (JSON text) under which policies and seed the other spans come from, and by
    which database system, if it was one that kept the queue.

    A text too long for one attribute goes on in `job.scenario.2` and so forth; one too long for a span is left out.
    """
    parts = [scenario[start : start + PART_CHARACTERS] for start in range(0, len(scenario), PART_CHARACTERS)]
    attributes: dict[str, str | int] = {"job.scenario.id": scenario_id, "job.scenario.seed": seed}
    if database is not None:
        attributes["db.system.name"] = database
    if len(parts) <= MAX_PARTS:
        keys = ["job.scenario", *(f"job.scenario.{number}" for number in range(2, len(parts) + 1))]
        attributes |= dict(zip(keys, parts, strict=True))
    span = trace.get_tracer(SCOPE).start_span(f"scenario {scenario_id}", attributes=attributes, start_time=now)
    span.end(end_time=now)


def _name(fact: Fact) -> str:
    queue, effect = fact.queue or "", fact.effect_key or ""
    return _SPANS[fact.event][0].format(queue=queue, effect=effect)


def _links(carrier: str) -> list[Link]:
    context = _PROPAGATOR.extract({"traceparent": carrier})
    span_context = trace.get_current_span(context).get_span_context()
    return [Link(span_context)] if span_context.is_valid else []


def _about(fact: Fact) -> dict[str, Any]:
    """What is known before the step is performed."""
    attributes = {
        "messaging.system": SYSTEM if fact.queue else None,
        "messaging.destination.name": fact.queue,
        "messaging.message.id": fact.job_id,
        "messaging.operation.type": _SPANS[fact.event][2],
        "job.name": fact.job_name,
        "job.worker.id": fact.worker_id,
        "job.attempt": fact.attempt,
        "job.lease.token": fact.token,
        "job.effect.key": fact.effect_key,
        "job.effect.index": fact.effect_index,
        "job.effects.total": len(fact.effect_keys) if fact.effect_keys is not None else None,
        "job.effects.keys": fact.effect_keys,
        "job.retry.delay_ms": fact.delay_ns // 1_000_000 if fact.delay_ns is not None else None,
        "job.signal": fact.reason if fact.event in ("crash", "pause", "resume") else None,
        "process.pid": fact.pid,
        "job.outcome": ("unknown" if fact.early else "ok") if fact.event == "ack" else None,
        "db.operation.name": "write" if fact.event == "write" else None,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _outcome(fact: Fact) -> dict[str, Any]:
    """What the step answered."""
    accepted = fact.outcome != FAILED if fact.position is not None else None
    attributes: dict[str, Any] = {
        "job.transaction.position": fact.position,
        "job.transaction.time_unix_nano": fact.at if fact.position is not None else None,
        "job.reason": fact.reason,
        "error.type": fact.error,
    }
    match fact.event:
        case "run":
            attributes["job.outcome"] = fact.outcome
        case "write":
            attributes["job.effect.applied"] = accepted
        case "lease" | "renew":
            attributes["job.lease.expires_at"] = fact.until
            attributes["job.settle.accepted"] = accepted if fact.event == "renew" else None
        case "dead_letter":
            attributes["job.outcome"] = "dead_letter"
            attributes["job.settle.accepted"] = accepted
        case "enqueue" | "ack" | "retry" | "reclaim":
            attributes["job.settle.accepted"] = accepted
        case "inventory":
            attributes["job.inventory.ids"] = [job_id for job_id, _ in fact.held or ()]
            attributes["job.inventory.states"] = [state for _, state in fact.held or ()]
    return {key: value for key, value in attributes.items() if value is not None}
