"""Histories of a job queue whose truth is known: healthy lives, harmless accidents, and planted anomalies.

Each kind of life is a small function that tells its events; `LIVES` names the invariants that it breaks. The same
seed gives the same history. `damage.py` deletes spans and says so in gaps, `telling.py` turns events into spans, and
`chaos.py` makes histories without sense.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fencepost_analyzer.database import EVENTS

S = 1_000_000_000
MS = 1_000_000
START = 1_700_000_000 * S
LEASE = 10 * S
NEVER_GRANTED = 1_000_000

Row = dict[str, Any]
HOST = "box-1"


@dataclass
class Queue:
    """Tells events of many jobs into one list; positions are numbered when all is told, in order of time."""

    rng: random.Random
    schedule: int = 0
    rows: list[Row] = field(default_factory=list)
    tokens: int = 0
    workers: int = 0

    def tell(self, event: str, at: int, producer: str, **fields: Any) -> Row:
        row = {
            "schedule": self.schedule,
            "event": event,
            "at": at,
            "queue": "orders",
            "outcome": "ok",
            "host": HOST,
            "producer": producer,
            "trace_id": "0" * 32,
            **fields,
        }
        self.rows.append(row)
        return row

    def token(self) -> int:
        self.tokens += 1
        return self.tokens

    def worker(self) -> str:
        self.workers += 1
        return f"w{self.workers}"


@dataclass
class Life:
    """One job's life. Every method tells one event `after` nanoseconds after the one before it."""

    queue: Queue
    job_id: str
    now: int
    effects: int

    def wait(self, after: int) -> int:
        # Never two events at the same nanosecond: their order would be nobody's to know.
        self.now += after + self.queue.rng.randrange(1, MS)
        return self.now

    def enqueue(self, **fields: Any) -> Row:
        effects = {"effect_total": self.effects} if self.effects else {}
        return self.queue.tell("enqueue", self.wait(0), "producer", job_id=self.job_id, **effects, **fields)

    def lease(self, worker: str, attempt: int, token: int | None = None) -> Attempt:
        token = self.queue.token() if token is None else token
        found = Attempt(self, worker, attempt, token)
        found.tell("lease", until=self.now + LEASE)
        return found

    def crash(self, worker: str) -> Row:
        return self.queue.tell("crash", self.wait(MS), "supervisor", worker_id=worker, queue=None, reason="SIGKILL")

    def pause(self, worker: str) -> Row:
        return self.queue.tell("pause", self.wait(MS), "supervisor", worker_id=worker, queue=None, reason="SIGSTOP")

    def resume(self, worker: str) -> Row:
        return self.queue.tell("resume", self.wait(MS), "supervisor", worker_id=worker, queue=None, reason="SIGCONT")

    def key(self, index: int) -> str:
        return f"{self.job_id}/{index}"


@dataclass
class Attempt:
    """One execution: lease, run, writes and settlement by one worker under one token."""

    life: Life
    worker: str
    attempt: int
    token: int
    running: Row | None = None

    def tell(self, event: str, after: int = MS, **fields: Any) -> Row:
        life = self.life
        fields.setdefault("execution_id", f"{life.job_id}#{self.token}")
        return life.queue.tell(
            event,
            life.wait(after),
            self.worker,
            job_id=life.job_id,
            worker_id=self.worker,
            attempt=self.attempt,
            token=self.token,
            **fields,
        )

    def start(self) -> Attempt:
        self.running = self.tell("run", outcome="unknown")
        return self

    def write(self, index: int, **fields: Any) -> Row:
        return self.tell("write", effect_key=self.life.key(index), effect_index=index, **fields)

    def write_all(self) -> Attempt:
        for index in range(self.life.effects):
            self.write(index)
        return self

    def finish(self, outcome: str = "ok", reason: str | None = None) -> None:
        assert self.running is not None
        self.running.update(until=self.life.wait(MS), outcome=outcome, reason=reason)

    def settle(self, event: str = "ack", **fields: Any) -> Row:
        return self.tell(event, **fields)

    def retry(self) -> None:
        row = self.tell("retry")
        row["until"] = row["at"] + S

    def complete(self) -> None:
        self.write_all().settle()
        self.finish()

    def reclaim(self, after: int = LEASE + S) -> None:
        self.life.queue.tell(
            "reclaim",
            self.life.wait(after),
            "reclaimer",
            worker_id="reclaimer",
            job_id=self.life.job_id,
            token=self.token,
            execution_id=f"{self.life.job_id}#{self.token}",
        )


def _first(life: Life) -> Attempt:
    life.enqueue()
    return life.lease(life.queue.worker(), 1)


def healthy(life: Life) -> None:
    _first(life).start().complete()


def renewed(life: Life) -> None:
    attempt = _first(life).start()
    attempt.tell("renew", after=LEASE - S, until=life.now + 2 * LEASE)
    attempt.complete()


def retried(life: Life) -> None:
    first = _first(life).start()
    first.tell("fail", reason="ValueError")
    first.retry()
    first.finish("failed", "ValueError")
    life.lease(life.queue.worker(), 2).start().complete()


