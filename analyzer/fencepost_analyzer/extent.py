"""How far the evidence of a recording goes: what is missing from it, and what became of what was under way at its end.

The sentences say what nobody can know from this recording. A fork takes them for doubts: what came after the end, or
fell into a gap, may have been a fault that no replay repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fencepost_analyzer import text
from fencepost_analyzer.canonical import Row
from fencepost_analyzer.scenario_from import Incident, is_cut_short
from fencepost_runtime.actors import MS
from fencepost_runtime.drive import OUT_OF_TIME, reclaimer_name, worker_name
from fencepost_runtime.scenario import Queue


def cut_off(found: Incident, gaps: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Why the evidence may lack a fault, as clauses: gaps, no inventory, or an end before the work was done."""
    return (*_gaps(gaps), *_end(found))


def under_way(found: Incident) -> tuple[str, ...]:
    """What was under way where the evidence ends, and what cannot be known of it, as clauses."""
    return (*_attempts(found.rows), *_steps(found.rows))


def _gaps(gaps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    counted: Counter[str] = Counter(str(gap["cause"]) for gap in gaps)
    for cause, times in sorted(counted.items()):
        yield f"the recording has {text.counted(times, f'{cause} gap')}: what befell an actor there is not known"


def _end(found: Incident) -> Iterator[str]:
    rows = found.rows
    cut = sorted({str(row["worker_id"]) for row in rows if is_cut_short(row)})
    if cut:
        late = any(str(row["reason"]).endswith(OUT_OF_TIME) for row in rows if is_cut_short(row))
        why = "ran out of time" if late else "was interrupted"
        yield f"the run {why} and {text.some(cut)} {'was' if len(cut) == 1 else 'were'} ended with it"
    elif not any(row["event"] == "inventory" for row in rows):
        times = [row["at"] for row in rows]
        yield (
            "the run did not come to its end: there is no inventory, and nothing is known of what came later than "
            f"{(max(times) - min(times)) // MS:,} ms after its beginning"
        )
    elif held := list(_left_over(found)):
        yield f"the run ended before its work did: its queue still held {text.some(held)}, and somebody to take it"
    elif busy := sorted({str(row["worker_id"]) for row in _unfinished(rows)}):
        # After an early acknowledgement the queue holds nothing that would say so.
        yield f"the run ended before its work did: {text.some(busy)} {'was' if len(busy) == 1 else 'were'} still at it"


def _left_over(found: Incident) -> Iterator[str]:
    """Jobs that the inventory lists although an actor is alive that would have gone on with them."""
    dead = {row["worker_id"] for row in found.rows if row["event"] == "crash"}
    movable = {queue.name: _movable(queue, dead) for queue in found.scenario.queues}
    for row in found.rows:
        held = row["event"] == "inventory" and row["job_id"] is not None
        if held and row["reason"] in movable.get(row["queue"] or "", ()):
            yield str(row["job_id"])


def _movable(queue: Queue, dead: set[Any]) -> set[str]:
    states = set()
    if any(worker_name(queue, number) not in dead for number in range(1, queue.workers + 1)):
        states.add("ready")
    if queue.policy.reclaim != "none" and reclaimer_name(queue) not in dead:
        states.add("leased")
    return states


def _attempts(rows: Iterable[Row]) -> Iterator[str]:
    for row in _unfinished(rows):
        yield f"{row['worker_id']} was at attempt {row['attempt']} of {row['job_id']} when the evidence ends"


def _unfinished(rows: Iterable[Row]) -> Iterator[Row]:
    """Attempts that began and never ended, of workers whose death nobody told or whom the run's end took along."""
    known = list(rows)
    dead = {row["worker_id"] for row in known if row["event"] == "crash" and not is_cut_short(row)}
    for row in known:
        if row["event"] == "run" and row["producer_end_seq"] is None and row["worker_id"] not in dead:
            yield row


def _steps(rows: Iterable[Row]) -> Iterator[str]:
    """Steps without an answer after which nothing took a position: nothing tells whether they were applied."""
    known = list(rows)
    last = max((row["at"] for row in known if row["position"] is not None), default=0)
    deaths = {row["worker_id"]: row["at"] for row in known if row["event"] == "crash"}
    for row in known:
        open_ended = row["outcome"] == "unknown" and row["event"] != "run" and row["position"] is None
        if open_ended and deaths.get(row["worker_id"], last) >= last and row["producer_end_seq"] is None:
            what = f"{row['event']} of {row['effect_key'] or row['job_id']}"
            yield f"the {what} by {row['worker_id']} was never answered: it may have been applied, or not"
