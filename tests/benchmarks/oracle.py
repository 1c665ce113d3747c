"""The invariants once more, as naive loops over lists: what the SQL is held to on random histories.

Slow and plain on purpose. Takes one schedule of event dicts without gaps, answers the verdict of each invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.history import (
    SETTLEMENTS,
    Doubt,
    History,
    Row,
    alike,
    answered,
    backwards,
    by,
    one_clock,
    precedes,
    same,
)

GRACE_NS = 5_000_000_000


def verdicts(rows: list[Row]) -> dict[str, str]:
    """Invariant → violated, unknown or holds."""
    history = History(rows)
    found = {name: rule(history) for name, rule in RULES.items()}
    writes = [row for row in rows if row["event"] == "write" and row.get("outcome") != "failed"]
    if any(row.get("effect_key") is None for row in writes):
        # A write that does not say which effect it is could be any.
        found |= {name: "unknown" for name in ("INV-001", "INV-007") if found[name] == "holds"}
    return found


def conjunction(*terms: Doubt) -> Doubt:
    if any(term is False for term in terms):
        return False
    return None if any(term is None for term in terms) else True


def summary(cases: list[Doubt]) -> str:
    """Cases: True = a violation, None = a doubt."""
    if any(cases):
        return "violated"
    return "unknown" if None in cases else "holds"


def duplicate_effect(history: History) -> str:
    keys = {row["effect_key"] for row in history.of(None, "write") if row.get("effect_key") is not None}
    cases: list[Doubt] = []
    for key in keys:
        writes = [row for row in history.of(None, "write") if row.get("effect_key") == key]
        told = [history.happened(row) for row in writes]
        if told.count(True) > 1:
            cases.append(True)
        elif sum(_at_most(history, job, writes) for job in {row["job_id"] for row in writes}) > 1:
            cases.append(None)
    return summary(cases)


def _at_most(history: History, job: str, writes: list[Row]) -> int:
    """How often a job may have applied the one effect that these writes are of."""
    told = [history.happened(row) for row in writes if row["job_id"] == job]
    guarded = any(row["job_id"] == job and row.get("reason") == "duplicate" for row in writes)
    return max(told.count(True), min(told.count(None), 1)) if guarded else told.count(True) + told.count(None)


def concurrent_execution(history: History) -> str:
    cases: list[Doubt] = []
    for job in history.jobs:
        runs = sorted(history.of(job, "run"), key=lambda row: (row["at"], row["span_id"]))
        for index, a in enumerate(runs):
            cases += [_overlap(history, a, b) for b in runs[index + 1 :]]
    return summary(cases)


def _overlap(history: History, a: Row, b: Row) -> Doubt:
    workers = (a.get("worker_id"), b.get("worker_id"))
    one = same(a, b) and (workers[0] == workers[1] or None in workers)
    if one and alike(a, b, "producer"):
        return False
    met = _overlapping(history, a, b)
    return None if met and one else met


def _overlapping(history: History, a: Row, b: Row) -> Doubt:
    if _handed_over(history, a, b) or _handed_over(history, b, a):
        return False
    awake_a, awake_b = _awake(history, a), _awake(history, b)
    ordered = None if not alike(a, b, "producer") or a["at"] == b["at"] else a["producer_seq"] < b["producer_seq"]
    set_back = backwards(a) or backwards(b) or (ordered is not None and ordered is not (a["at"] < b["at"]))
    if awake_a and awake_b and (set_back or not one_clock(a, b)):
        return None
    drowsy = _drowsy(history, a) or _drowsy(history, b)
    met: Doubt = False
    for one in awake_a:
        for other in awake_b:
            both = None if drowsy and _both_awake(one, other) else _both_awake(one, other)
            met = True if True in (met, both) else None if None in (met, both) else False
    return met


class _Stretch(NamedTuple):
    """Awake from some time from `since` to `since_by`, until some time from `asleep_from` to `asleep`."""

    since: int
    since_by: int
    asleep_from: int | None
    asleep: int | None
    first: bool

    def surely(self, moment: int) -> bool:
        return self.since_by <= moment and self.asleep_from is not None and moment < self.asleep_from


def _both_awake(a: _Stretch, b: _Stretch) -> Doubt:
    if (a.asleep is not None and a.asleep <= b.since) or (b.asleep is not None and b.asleep <= a.since):
        return False
    for one, other in ((a, b), (b, a)):
        wakes = other.first or other.surely(other.since_by)
        if one.since_by <= other.since and one.surely(other.since_by) and wakes:
            return True
    last = max(a.since_by, b.since_by)
    return True if a.surely(last) and b.surely(last) else None


def _handed_over(history: History, a: Row, b: Row) -> bool:
    settled = [
        row["position"]
        for row in history.of(a["job_id"], *SETTLEMENTS)
        if row.get("outcome") == "ok"
        and row.get("reason") != "early"
        and history.settles(row, a)
        and row.get("position") is not None
    ]
    granted = [r["position"] for r in history.leases(b["job_id"]) if same(r, b) and r.get("position") is not None]
    return bool(settled and granted and min(settled) < min(granted))


def _awake(history: History, run: Row) -> list[_Stretch]:
    """Stretches in which the run's process was not stopped; asleep None = never, as far as is known."""
    naps = [row for row, sure in history.befell(run, "pause") if sure and run["at"] <= by(row)]
    resumes = [resume for nap in naps if (resume := history.resumed(nap)) is not None]
    starts = [(run["at"], run["at"], True), *{(row["at"], by(row), False) for row in resumes}]
    found = []
    for since, since_by, first in starts:
        nap = min((nap for nap in naps if nap["at"] >= since), key=lambda row: (row["at"], by(row)), default=None)
        ends = [history.run_end(run), by(nap) if nap else None]
        asleep = min((end for end in ends if end is not None), default=None)
        ends = [history.run_end_from(run), nap["at"] if nap else None]
        asleep_from = min((end for end in ends if end is not None), default=None)
        unsure = backwards(run) or history.shorter(run)
        if asleep is None or since < asleep:
            found.append(_Stretch(since, since_by, None if unsure else asleep_from, asleep, first))
    return found


