"""Histories compared for what they mean: the canonical form of a set of events, and where two of them part.

Two histories are equal when every job saw the same events in the same order and every actor did the same things
in the same order. Steps of different actors on different jobs commute, so nothing else about the order counts:
this is equality of Mazurkiewicz traces, whose normal form is the set of projections on what is shared
(Diekert & Rozenberg, The Book of Traces, 1995, chapter 2). Wall times, positions, span ids and the absolute
values of tokens are left out; a token counts as the how-manieth lease of its job it stands for, and of the time that a
lease or a retry grants its length. What no job and no actor can be made responsible for is kept without an order.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Entry = tuple[Any, ...]

FIELDS = (
    "event",
    "actor",
    "job",
    "attempt",
    "lease",
    "effect",
    "index",
    "effects",
    "outcome",
    "reason",
    "queue",
    "order_key",
    "intent",
    "length",
)
# What they grant has a length: a lease, its extension, the wait before a retry.
GRANTS = ("lease", "renew", "retry")
# Seen by the supervisor, befallen by the worker: they belong into the worker's own story.
BEFALLEN = ("crash", "pause", "resume")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place at which two histories differ. `None` stands for: nothing more happened there."""

    where: str
    index: int
    expected: str | None
    actual: str | None
    fields: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "index": self.index,
            "expected": self.expected,
            "actual": self.actual,
            "fields": list(self.fields),
        }


@dataclass(frozen=True, slots=True)
class Canonical:
    """A history's projections: by ("job", id), ("actor", name) and ("nobody", ""), each a tuple of entries (see
    FIELDS)."""

    projections: Mapping[tuple[str, str], tuple[Entry, ...]]

    @property
    def digest(self) -> str:
        """SHA-256 over the projections, in hexadecimal."""
        data = [[*key, entries] for key, entries in sorted(self.projections.items())]
        return hashlib.sha256(json.dumps(data, ensure_ascii=True).encode()).hexdigest()


def canonical(events: Iterable[Row]) -> Canonical:
    """The canonical form of one history's events (rows of the `events` relation)."""
    rows = list(events)
    leases = _lease_numbers(rows)
    projections: dict[tuple[str, str], list[tuple[Any, Entry]]] = {}

    def add(kind: str, name: str | None, order: Any, row: Row, event: str) -> None:
        if name is not None:
            projections.setdefault((kind, name), []).append((order, _entry(row, event, leases)))

    for row in rows:
        if row["position"] is not None:
            add("job", row["job_id"], row["position"], row, row["event"])
        if row["worker_id"] is None and (row["position"] is None or row["job_id"] is None):
            entry = _entry(row, row["event"], leases)
            projections.setdefault(("nobody", ""), []).append((json.dumps(entry), entry))
    for actor, story in stories(rows).items():
        for number, (moment, row) in enumerate(story):
            add("actor", actor, number, row, moment)
    ordered = {
        key: tuple(entry for _, entry in sorted(entries, key=lambda pair: pair[0]))
        for key, entries in projections.items()
    }
    return Canonical(ordered)


def stories(rows: Iterable[Row]) -> dict[str, list[tuple[str, Row]]]:
    """What each actor did, in its own order: (event, row); a run appears as `start` and as `finish`.

    An actor's own order is its producer's sequence. What befell it was seen by another process of the same host and
    is placed by the clock: a process that is stopped or dead tells nothing meanwhile.
    """
    own: dict[str, list[tuple[int, int, str, Row]]] = {}
    befallen: list[Row] = []
    for row in rows:
        actor = row["worker_id"]
        if actor is None or (row["event"] == "inventory" and row["job_id"] is not None):
            continue
        if row["event"] in BEFALLEN:
            befallen.append(row)
        elif row["event"] == "run":
            own.setdefault(actor, []).append((row["producer_seq"], row["at"], "start", row))
            if row["producer_end_seq"] is not None:
                own[actor].append((row["producer_end_seq"], row["until"], "finish", row))
        else:
            own.setdefault(actor, []).append((row["producer_seq"], row["at"], row["event"], row))
    told = {
        actor: [(at, event, row) for _, at, event, row in sorted(entries, key=lambda entry: entry[0])]
        for actor, entries in own.items()
    }
    clocks = {actor: sorted(at for at, _, _ in story) for actor, story in told.items()}
    for row in sorted(befallen, key=lambda row: row["at"]):
        clock = clocks.setdefault(row["worker_id"], [])
        before = bisect_right(clock, row["at"])
        clock.insert(before, row["at"])
        told.setdefault(row["worker_id"], []).insert(before, (row["at"], row["event"], row))
    return {actor: [(event, row) for _, event, row in story] for actor, story in sorted(told.items())}


def compare(expected: Canonical, actual: Canonical) -> Divergence | None:
    """Where `actual` first parts from `expected`, jobs before actors; None if they are equal."""
    keys = sorted({*expected.projections, *actual.projections}, key=lambda key: (key[0] != "job", key[1]))
    for key in keys:
        found = _first_difference(key, expected.projections.get(key, ()), actual.projections.get(key, ()))
        if found is not None:
            return found
    return None


def shared(expected: Canonical, actual: Canonical) -> int:
    """How many of the expected history's job events the actual one repeats, each job up to its first difference."""
    count = 0
    for key, entries in expected.projections.items():
        if key[0] == "job":
            for one, other in zip(entries, actual.projections.get(key, ()), strict=False):
                if one != other:
                    break
                count += 1
    return count


def size(history: Canonical) -> int:
    """The number of job events in a history."""
    return sum(len(entries) for key, entries in history.projections.items() if key[0] == "job")


def _first_difference(
    key: tuple[str, str], expected: tuple[Entry, ...], actual: tuple[Entry, ...]
) -> Divergence | None:
    for index in range(max(len(expected), len(actual))):
        one = expected[index] if index < len(expected) else None
        other = actual[index] if index < len(actual) else None
        if one != other:
            fields = [name for name, a, b in zip(FIELDS, one, other, strict=True) if a != b] if one and other else []
            return Divergence(" ".join(key).strip(), index, _words(one), _words(other), tuple(fields))
    return None


def _words(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    return ", ".join(f"{name} {value}" for name, value in zip(FIELDS, entry, strict=True) if value is not None)


def _lease_numbers(rows: list[Row]) -> dict[tuple[str, int], int]:
    """(job, token) → the how-manieth lease of its job, from 1."""
    tokens = sorted(
        {(row["job_id"], row["token"]) for row in rows if row["token"] is not None and row["job_id"] is not None}
    )
    numbers: dict[tuple[str, int], int] = {}
    last, number = None, 0
    for job_id, token in tokens:
        number = number + 1 if job_id == last else 1
        last = job_id
        numbers[job_id, token] = number
    return numbers


def _entry(row: Row, event: str, leases: Mapping[tuple[str, int], int]) -> Entry:
    outcome, reason = row["outcome"], row["reason"]
    if event == "start":
        outcome = reason = None  # Not known yet; `finish` says it.
    granted = event in GRANTS and outcome == "ok" and row["until"] is not None and row["at"] is not None
    return (
        event,
        row["worker_id"],
        row["job_id"],
        row["attempt"],
        leases.get((row["job_id"], row["token"])),
        row["effect_key"],
        row["effect_index"],
        row["effect_total"],
        outcome,
        reason,
        row["queue"],
        row["order_key"],
        row["intent"],
        row["until"] - row["at"] if granted else None,
    )
