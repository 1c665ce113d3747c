"""One schedule of events as plain lists, for the naive loops of `oracle.py`: what happened, in what order, to whom."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

Row = dict[str, Any]
Doubt = bool | None

SETTLEMENTS = ("ack", "fail", "dead_letter", "retry")
BEFALLEN = ("crash", "pause", "resume")


def precedes(a: Row, b: Row) -> Doubt:
    if a.get("position") is not None and b.get("position") is not None:
        return bool(a["position"] < b["position"])
    if not one_clock(a, b) or None in (a["at"], b["at"]):
        return None
    began, other = a.get("producer_seq"), b.get("producer_seq")
    ordered = None if None in (began, other) or not alike(a, b, "producer") else bool(began < other)
    if a["at"] == b["at"] == by(a) == by(b):
        return ordered
    clock = True if by(a) < b["at"] else False if by(b) < a["at"] else None
    return None if ordered is not None and clock is not ordered else clock


def by(row: Row) -> int:
    return int(max(row["at"], row.get("decided_by") or 0))


def alike(a: Row, b: Row, column: str) -> bool:
    return a.get(column) is not None and a.get(column) == b.get(column)


def one_clock(a: Row, b: Row) -> bool:
    return alike(a, b, "host") or alike(a, b, "producer")


class History:
    def __init__(self, rows: list[Row]) -> None:
        self.rows = [{**row, "execution_id": _execution(row)} for row in rows]
        self.jobs = sorted({row["job_id"] for row in self.rows if row.get("job_id") is not None})
        self.ended = max(max(by(row), (row.get("until") or 0) if row["event"] == "run" else 0) for row in rows)

    def of(self, job: str | None, *events: str) -> list[Row]:
        return [r for r in self.rows if r["event"] in events and (job is None or r.get("job_id") == job)]

    def leases(self, job: str | None) -> list[Row]:
        """Those that were granted."""
        return [row for row in self.asked(job) if row.get("outcome") == "ok"]

    def asked(self, job: str | None) -> list[Row]:
        """Those that were granted, and those that may have been."""
        return [row for row in self.of(job, "lease") if row.get("outcome") != "failed"]

    def happened(self, row: Row) -> Doubt:
        if row.get("outcome") in ("ok", "failed"):
            return bool(row["outcome"] == "ok")
        return False if self._undone(row) else None

    def _undone(self, row: Row) -> bool:
        if row.get("producer_end_seq") is not None or row["event"] not in ("write", "renew", *SETTLEMENTS):
            return False
        crash = min((by(crash) for crash, sure in self.befell(row, "crash") if sure), default=None)
        numbered = sorted({r["position"] for r in self.rows if r.get("position") is not None})
        breaks = [after for before, after in pairwise(numbered) if after > before + 1]
        since = max(breaks, default=min(numbered, default=0))
        granted = [
            lease
            for lease in self.leases(None)
            if row["execution_id"] is not None
            and lease["execution_id"] == row["execution_id"]
            and lease.get("position") is not None
        ]
        unnumbered = any(
            r["event"] == row["event"] and r.get("outcome") == "ok" and r.get("position") is None for r in self.rows
        )
        seen = [
            r["at"]
            for r in self.rows
            if r.get("position") is not None and row.get("host") is not None and r.get("host") == row["host"]
        ]
        return (
            crash is not None
            and not unnumbered
            and any(lease["position"] >= since for lease in granted)
            and max(seen, default=-1) > crash
        )

    def victims(self, row: Row) -> set[str]:
        """The processes that a crash or a pause may have befallen: a name is no process."""
        acts: dict[str, list[int]] = {}
        for act in self.rows:
            if act["event"] not in BEFALLEN and alike(act, row, "worker_id") and alike(act, row, "host"):
                acts.setdefault(act["producer"], []).append(act["at"])
        began = {producer: times for producer, times in acts.items() if min(times) <= by(row)}
        if row["event"] == "crash":
            before = [crash for crash in self._alike(row, "crash") if _place(crash) < _place(row)]
            since = by(max(before, key=_place)) if before else None
            last = {producer: max(times) for producer, times in began.items()}
            return {p for p, time in last.items() if time <= by(row) and (since is None or time > since)}
        resume = self.resumed(row)
        until = resume["at"] if resume is not None else None
        return {
            producer
            for producer, times in began.items()
            if not any(by(row) < time and (until is None or time < until) for time in times)
        }

    def _alike(self, row: Row, event: str) -> list[Row]:
        return [one for one in self.of(None, event) if alike(one, row, "worker_id") and alike(one, row, "host")]

    def resumed(self, pause: Row) -> Row | None:
        after = [row for row in self._alike(pause, "resume") if row["at"] >= pause["at"]]
        return min(after, key=lambda row: (row["at"], by(row)), default=None)

    def befell(self, run: Row, event: str) -> list[tuple[Row, bool]]:
        """What befell the process of a run, a lease or a step, or may have: with whether it was it for sure."""
        told = [(row, self.victims(row)) for row in self._alike(run, event)]
        return [(row, victims == {run["producer"]}) for row, victims in told if run["producer"] in victims]

    def deaths(self, run: Row) -> list[tuple[Row, bool]]:
        return [] if run.get("until") is not None else self.befell(run, "crash")

    def settlements(self, run: Row) -> list[Row]:
        """Those that were accepted, or may have been."""
        told = [row for row in self.of(run["job_id"], *SETTLEMENTS) if self.settles(row, run)]
        return [row for row in told if self.happened(row) is not False and row.get("reason") != "early"]

    def shorter(self, run: Row) -> bool:
        """Whether a settlement that its clock cannot place may have ended it sooner."""
        return any(not one_clock(row, run) or row["at"] < run["at"] for row in self.settlements(run))

    def run_end(self, run: Row) -> int | None:
        """By when it had ended for sure."""
        if backwards(run):
            return None
        accepted = [row for row in self.settlements(run) if self.happened(row)]
        settled = [by(row) for row in accepted if one_clock(row, run) and row["at"] >= run["at"]]
        ends = [run.get("until"), *settled, *(by(row) for row, sure in self.deaths(run) if sure)]
        return min((end for end in ends if end is not None), default=None)

    def run_end_from(self, run: Row) -> int | None:
        """Before when it had not ended for sure."""
        if backwards(run) or self.shorter(run):
            return None
        ends = [
            run.get("until"),
            *(row["at"] for row in self.settlements(run)),
            *(r["at"] for r, _ in self.deaths(run)),
        ]
        return min((end for end in ends if end is not None), default=None)

    def settles(self, settlement: Row, run: Row) -> bool:
        """Of a lease that was handed to several workers each settles its own run, and a burial by somebody else takes
        the lease and ends nobody's work."""
        if not same(settlement, run):
            return False
        workers = [settlement.get("worker_id"), run.get("worker_id")]
        others = {row.get("worker_id") for row in self.of(None, "run") if same(row, run)}
        if None in workers or workers[0] == workers[1]:
            return True
        return settlement["event"] != "dead_letter" and workers[0] not in others

    def effects(self, job: str) -> dict[str, Doubt]:
        found: dict[str, list[Row]] = {}
        for write in self.of(job, "write"):
            if write.get("effect_key") is not None:
                found.setdefault(write["effect_key"], []).append(write)
        return {key: self._applied(writes) for key, writes in found.items()}

    def _applied(self, writes: list[Row]) -> Doubt:
        if any(self.happened(write) for write in writes):
            return True
        guarded = any(write.get("reason") == "duplicate" for write in writes)
        of_this_key = [one for one in self.of(None, "write") if one.get("effect_key") == writes[0]["effect_key"]]
        if guarded and any(self.happened(one) is not False for one in of_this_key):
            return True
        return None if guarded or any(self.happened(write) is None for write in writes) else False

    def effect_total(self, job: str) -> int | None:
        told = [r for r in self.of_any(job) if r["event"] != "enqueue" or r.get("outcome") != "failed"]
        return max((r["effect_total"] for r in told if r.get("effect_total") is not None), default=None)

    def effectless(self, job: str) -> bool:
        return any(row.get("effect_total") == 0 for row in self.enqueues(job))

    def enqueues(self, job: str) -> list[Row]:
        """Those that may have been accepted."""
        return [row for row in self.of(job, "enqueue") if row.get("outcome") != "failed"]

    def promised(self, job: str) -> int | None:
        """How many effects all of its enqueues together declare."""
        enqueues = self.enqueues(job)
        if len(enqueues) < 2:
            return self.effect_total(job)
        totals = [row.get("effect_total") for row in enqueues]
        return None if None in totals else sum(total for total in totals if total is not None)

    def unnamed(self, job: str) -> int:
        writes = [row for row in self.of(job, "write") if row.get("effect_key") is None]
        return sum(1 for write in writes if self.happened(write) is not False)

    def returns(self, job: str) -> list[tuple[Row, Doubt]]:
        """What brings a job back into the queue or a worker's hands, and whether it happened."""
        found: list[tuple[Row, Doubt]] = [(row, self.happened(row)) for row in self.asked(job)]
        found += [(row, told) for row in self.of(job, "retry", "reclaim") if (told := self.happened(row)) is not False]
        if len(self.enqueues(job)) > 1:
            found += [(row, True if row.get("outcome") == "ok" else None) for row in self.enqueues(job)]
        return found

    def partings(self, job: str) -> list[tuple[Row, bool, bool]]:
        """Accepted acknowledgements and burials: final? undone?"""
        found = []
        for row in self.of(job, "ack", "dead_letter"):
            if row.get("outcome") == "ok":
                final = all(_returned_before(back, told, row) for back, told in self.returns(job))
                undone = any(bool(told) and precedes(row, back) is True for back, told in self.returns(job))
                found.append((row, final, undone))
        return found

    def current(self, job: str) -> bool:
        """Whether the inventory was taken after all that brought the job back, or let go of it without its work."""
        taken = self.inventory()
        gone = [row for row in self.of(job, "fail", "ack") if row["event"] == "fail" or row.get("reason") == "early"]
        gone = gone if self.state(job) is not None else []
        moves = [*self.returns(job), *((row, told) for row in gone if (told := self.happened(row)) is not False)]
        return taken is not None and all(told and precedes(move, taken) is True for move, told in moves)

    def unended(self, job: str) -> list[Row]:
        """Leases whose execution was not told."""
        told = self.of(job, "run", *SETTLEMENTS, "reclaim")
        told = [r for r in told if r["event"] == "run" or (r.get("outcome") == "ok" and r.get("reason") != "early")]
        return [
            lease
            for lease in self.asked(job)
            if not any(_may_be_of(row, lease) for row in told)
            and not any(sure for _, sure in self.befell(lease, "crash"))
        ]

    def of_any(self, job: str) -> list[Row]:
        return [row for row in self.rows if row.get("job_id") == job]

    def inventory(self) -> Row | None:
        taken = [row for row in self.of(None, "inventory") if row.get("job_id") is None]
        return max(taken, key=lambda row: int(row["at"]), default=None)

    def state(self, job: str) -> str | None:
        taken = self.inventory()
        if taken is None:
            return None
        listed = [row for row in self.of(job, "inventory") if row["span_id"] == taken["span_id"]]
        return str(listed[0]["reason"]) if listed else None

    def ending(self, job: str) -> Row | None:
        partings = self.partings(job)
        last = max((row["at"] for row, _, _ in partings), default=None)
        latest = [(row, final) for row, final, _ in partings if row["at"] == last]
        return latest[0][0] if latest and all(final for _, final in latest) else None

    def after_ending(self, job: str) -> Doubt:
        ending, taken = self.ending(job), self.inventory()
        return precedes(ending, taken) if ending is not None and taken is not None else None

    def running(self, job: str) -> bool:
        return any(self.run_end(run) is None for run in self.of(job, "run"))