def _drowsy(history: History, run: Row) -> bool:
    """Whether a pause may or may not have been its process's."""
    naps = [row for row in history.of(None, "pause", "resume") if alike(row, run, "worker_id")]
    mistakable = any(not sure and run["at"] <= by(row) for row, sure in history.befell(run, "pause"))
    return mistakable or any(row.get("host") is None or run.get("host") is None for row in naps)


def _takeovers(history: History, events: tuple[str, ...]) -> str:
    cases: list[Doubt] = []
    for job in history.jobs:
        leases, asked = history.leases(job), history.asked(job)
        for action in history.of(job, *events):
            happened = history.happened(action)
            if happened is False:
                continue
            overtaken = [_newer(leases, action, rival) for rival in asked if _another(action, rival, len(leases))]
            worst = True if True in overtaken else None if None in overtaken else False
            cases.append(conjunction(worst, happened))
    return summary(cases)


def _another(action: Row, rival: Row, leases: int) -> bool:
    if action["execution_id"] is not None and rival["execution_id"] is not None:
        return not same(action, rival)
    workers = (action.get("worker_id"), rival.get("worker_id"))
    return leases > (rival.get("outcome") == "ok") or (None not in workers and workers[0] != workers[1])


def _newer(leases: list[Row], action: Row, rival: Row) -> Doubt:
    own = [lease for lease in leases if same(lease, action)]
    if rival.get("outcome") != "ok":
        tokens = (rival.get("token"), action.get("token"))
        return False if (None not in tokens and tokens[0] <= tokens[1]) or precedes(action, rival) else None
    if action.get("token") is not None and rival.get("token") is not None:
        newer: Doubt = rival["token"] > action["token"]
    else:
        orders = [precedes(lease, rival) for lease in own] or [None]
        newer = True if True in orders else None if None in orders else False
    return conjunction(newer, precedes(rival, action))


def lost_job(history: History) -> str:
    return summary([_lost(history, job) for job in history.jobs])


def _lost(history: History, job: str) -> Doubt:
    promises = [row for row in history.of(job, "enqueue") if answered(row)]
    total = history.effect_total(job)
    effects = list(history.effects(job).values())
    finished = _finished(history, job)
    if not promises or finished or _by_effects(history, job):
        return False
    taken, ending = history.inventory(), history.ending(job)
    stale = ending is not None and history.after_ending(job) is not True
    if history.state(job) is not None and history.current(job) and not stale:
        return False
    last = max(promises, key=lambda row: int(row["at"]))
    if not any(row.get("outcome") == "ok" for row in promises) or finished is None:
        return None
    if taken is None or precedes(last, taken) is not True or stale or not history.current(job):
        return None
    settlements = [row for row in history.of(job, "ack", "dead_letter") if row.get("reason") != "early"]
    runs = history.of(job, "run")
    leased = [row for row in history.of(job, "lease", "renew") if row.get("outcome") == "ok"]
    doubts = (
        any(history.happened(row) is None for row in settlements),
        total is not None
        and not history.effectless(job)
        and effects.count(True) + effects.count(None) + history.unnamed(job) >= total,
        any(run.get("until") is not None and run.get("outcome") in (None, "unknown") for run in runs),
        history.running(job),
        any(lease.get("until") is None for lease in history.unended(job)),
        ending is None and max((row["until"] or 0 for row in leased), default=0) > taken["at"],
        ending is None and any(_unsure(history, row) for row in history.of(job, "renew")),
    )
    return None if any(doubts) else True


