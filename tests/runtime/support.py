"""Fakes for the runtime's tests: a clock that stands still, a desk at a queue, and a driver that follows a script."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fencepost_runtime.actors import worker
from fencepost_runtime.backends import Database
from fencepost_runtime.operations import (
    Answer,
    Backend,
    Batch,
    Effect,
    Enqueue,
    Expired,
    Held,
    Inventory,
    Job,
    Lease,
    Leased,
    Operation,
    Reclaim,
    Renew,
    Result,
    Retry,
    Scanned,
    Settle,
    Settlement,
    State,
    Write,
    WriteAll,
)
from fencepost_runtime.policy import Policy
from fencepost_runtime.steps import Step

START = 1_000_000_000_000
MS = 1_000_000
LEASE = 1_000 * MS


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to. Unix nanoseconds."""

    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_ns(self, nanoseconds: int) -> None:
        self.now += nanoseconds


def effects(*keys: str) -> tuple[Effect, ...]:
    """Effects of 10, 20, 30 … on an account each, named by its key's last part."""
    return tuple(Effect(key, key.rpartition("/")[2], 10 * number) for number, key in enumerate(keys, 1))


def a_job(job_id: str = "job", queue: str = "q", keys: Iterable[str] = ("debit", "credit"), work_ms: int = 0) -> Job:
    """A job whose effect keys begin with its id."""
    return Job(job_id, queue, "work", effects(*(f"{job_id}/{key}" for key in keys)), work_ms)


@dataclass
class Desk:
    """A queue's backend under a manual clock, with a word for each operation and its usual arguments filled in."""

    backend: Backend
    clock: ManualClock = field(default_factory=ManualClock)

    def do(self, operation: Operation) -> Result:
        return self.backend.apply(operation, self.clock)

    def answer(self, operation: Operation) -> Answer:
        result = self.do(operation)
        assert isinstance(result, Answer)
        return result

    def enqueue(self, *job_ids: str, queue: str = "q") -> None:
        for job_id in job_ids:
            assert self.answer(Enqueue(a_job(job_id, queue))).accepted

    def lease(self, queue: str = "q", lease_ns: int = LEASE) -> Leased:
        leased = self.ask_lease(queue, lease_ns)
        assert leased is not None
        return leased

    def ask_lease(self, queue: str = "q", lease_ns: int = LEASE) -> Leased | None:
        return cast("Leased | None", self.do(Lease(queue, "somebody", lease_ns)))

    def renew(self, leased: Leased, lease_ns: int = LEASE) -> Answer:
        return self.answer(Renew(leased.job.id, leased.token, lease_ns))

    def write(self, leased: Leased, index: int = 0, *, fencing: bool = False, dedupe: bool = False) -> Answer:
        return self.answer(Write(leased.job.id, leased.job.effects[index], leased.token, fencing, dedupe))

    def write_all(self, leased: Leased, *, fencing: bool = False, dedupe: bool = False, settle: bool = False) -> Batch:
        operation = WriteAll(leased.job.id, leased.job.effects, leased.token, fencing, dedupe, settle)
        return cast("Batch", self.do(operation))

    def settle(self, leased: Leased, settlement: Settlement = "ack", *, by_token: bool = True) -> Answer:
        return self.answer(Settle(leased.job.id, leased.token, settlement, by_token))

    def retry(self, leased: Leased, *, delay_ns: int = 0, max_attempts: int = 9, by_token: bool = True) -> Answer:
        return self.answer(Retry(leased.job.id, leased.token, delay_ns, max_attempts, by_token))

    def reclaim(self, leased: Leased, *, guarded: bool = True, max_attempts: int = 9) -> Answer:
        return self.answer(Reclaim(leased.job.id, leased.token, guarded, max_attempts))

    def expire(self, leased: Leased) -> None:
        """Let the clock reach the end of a lease."""
        self.clock.now = max(self.clock.now, leased.expires_at)

    def expired(self, queue: str = "q") -> tuple[tuple[str, int], ...]:
        scanned = cast("Scanned | None", self.do(Expired(queue)))
        return scanned.leases if scanned is not None else ()

    def take_over(self, leased: Leased) -> Leased:
        """The lease runs out, is taken back, and granted anew."""
        self.expire(leased)
        assert self.reclaim(leased).accepted
        return self.lease(leased.job.queue)

    def held(self, queue: str = "q") -> dict[str, State]:
        return dict(cast("Held", self.do(Inventory(queue))).jobs)

    def position(self) -> int:
        """The position that an inventory taken now is given."""
        return cast("Held", self.do(Inventory("nothing"))).position


