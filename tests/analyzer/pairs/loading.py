"""Reads the pairs: for each invariant the histories that satisfy it, break it, or leave it open.

A file holds a list of cases: a `claim` in one sentence, `events`, and sometimes `gaps`, what the witnesses say
(`says`), which `spans` the first one points at, how many cases there are (`count`, else 1), or which span is
`missing`. Times are seconds. What an event leaves out: `outcome` is ok; `host` is one and the same; the `producer`
is the worker, else "p"; durable steps that got an answer are numbered in the order of the list (`position`); an
event has `ended` unless its outcome is unknown. Each process told them in the order of the list, and the end of a run
after all that it began before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from benchmarks.generator import DURABLE

from fencepost_analyzer.database import GAPS, events_table
from fencepost_analyzer.verdicts import Finding

HERE = Path(__file__).parent
VERDICTS = {"ok": "holds", "bad": "violated", "unknown": "unknown"}
# Between what one process tells there is room for the ends of runs.
STEP = 1_000
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Case:
    """One history and the verdict that it must get from `invariant`."""

    invariant: str
    verdict: str
    claim: str
    rows: list[dict[str, Any]]
    gaps: pa.Table
    says: str
    missing: str
    spans: tuple[str, ...]
    count: int

    def table(self) -> pa.Table:
        return events_table(self.rows)


def cases(invariant: str, kind: str) -> list[Case]:
    """The cases of one file, `kind` being ok, bad or unknown."""
    told = json.loads((HERE / f"{invariant}-{kind}.json").read_text(encoding="utf-8"))
    return [_case(invariant, kind, case) for case in told]


def all_cases() -> list[Case]:
    found = []
    for path in sorted(HERE.glob("*.json")):
        invariant, _, kind = path.stem.rpartition("-")
        found += cases(invariant, kind)
    return found


def mismatches(case: Case, finding: Finding) -> list[str]:
    """What a finding lacks of what the case wants of it, beside the verdict."""
    said = " ".join(witness.sentence for witness in finding.witnesses)
    wrong = [] if case.says in said else [f"says: {said}"]
    wrong += [] if case.missing in " ".join(finding.missing) else [f"missing: {finding.missing}"]
    spans = finding.witnesses[0].span_ids if finding.witnesses else ()
    wrong += [f"spans: {spans}"] if case.spans and spans != case.spans else []
    count = finding.violations + finding.unknowns
    return wrong + ([f"count: {count}"] if finding.verdict == "violated" and count != case.count else [])


def _case(invariant: str, kind: str, case: dict[str, Any]) -> Case:
    unknown = set(case) - {"claim", "events", "gaps", "says", "missing", "spans", "count"}
    assert not unknown, f"{invariant}-{kind}: unknown keys {unknown}"
    gaps = pa.Table.from_pylist([_gap(gap) for gap in case.get("gaps", [])], schema=GAPS)
    says, missing = case.get("says", ""), case.get("missing", "")
    spans, count = tuple(case.get("spans", ())), case.get("count", 1)
    return Case(invariant, VERDICTS[kind], case["claim"], _rows(case["events"]), gaps, says, missing, spans, count)


def run_ended(rows: list[dict[str, Any]], run: dict[str, Any], number: int) -> int:
    """When its process told the end of a run: after all that it had begun by then."""
    began = [
        row["producer_seq"]
        for row in rows
        if row["producer"] == run["producer"] and row["at"] is not None and row["at"] < (run["until"] or 0)
    ]
    return int(max([*began, run["producer_seq"]]) + 2 + number)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else START_NS + round(seconds * 1_000_000_000)


def _gap(gap: dict[str, Any]) -> dict[str, Any]:
    times = {"since_unix_nano": _ns(gap.pop("since_s", None)), "until_unix_nano": _ns(gap.pop("until_s", None))}
    return {**gap, **times}


def _rows(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    sequences: dict[str, int] = {}
    position = 0
    for number, event in enumerate(events):
        row = {"outcome": "ok", "host": "box", "queue": "orders", "span_id": f"s{number}", **event}
        row |= {name: _ns(event.get(name)) for name in ("at", "until", "decided_by")}
        row.setdefault("trace_id", "t")
        row.setdefault("producer", row.get("worker_id") or "p")
        sequences[row["producer"]] = sequence = sequences.get(row["producer"], 0) + STEP
        row["producer_seq"] = sequence
        row["producer_end_seq"] = sequence + 1 if row.pop("ended", row["outcome"] != "unknown") else None
        if row["event"] == "inventory" and row.get("job_id") is not None:
            # Told by the span of the inventory that it belongs to, the last one before it.
            taken = next(r for r in reversed(rows) if r["event"] == "inventory" and r.get("job_id") is None)
            row |= {name: taken[name] for name in ("at", "span_id", "position")}
        elif "position" in row:
            position = row["position"] or position
        elif row["event"] in DURABLE and row["outcome"] != "unknown":
            position += 1
            row["position"] = position
        rows.append(row)
    for number, row in enumerate(rows):
        if row["event"] == "run" and row["producer_end_seq"] is not None:
            row["producer_end_seq"] = run_ended(rows, row, number)
    return rows