def _by_effects(history: History, job: str) -> bool:
    """Whether all its declared effects were applied: no proof of one that declares none."""
    promised = history.promised(job)
    applied = list(history.effects(job).values()).count(True)
    return promised is not None and not history.effectless(job) and applied >= promised


def _unsure(history: History, renewal: Row) -> bool:
    """Whether nobody knows if it was granted, or until when."""
    happened = history.happened(renewal)
    return happened is None or (happened and renewal.get("until") is None)


def _finished(history: History, job: str) -> Doubt:
    """Completed since it was last enqueued? False = surely not, None = nobody can tell."""
    again = len(history.enqueues(job)) > 1
    done = [
        row
        for row in history.of(job, "ack", "run", "dead_letter")
        if row.get("outcome") == "ok" and not (row["event"] == "ack" and row.get("reason") == "early")
    ]
    worked = any(row["event"] != "dead_letter" for row in done)
    if worked and not again:
        return True
    fates = [_fate(history, job, row, again) for row in done]
    if True in fates:
        return True
    return None if None in fates else False


def _fate(history: History, job: str, done: Row, again: bool) -> Doubt:
    """Whether a completion stands: False = surely undone, None = nobody can tell."""
    standing, undone = [], []
    if again:
        finished = {**done, "position": None, "at": done.get("until"), "producer_seq": done.get("producer_end_seq")}
        finished = finished if done["event"] == "run" else done
        acts = [done, *(row for row in history.of(None, "lease", "run") if same(row, done))]
        for enqueue in history.enqueues(job):
            standing += [precedes(enqueue, act) is True for act in acts]
            undone.append(enqueue.get("outcome") == "ok" and precedes(finished, enqueue) is True)
    if done["event"] == "dead_letter":
        for row, final, brought_back in history.partings(job):
            if row is done:
                standing.append(final)
                undone.append(brought_back)
    return True if all(standing) else False if any(undone) else None


def partial_write(history: History) -> str:
    return summary([_partial(history, job) for job in history.jobs])


def _partial(history: History, job: str) -> Doubt:
    total, promised = history.effect_total(job), history.promised(job)
    effects = list(history.effects(job).values())
    applied, unanswered = effects.count(True), effects.count(None)
    whole = promised is not None and applied >= promised
    if applied + unanswered == 0 or whole or (total is not None and total <= 1):
        return False
    if total is None or len(history.enqueues(job)) > 1 or history.unnamed(job):
        return None
    if applied == 0 or applied + unanswered >= total or history.running(job) or history.unended(job):
        return None
    ending = history.ending(job)
    if history.state(job) not in (None, "dead") and history.after_ending(job) is not False:
        return None
    return None if ending is None and not history.current(job) else True


def stuck_lease(history: History) -> str:
    return summary([_stuck(history, lease) for lease in history.asked(None)])


def _stuck(history: History, lease: Row) -> Doubt:
    job = lease["job_id"]
    renewals = [row for row in history.of(job, "renew") if same(row, lease) and history.happened(row) is not False]
    known = [row["until"] for row in renewals if history.happened(row) and row.get("until") is not None]
    expiries = [*known, *([lease["until"]] if lease.get("until") is not None else [])]
    due = max(expiries) + max((lease.get("until") or 0) - lease["at"], GRACE_NS) if expiries else None
    if due is not None and history.ended <= due:
        return False
    own = [row for row in history.of(job, *SETTLEMENTS, "reclaim") if same(row, lease)]
    others = [
        row
        for row in history.of(job, "lease", *SETTLEMENTS, "reclaim")
        if not same(row, lease) and row.get("outcome") == "ok" and precedes(lease, row)
    ]
    released = [row for row in own if row.get("outcome") == "ok"]
    if any(due is None or (by(row) <= due and one_clock(row, lease)) for row in (*released, *others)):
        return False
    taken = history.inventory()
    if (
        taken is not None
        and due is not None
        and by(taken) <= due
        and one_clock(taken, lease)
        and precedes(lease, taken)
    ):
        state, unanswered = history.state(job), any(history.happened(row) is None for row in own)
        if state in ("ready", "dead") or (state is None and unanswered):
            return False
    late = _late(history, lease, due, own, others)
    return None if late and (len(known) < len(renewals) or lease.get("outcome") != "ok") else late