# What an actor is told in reply to a step: a result, an error to raise, or a function of the step that answers it.
Reply = Any | Exception | Callable[[Step], Any]


@dataclass
class Played:
    """What an actor did on a stage: every step that it took, in order; `ended` if it came to its own end."""

    steps: list[Step]
    ended: bool

    @property
    def words(self) -> list[str]:
        """The steps as words: `write 0`, `work 2`, `renew`."""
        return [word(step) for step in self.steps]

    @property
    def told(self) -> list[str]:
        """The words without the steps in which nothing happens to a job."""
        quiet = ("work", "sleep", "idle", "lease")
        return [word(step) for step in self.steps if step.name not in quiet]

    def only(self, name: str) -> Step:
        (found,) = [step for step in self.steps if step.name == name]
        return found


def word(step: Step) -> str:
    return f"{step.name} {step.index}" if step.name in ("work", "write") else step.name


def play(actor: Coroutine[Step, Any, None], script: Mapping[str, Reply | list[Reply]], at_most: int = 100) -> Played:
    """Drive an actor by hand, to its end or for `at_most` steps.

    `script` maps a step's word (`write 1`) or name (`write`) to a reply, or to a list of them, one each time: the
    last one stays. Steps that it does not name go well; polls find nothing more and are then told to stop.
    """
    left = {key: list(value) if isinstance(value, list) else [value] for key, value in script.items()}
    played = Played([], ended=False)
    answer: Any = None
    while len(played.steps) < at_most:
        try:
            step = actor.throw(answer) if isinstance(answer, Exception) else actor.send(answer)
        except StopIteration:
            played.ended = True
            break
        played.steps.append(step)
        answer = _reply(step, left)
    actor.close()
    return played


def _reply(step: Step, left: dict[str, list[Any]]) -> Any:
    for key in (word(step), step.name):
        if key in left:
            replies = left[key]
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
            return reply(step) if callable(reply) else reply
    return goes_well(step)


def goes_well(step: Step) -> Any:
    """What a step is answered when nothing is wrong."""
    match step.operation:
        case None if step.name == "work":
            return step.planned_ns
        case None:
            return None
        case Lease() | Expired():
            return None
        case WriteAll() as operation:
            settled = ACCEPTED if operation.settle else None
            return Batch((ACCEPTED,) * len(operation.effects), settled)
    return ACCEPTED


ACCEPTED = Answer(START, 1, True)


def refused(reason: str) -> Answer:
    return Answer(START, 1, False, reason)


def granted(job: Job, attempt: int = 1, token: int = 1) -> Leased:
    return Leased(START, 1, job, attempt, token, START + LEASE)


def attempt(policy: Policy, script: Mapping[str, Any] | None = None, job: Job | None = None, number: int = 1) -> Played:
    """One worker's whole life: it leases the job once, attempts it, finds nothing more and is told to stop."""
    leased = granted(job or a_job(), number, token=number)
    return play(worker("w", "q", policy, poll_ms=20), {"lease": [leased, None], **(script or {})})


def one_sentence(error: Exception) -> str:
    """An error's message, which must be one sentence that may be shown to anybody."""
    said = str(error)
    assert said.isprintable(), said
    assert said[-1] in ".?", said
    assert ". " not in said, said
    return said


def kill(database: Database, kills: int, seconds: float, seed: int) -> None:
    """Kill processes at work on the database, so often or so long: nothing they were told is missing."""
    words = [sys.executable, Path(__file__).with_name("killing.py"), json.dumps(database.to_dict())]
    command = [str(word) for word in (*words, kills, seconds, seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["wrong"] == [], f"seed {seed}: {result}"
    assert result["kills"] >= 5, result
    assert result["answers"] > 50, result
