"""Histories without sense, for comparing two judges."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.generator import DURABLE, START, Row, S


def chaos(seed: int, *, schedule: int = 0) -> list[Row]:
    """A small history without sense: events of a few jobs, workers and hosts in random order, with holes everywhere.
    Nothing is planted; it is for comparing two judges. Ends and tokens mostly fit, so that the rules have work."""
    rng = random.Random(seed)
    numbered, hosts = rng.random() < 0.7, rng.choice([["a"], ["a"], ["a", "b"], ["a", None]])
    spread = rng.choice([3, 12, 40]) * S
    rows = [_chaotic(rng, schedule, index, spread, hosts) for index in range(rng.randrange(3, 22))]
    if rng.random() < 0.7:
        rows += _chaotic_inventory(rng, schedule, spread)
    rows.sort(key=lambda row: row["at"])
    if numbered:
        _chaotic_positions(rng, rows)
    sequences: dict[str, int] = {}
    for row in rows:
        sequences[row["producer"]] = sequences.get(row["producer"], 0) + 1
        row["producer_seq"] = sequences[row["producer"]] * 100
        row["producer_end_seq"] = row["producer_seq"] + 1 if row.pop("ended", True) else None
    for number, row in enumerate(rows):
        # The end of a run was mostly told after all that its process had begun by then.
        ended = row["event"] == "run" and row["producer_end_seq"] is not None and row["until"] is not None
        if ended and rng.random() < 0.8:
            began = [r["producer_seq"] for r in rows if r["producer"] == row["producer"] and r["at"] < row["until"]]
            row["producer_end_seq"] = max(*began, row["producer_seq"]) + 2 + number
    return rows


def _chaotic(rng: random.Random, schedule: int, index: int, spread: int, hosts: Sequence[str | None]) -> Row:
    event = rng.choice(
        [
            "enqueue",
            "enqueue",
            "lease",
            "lease",
            "lease",
            "run",
            "run",
            "run",
            "write",
            "write",
            "write",
            "write",
            "ack",
            "ack",
            "fail",
            "dead_letter",
            "retry",
            "renew",
            "reclaim",
            "crash",
            "pause",
            "resume",
        ]
    )
    number = rng.randrange(1, 4)
    at = START + rng.randrange(spread // S * 4) * (S // 4)
    about = event not in ("crash", "pause", "resume")
    outcomes = ["ok"] * 8 + ["unknown"] if event == "lease" else ["ok", "ok", "ok", "failed", "unknown"]
    outcome = rng.choice(outcomes) if about else "ok"
    token = rng.choice([number, number, number, number, None, rng.randrange(1, 4)])
    acting = about and event not in ("enqueue", "crash")
    worker = f"w{number}" if rng.random() < 0.95 else None
    return {
        "schedule": schedule,
        "event": event,
        "at": at,
        "job_id": rng.choice(["j1", "j1", "j2"]) if about else None,
        "until": at + rng.randrange(1, 12) * (S // 2)
        if event in ("run", "lease", "renew") and rng.random() < 0.8
        else None,
        "token": token if acting else None,
        "attempt": rng.choice([number, None, 1]) if acting else None,
        "worker_id": worker if event != "enqueue" else None,
        "queue": "orders",
        "effect_key": rng.choice(["k1", "k2", "k3", None]) if event == "write" else None,
        "effect_total": rng.choice([0, 1, 2, 2, 3, None]) if event == "enqueue" else None,
        "outcome": outcome,
        "reason": rng.choice([None, None, "early"]) if event == "ack" else _why(rng, event, outcome),
        "host": rng.choice(hosts),
        # A process a worker, a later one of its name now and then; one in eight histories is told by one process.
        "producer": (worker or "nobody") + ("'" if rng.random() < 0.1 else "") if schedule % 8 else "all",
        "decided_by": at + rng.randrange(1, 6) * (S // 2) if event != "run" and rng.random() < 0.12 else None,
        "trace_id": "0" * 32,
        "span_id": f"{schedule:x}-{index:x}",
        "ended": outcome != "unknown" or rng.random() < 0.3,
    }


def _why(rng: random.Random, event: str, outcome: str) -> str | None:
    return rng.choice(["duplicate", "fenced"]) if event == "write" and outcome == "failed" else None


def _chaotic_inventory(rng: random.Random, schedule: int, spread: int) -> list[Row]:
    shared = {
        "schedule": schedule,
        "event": "inventory",
        "at": START + rng.choice([spread // 2, spread + 20 * S]),
        "queue": "orders",
        "outcome": "ok",
        "host": "a",
        "producer": "supervisor",
        "trace_id": "0" * 32,
        "span_id": f"{schedule:x}-inventory",
    }
    held = [job for job in ("j1", "j2") if rng.random() < 0.3]
    states = [{**shared, "job_id": job, "reason": rng.choice(["ready", "leased", "dead"])} for job in held]
    return [{**shared, "job_id": None}, *states]


def _chaotic_positions(rng: random.Random, rows: list[Row]) -> None:
    position = rng.choice([0, 0, 0, 5])
    skipping = rng.random() < 0.3
    for row in rows:
        if row["event"] in DURABLE and row["outcome"] != "unknown" and row.get("reason") not in ("ready", "dead"):
            position += 2 if skipping and rng.random() < 0.2 else 1
            row["position"] = position if rng.random() < 0.97 else None