def _late(history: History, lease: Row, due: int | None, own: list[Row], others: list[Row]) -> Doubt:
    job, taken = lease["job_id"], history.inventory()
    if due is None:
        return None
    released = [row for row in own if row.get("outcome") == "ok"]
    ends = sorted(released, key=lambda row: int(row["at"])) or sorted(others, key=lambda row: int(row["at"]))
    counted = taken is not None and taken["at"] > due and one_clock(taken, lease)
    seen = counted and history.state(job) == "leased"
    if ends:
        seen = seen and taken is not None and taken["at"] < ends[0]["at"]
        late = ends[0]["at"] > due and one_clock(ends[0], lease)
        return True if late and (seen or ends[0]["event"] == "reclaim") else None
    return True if seen else None


def causality(history: History) -> str:
    whole = _covered(history)
    cases: list[Doubt] = []
    for job in history.jobs:
        cases.append(_too_early(history, job, whole))
        cases += [_stray(history, write, whole) for write in history.of(job, "write")]
        leases = history.leases(job)
        cases += [_backwards(history, a, b) for a in leases for b in leases if a is not b]
    return summary(cases)


def _covered(history: History) -> int:
    """The last of the queue's numbers up to which none is missing, from 1."""
    if any(row.get("outcome") == "ok" and row.get("position") is None for row in history.of(None, "enqueue")):
        return 0
    numbers = {row.get("position") for row in history.rows}
    until = 0
    while until + 1 in numbers:
        until += 1
    return until


def _proved(row: Row, covered: int) -> bool:
    return row.get("position") is not None and bool(row["position"] <= covered)


def _too_early(history: History, job: str, whole: int) -> Doubt:
    begun = history.of(job, "lease", "run")
    enqueued = [row for row in history.of(job, "enqueue") if row.get("outcome") != "failed"]
    if not begun:
        return False
    if not enqueued:
        first = min(begun, key=lambda row: (row.get("position") is None, row.get("position") or 0, int(row["at"])))
        return True if _proved(first, whole) else None
    cases = [_before_all(row, enqueued, whole) for row in begun]
    return True if True in cases else None if None in cases else False


def _before_all(row: Row, enqueued: list[Row], whole: int) -> Doubt:
    orders = [precedes(row, other) for other in enqueued]
    if any(
        order is False or (order is None and row["at"] >= e["at"]) for order, e in zip(orders, enqueued, strict=True)
    ):
        return False
    return True if all(orders) and _proved(row, whole) else None


def _stray(history: History, write: Row, whole: int) -> Doubt:
    happened = history.happened(write)
    if happened is False:
        return False
    executions = history.of(write["job_id"], "lease", "run")
    named = write["execution_id"] is not None
    if not any(same(write, row) or not named for row in executions):
        return True if happened and _proved(write, whole) else None
    own = [lease for lease in history.leases(write["job_id"]) if same(write, lease)]
    if happened and any(precedes(write, lease) for lease in own):
        return True
    outside = [_outside(write, run) for run in history.of(write["job_id"], "run") if same(write, run)]
    beside: Doubt = conjunction(*outside, happened) if outside else False
    return None if beside is False and any(precedes(write, lease) for lease in own) else beside


def _outside(write: Row, run: Row) -> Doubt:
    """Whether it was decided before the run began, or after it ended; one that did not end may be at it."""
    finished = {**run, "position": None, "at": run.get("until"), "producer_seq": run.get("producer_end_seq")}
    terms = [precedes(write, run), run.get("until") is not None and precedes(finished, write)]
    return True if True in terms else None if None in terms else False


def _backwards(history: History, earlier: Row, later: Row) -> Doubt:
    tokens = None not in (earlier.get("token"), later.get("token")) and later["token"] <= earlier["token"]
    attempts = None not in (earlier.get("attempt"), later.get("attempt")) and later["attempt"] < earlier["attempt"]
    if not precedes(earlier, later) or not (tokens or attempts):
        return False
    between = [
        conjunction(precedes(earlier, row), precedes(row, later), True if row.get("outcome") == "ok" else None)
        for row in history.enqueues(later["job_id"])
    ]
    if tokens:
        return True
    return False if True in between else None if None in between else True


RULES: dict[str, Callable[[History], str]] = {
    "INV-001": duplicate_effect,
    "INV-002": concurrent_execution,
    "INV-003": lambda history: _takeovers(history, ("write",)),
    "INV-004": lambda history: _takeovers(history, SETTLEMENTS),
    "INV-005": lost_job,
    "INV-007": partial_write,
    "INV-010": stuck_lease,
    "INV-018": causality,
}
