"""What every operation does to a job in every state, found out by doing it: on the model that all backends follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fencepost_runtime.errors import UnknownJob
from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import (
    Answer,
    Batch,
    Effect,
    Enqueue,
    Expired,
    Job,
    Lease,
    Leased,
    Operation,
    Reclaim,
    Renew,
    Retry,
    Scanned,
    Settle,
    Write,
    WriteAll,
)

_EFFECT = Effect("e", "a", 1)
_JOB = Job("j", "q", "j", (_EFFECT,))
_LEASE_NS = 1_000
# The token of the actor that acts; a later lease gets a newer one.
_MINE = 1
_IN_TIME, _TOO_LATE = 10, 5_000


@dataclass(frozen=True, slots=True)
class Situation:
    """A job's state, seen from an actor that holds (or held) the job's first lease."""

    name: str
    state: str
    prepare: tuple[Operation, ...]
    now: int = _IN_TIME


@dataclass(frozen=True, slots=True)
class Move:
    """What an operation came to: accepted or why not, and the job's state after it."""

    accepted: bool
    reason: str | None
    before: str
    after: str

    def cell(self) -> str:
        """As a table states it."""
        if not self.accepted:
            return f"refused: `{self.reason}`" if self.reason else "nothing"
        return f"→ **{self.after}**" if self.after != self.before else "accepted"


_LEASED = (Enqueue(_JOB), Lease("q", "w", _LEASE_NS))
_GIVEN_BACK = (*_LEASED, Retry("j", _MINE, 0, 9, True))

NOT_ENQUEUED = Situation("not enqueued", "none", ())
SITUATIONS = (
    Situation("ready", "ready", _GIVEN_BACK),
    Situation("leased", "leased", _LEASED),
    Situation("leased, run out", "leased", _LEASED, _TOO_LATE),
    Situation("leased to another", "leased", (*_GIVEN_BACK, Lease("q", "v", _LEASE_NS))),
    Situation("done", "done", (*_LEASED, Settle("j", _MINE, "ack", True))),
    Situation("dead", "dead", (*_LEASED, Retry("j", _MINE, 0, 1, True))),
)

OPERATIONS: dict[str, Operation] = {
    "enqueue": Enqueue(_JOB),
    "lease": Lease("q", "w", _LEASE_NS),
    "renew": Renew("j", _MINE, _LEASE_NS),
    "write": Write("j", _EFFECT, _MINE, False, False),
    "write, `fencing`": Write("j", _EFFECT, _MINE, True, False),
    '`ack = "with_writes"`': WriteAll("j", (_EFFECT,), _MINE, False, False, True),
    'settle, `settle = "by_token"`': Settle("j", _MINE, "ack", True),
    'settle, `settle = "by_job"`': Settle("j", _MINE, "ack", False),
    "retry, attempts left": Retry("j", _MINE, 0, 9, True),
    "retry, none left": Retry("j", _MINE, 0, 1, True),
    "scan": Expired("q"),
    'reclaim, `reclaim = "guarded"`': Reclaim("j", _MINE, True, 9),
    'reclaim, `reclaim = "on_expiry"`': Reclaim("j", _MINE, False, 9),
    '`"on_expiry"`, no attempts left': Reclaim("j", _MINE, False, 1),
}


def moves() -> dict[str, dict[str, Move]]:
    """Every operation in every situation: operation → situation → move."""
    return {name: {one.name: _move(operation, one) for one in SITUATIONS} for name, operation in OPERATIONS.items()}


def edges() -> set[tuple[str, str]]:
    """The changes of state that any operation makes: (before, after)."""
    found = [move for row in moves().values() for move in row.values()]
    found.append(_move(OPERATIONS["enqueue"], NOT_ENQUEUED))
    return {(move.before, move.after) for move in found if move.accepted and move.before != move.after}


def _move(operation: Operation, situation: Situation) -> Move:
    backend = MemoryBackend()
    for step in situation.prepare:
        backend.apply(step, lambda: 0)
    before = _state(backend)
    assert before == situation.state, situation.name
    try:
        result = backend.apply(operation, _at(situation.now))
    except UnknownJob:
        return Move(False, None, before, before)
    answer = result.settled if isinstance(result, Batch) else result
    if isinstance(answer, Answer):
        return Move(answer.accepted, answer.reason, before, _state(backend))
    return Move(isinstance(answer, Leased | Scanned), None, before, _state(backend))


def _at(now: int) -> Callable[[], int]:
    return lambda: now


def _state(backend: MemoryBackend) -> str:
    try:
        return backend.row("j").state
    except UnknownJob:
        return "none"
