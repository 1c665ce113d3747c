"""Takes spans out of a history and says so in gaps, as a recorder that lost them would."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pyarrow as pa
from benchmarks.generator import History, Row

from fencepost_analyzer.database import GAPS


def lose(history: History, seed: int, share: float) -> tuple[list[Row], pa.Table]:
    """Deletes a `share` of the spans, or only their ends, and says so in gaps: by producer, between the times of the
    frames that survived on either side; unbounded where none did."""
    rng = random.Random(seed)
    gone = {row["span_id"] for row in history.rows if rng.random() < share}
    beheaded = {span_id for span_id in gone if rng.random() < 0.3}
    rows, lost = [], []
    for row in history.rows:
        if row["span_id"] not in gone:
            rows.append(row)
            continue
        lost.append(row)
        if row["span_id"] in beheaded and row["event"] in ("run", "write", "ack"):
            rows.append(_without_end(row))
    return rows, _gaps(rows, lost)


def _without_end(row: Row) -> Row:
    changed = {**row, "outcome": "unknown", "producer_end_seq": None, "position": None}
    if row["event"] == "run":
        changed["until"] = None
    if row.get("reason") != "early":
        changed["reason"] = None
    return changed


def _gaps(after: Iterable[Row], lost: Iterable[Row]) -> pa.Table:
    known: dict[str, list[int]] = {}
    for row in after:
        known.setdefault(row["producer"], []).append(row["at"])
        if row["event"] == "run" and row.get("until"):
            known[row["producer"]].append(row["until"])
    gaps = []
    for row in lost:
        times = known.get(row["producer"], [])
        end = row.get("until") if row["event"] == "run" else row["at"]
        gaps.append(
            {
                "producer": row["producer"],
                "since_unix_nano": max((time for time in times if time < row["at"]), default=None),
                "until_unix_nano": min((time for time in times if time > (end or row["at"])), default=None),
                "cause": "sequence_break",
                "lost": 1,
            }
        )
    return pa.Table.from_pylist(gaps, schema=GAPS)