def crashed_and_recovered(life: Life) -> None:
    first = _first(life).start()
    life.crash(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()


def killed_before_the_write_arrived(life: Life) -> None:
    """The write got no answer, and did not happen: no position is missing, so that can be proved."""
    first = _first(life).start()
    first.write(0, outcome="unknown")
    life.crash(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()


def fenced_zombie(life: Life) -> None:
    first = _first(life).start()
    life.pause(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()
    life.resume(first.worker)
    first.write(0, outcome="failed", reason="fenced")
    first.finish("failed", "fenced")


def deduplicated(life: Life) -> None:
    first = _first(life).start()
    first.write(0)
    life.crash(first.worker)
    first.reclaim()
    second = life.lease(life.queue.worker(), 2).start()
    second.write(0, outcome="failed", reason="duplicate")
    for index in range(1, life.effects):
        second.write(index)
    second.settle()
    second.finish()


def early_ack(life: Life) -> None:
    first = _first(life)
    first.settle(reason="early")
    first.start().write_all()
    first.finish()


def buried(life: Life) -> None:
    first = _first(life).start()
    first.settle("dead_letter", reason="ValueError")
    first.finish("failed", "ValueError")


def waiting(life: Life) -> None:
    life.enqueue()
    life.queue.tell("held", 0, "supervisor", job_id=life.job_id, reason="ready")


def refused(life: Life) -> None:
    life.enqueue(outcome="failed", reason="BackendError")


def unanswered_enqueue(life: Life) -> None:
    life.enqueue(outcome="unknown")


def asleep_while_another_ran(life: Life) -> None:
    """The first execution lasts from before the second's start to after its end, but slept all the while."""
    first = _first(life).start()
    life.pause(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()
    life.resume(first.worker)
    first.settle(outcome="failed", reason="stale_token")
    first.finish("failed", "stale_token")


def ack_lost(life: Life) -> None:
    first = _first(life).start().write_all()
    life.crash(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()


def lease_outlived(life: Life) -> None:
    first = _first(life).start()
    first.reclaim()
    second = life.lease(life.queue.worker(), 2).start()
    life.wait(S)
    first.finish("failed", "lease_lost")
    second.complete()


def zombie_write(life: Life) -> None:
    first = _first(life).start()
    life.pause(first.worker)
    first.reclaim()
    life.lease(life.queue.worker(), 2).start().complete()
    life.resume(first.worker)
    first.write(0)
    first.settle(outcome="failed", reason="stale_token")
    first.finish("failed", "stale_token")


def zombie_ack(life: Life) -> None:
    first = _first(life).start()
    life.pause(first.worker)
    first.reclaim()
    second = life.lease(life.queue.worker(), 2).start().write_all()
    life.pause(second.worker)
    life.resume(first.worker)
    first.settle()
    first.finish()
    life.resume(second.worker)
    second.settle(outcome="failed", reason="already_settled")
    second.finish()


def lost(life: Life) -> None:
    first = _first(life)
    first.settle(reason="early")
    first.start()
    life.crash(first.worker)


def torn(life: Life) -> None:
    first = _first(life).start()
    first.write(0)
    life.crash(first.worker)
    first.reclaim()
    first.settle("dead_letter", reason="attempts_exhausted")


def stuck(life: Life) -> None:
    first = _first(life).start()
    life.crash(first.worker)
    life.queue.tell("held", 0, "supervisor", job_id=life.job_id, reason="leased")


def leased_before_enqueue(life: Life) -> None:
    first = life.lease(life.queue.worker(), 1)
    life.enqueue()
    first.start().complete()


def from_nowhere(life: Life) -> None:
    life.lease(life.queue.worker(), 1).start().complete()


def token_reused(life: Life) -> None:
    first = _first(life).start()
    first.tell("fail", reason="ValueError")
    first.retry()
    first.finish("failed", "ValueError")
    second = life.lease(life.queue.worker(), 2, token=first.token).start()
    second.complete()


def stray_write(life: Life) -> None:
    first = _first(life).start()
    first.write_all().settle()
    first.finish()
    stray = Attempt(life, first.worker, 1, NEVER_GRANTED)
    stray.tell("write", effect_key=life.key(life.effects))


@dataclass(frozen=True)
class Kind:
    """A kind of life, the invariants that it breaks or leaves in doubt, and how many effects it needs at least."""

    live: Callable[[Life], None]
    breaks: frozenset[str] = frozenset()
    effects: int = 1
    doubts: frozenset[str] = frozenset()


LIVES: dict[str, Kind] = {
    **{
        live.__name__: Kind(live)
        for live in (
            healthy,
            renewed,
            retried,
            crashed_and_recovered,
            killed_before_the_write_arrived,
            fenced_zombie,
            deduplicated,
            early_ack,
            buried,
            waiting,
            refused,
            unanswered_enqueue,
            asleep_while_another_ran,
        )
    },
    "ack_lost": Kind(ack_lost, frozenset({"INV-001"})),
    "lease_outlived": Kind(lease_outlived, frozenset({"INV-002"})),
    "zombie_write": Kind(zombie_write, frozenset({"INV-001", "INV-003"})),
    "zombie_ack": Kind(zombie_ack, frozenset({"INV-004"})),
    "lost": Kind(lost, frozenset({"INV-005"})),
    "torn": Kind(torn, frozenset({"INV-007"}), effects=2),
    "stuck": Kind(stuck, frozenset({"INV-010"})),
    "leased_before_enqueue": Kind(leased_before_enqueue, frozenset({"INV-018"})),
    "from_nowhere": Kind(from_nowhere, frozenset({"INV-018"}), doubts=frozenset({"INV-007"})),
    "token_reused": Kind(token_reused, frozenset({"INV-018"})),
    "stray_write": Kind(stray_write, frozenset({"INV-018"})),
}

HARMLESS = tuple(name for name, kind in LIVES.items() if not kind.breaks)
ANOMALIES = tuple(name for name, kind in LIVES.items() if kind.breaks)


@dataclass(frozen=True)
class History:
    """`rows` are events (dicts), in order of position; `truth` says which invariants each job breaks."""

    rows: list[Row]
    truth: dict[str, frozenset[str]]

    @property
    def broken(self) -> frozenset[str]:
        return frozenset().union(*self.truth.values())

    def table(self) -> pa.Table:
        return table(self.rows)


def generate(seed: int, jobs: int, anomalies: Mapping[int, str] | None = None, *, schedule: int = 0) -> History:
    """`jobs` lives, one after another with overlap; `anomalies` plants a life of LIVES by index of the job.
    The other jobs live harmlessly, most of them without any accident. Ends with an inventory of what is held."""
    rng = random.Random(seed)
    queue = Queue(rng, schedule)
    truth = {}
    # The first job is plain, so that the queue's numbering begins with an enqueue.
    now = START
    for index in range(jobs):
        default = "healthy" if index == 0 or rng.random() < 0.7 else rng.choice(HARMLESS)
        kind = LIVES[(anomalies or {}).get(index, default)]
        life = Life(queue, f"job-{schedule}-{index}", now, max(kind.effects, rng.randrange(1, 4)))
        kind.live(life)
        truth[life.job_id] = kind.breaks
        now += rng.randrange(1, 40) * MS
    _take_stock(queue)
    return History(_number(queue.rows), truth)


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """An events table of many rows, column by column: a list of dicts of 1 M rows is slow to convert."""
    columns = [pa.array((row.get(name) for row in rows), EVENTS.field(name).type) for name in EVENTS.names]
    return pa.Table.from_arrays(columns, schema=EVENTS)


def _take_stock(queue: Queue) -> None:
    held = [row for row in queue.rows if row["event"] == "held"]
    queue.rows = [row for row in queue.rows if row["event"] != "held"]
    last = max((max(row["at"], row.get("until") or 0) for row in queue.rows), default=START)
    # Far enough for every lease to be past its grace.
    at = last + 4 * LEASE
    queue.tell("inventory", at, "supervisor", worker_id="supervisor", span_id="inventory")
    for row in held:
        shared = {"worker_id": "supervisor", "span_id": "inventory"}
        queue.tell("inventory", at, "supervisor", job_id=row["job_id"], reason=row["reason"], **shared)


DURABLE = ("enqueue", "lease", "write", "ack", "fail", "dead_letter", "retry", "renew", "reclaim", "inventory")


def _number(rows: list[Row]) -> list[Row]:
    """Positions in order of time; sequences in order of each producer's frames: a run's end comes after its writes."""
    rows.sort(key=lambda row: row["at"])
    position, shared = 0, None
    for index, row in enumerate(rows):
        row.setdefault("span_id", f"{row['schedule']:x}-{index:x}")
        if row["event"] in DURABLE and row["outcome"] != "unknown":
            if row["span_id"] != shared:
                position += 1
            row["position"] = position
            shared = row["span_id"] if row["event"] == "inventory" else None
    _sequence(rows)
    return rows


def _sequence(rows: list[Row]) -> None:
    frames = []
    for index, row in enumerate(rows):
        if row["event"] == "inventory" and row.get("job_id") is not None:
            continue  # Told by the span of the inventory itself.
        frames.append((row["at"], 0, index, "producer_seq"))
        ended = row.get("until") if row["event"] == "run" else None if row["outcome"] == "unknown" else row["at"]
        if ended is not None:
            frames.append((ended, 1, index, "producer_end_seq"))
    counters: dict[str, int] = {}
    for _, _, index, name in sorted(frames):
        row = rows[index]
        counters[row["producer"]] = counters.get(row["producer"], 0) + 1
        row[name] = counters[row["producer"]]
    taken: Row = {}
    for row in rows:
        if row["event"] == "inventory":
            taken = row if row.get("job_id") is None else taken
            row |= {name: taken[name] for name in ("producer_seq", "producer_end_seq")}
