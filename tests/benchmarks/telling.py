"""Events back into spans, as the reference runtime would have told them."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa
from benchmarks.generator import MS, Row

SPANS = pa.schema(
    [
        ("name", pa.string()),
        ("scope_name", pa.string()),
        ("start_time_unix_nano", pa.int64()),
        ("duration_time_unix_nano", pa.int64()),
        ("span_attributes", pa.string()),
        ("resource_attributes", pa.string()),
        ("producer", pa.string()),
        ("producer_seq", pa.int64()),
        ("producer_end_seq", pa.int64()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
    ]
)

_NAMES = {
    "enqueue": "send",
    "lease": "receive",
    "run": "process",
    "write": "write",
    "ack": "settle",
    "fail": "settle",
    "dead_letter": "settle",
}


def spans(rows: Iterable[Row]) -> pa.Table:
    """The spans from which the mapping of scope fencepost.runtime makes exactly these events."""
    held: dict[str, list[Row]] = {}
    plain = []
    for row in rows:
        if row["event"] == "inventory" and row.get("job_id") is not None:
            held.setdefault(row["span_id"], []).append(row)
        else:
            plain.append(row)
    return pa.Table.from_pylist([_span(row, held.get(row["span_id"], [])) for row in plain], schema=SPANS)


def _span(row: Row, held: list[Row]) -> Row:
    event = row["event"]
    subject = row.get("effect_key") if event == "write" else row.get("queue")
    ended = row.get("producer_end_seq") is not None
    until = row.get("until") if event == "run" else row["at"]
    attributes = {key: value for key, value in _attributes(row, held, ended).items() if value is not None}
    return {
        "name": f"{_NAMES.get(event, event)} {subject}" if subject else _NAMES.get(event, event),
        "scope_name": "fencepost.runtime",
        "start_time_unix_nano": row["at"],
        "duration_time_unix_nano": until - row["at"] if ended else None,
        "span_attributes": json.dumps(attributes),
        "resource_attributes": json.dumps({"host.name": row["host"]}),
        **{name: row.get(name) for name in ("producer", "producer_seq", "producer_end_seq", "trace_id", "span_id")},
    }


def _attributes(row: Row, held: list[Row], ended: bool) -> Row:
    event, early = row["event"], row.get("reason") == "early"
    told = row["outcome"] == "ok" if ended and row["outcome"] != "unknown" else None
    outcomes = {"ack": "unknown" if early else "ok", "fail": "failed", "dead_letter": "dead_letter"}
    return {
        "messaging.message.id": row.get("job_id"),
        "messaging.destination.name": row.get("queue"),
        "job.worker.id": row.get("worker_id"),
        "job.attempt": row.get("attempt"),
        "job.lease.token": row.get("token"),
        "job.lease.expires_at": row.get("until") if event in ("lease", "renew") else None,
        "job.effect.key": row.get("effect_key"),
        "job.effect.index": row.get("effect_index"),
        "job.effects.total": row.get("effect_total"),
        "job.transaction.position": row.get("position"),
        "job.outcome": (row["outcome"] if ended else None) if event == "run" else outcomes.get(event),
        "job.reason": None if early else row.get("reason"),
        "job.effect.applied": told if event == "write" else None,
        "job.settle.accepted": told if event in ("enqueue", "renew", "retry", "reclaim", *outcomes) else None,
        "job.retry.delay_ms": (row["until"] - row["at"]) // MS if event == "retry" else None,
        "job.inventory.ids": [job["job_id"] for job in held] if event == "inventory" else None,
        "job.inventory.states": [job["reason"] for job in held] if event == "inventory" else None,
    }