def _place(row: Row) -> tuple[int, str]:
    return row["at"], row["span_id"]


def _execution(row: Row) -> str | None:
    if row.get("execution_id") is not None:
        return str(row["execution_id"])
    if row.get("job_id") is not None and row.get("token") is not None:
        return f"{row['job_id']}#{row['token']}"
    return f"{row['job_id']}@{row['span_id']}" if row["event"] == "run" and row.get("job_id") is not None else None


def backwards(run: Row) -> bool:
    return run.get("until") is not None and bool(run["until"] < run["at"])


def same(a: Row, b: Row) -> bool:
    return alike(a, b, "execution_id")


def _returned_before(back: Row, happened: Doubt, parting: Row) -> bool:
    own = same(back, parting)
    if back["event"] in ("retry", "reclaim") and own:
        positions = (back.get("position"), parting.get("position"))
        if positions[0] is not None and positions[0] == positions[1]:
            return True
        if positions == (None, None) and back["at"] == parting["at"]:
            return True
    if happened is None:
        return False
    before = precedes(back, parting)
    if before is not None:
        return before
    older = None not in (back.get("token"), parting.get("token")) and back["token"] < parting["token"]
    return back["event"] == "lease" and (own or (older and alike(back, parting, "queue")))


def _may_be_of(row: Row, lease: Row) -> bool:
    for column in ("execution_id", "worker_id"):
        if row.get(column) is not None and lease.get(column) is not None:
            return bool(row[column] == lease[column])
    return True


def answered(row: Row) -> bool:
    if row.get("outcome") == "ok":
        return True
    if row.get("outcome") == "failed":
        return bool(row.get("reason") == "duplicate")
    return row.get("reason") != "ConnectionLost" and row.get("producer_end_seq") is not None
