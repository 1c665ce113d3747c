"""What is simulated, led by whom it may be: a scenario's actors, the model that they share, and a virtual clock."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any, NoReturn

from .actors import MS, producer, reclaimer, stocktaking, worker
from .course import Stood
from .drive import Faults, perform, producer_name, reclaimer_name, worker_name
from .errors import BackendError, ConnectionLost
from .facts import Narrator, Sink
from .memory import MemoryBackend
from .scenario import Fault, Scenario
from .steps import Step

# Virtual time begins at 2026-01-01T00:00:00Z, in Unix nanoseconds.
EPOCH = 1_767_225_600_000_000_000
# A step takes from a fifth of a millisecond to two; the seed draws each, for each actor by itself.
STEP_NS = (MS // 5, 2 * MS)
SUPERVISOR = "supervisor"
# What stops a process, and what lets it go on. By which signal one dies is its own affair.
SIGNALS = {"pause": "SIGSTOP", "resume": "SIGCONT"}


class Killed(Exception):
    """Unwinds the step in which a simulated process dies."""


@dataclass(slots=True)
class Simulated:
    """What a simulated run came to: account balances, its virtual end in Unix nanoseconds, whether that was the
    scenario's time limit instead of the end of the work, the faults that never struck, since their step never came, and
    those that did, in that order."""

    balances: dict[str, int]
    ended_at: int
    overdue: bool = False
    unstruck: tuple[Fault, ...] = field(default=(), compare=False)
    struck: tuple[Fault, ...] = field(default=(), compare=False)


class _Lengths:
    """How long the steps of one actor take under one seed, in nanoseconds: drawn once, however many runs ask."""

    def __init__(self, name: str, seed: int) -> None:
        # Each actor's own: what befalls one changes nothing of how fast the others are.
        self._random = Random(seed << 32 | crc32(name.encode())).random
        self._drawn: list[int] = []

    def __getitem__(self, number: int) -> int:
        drawn = self._drawn
        while len(drawn) <= number:
            shortest, longest = STEP_NS
            drawn.append(shortest + int(self._random() * (longest - shortest)))
        return drawn[number]


_lengths = lru_cache(maxsize=64)(_Lengths)


class Actor:
    def __init__(self, narrator: Narrator, name: str, script: Coroutine[Step, Any, None], seed: int) -> None:
        self.name = name
        self.script = script
        self.narrator = narrator
        self.lengths = _lengths(name, seed)
        self.drawn = 0
        self.wake_at = EPOCH + self.length()
        self.step: Step | None = None
        self.idle = False
        self.paused: Fault | None = None
        # What it was answered, but for polls in vain.
        self.answers: list[Any] = []
        self.advance(None)

    def go_on_as(self, stood: Stood) -> None:
        """Become what another of the same script was, by the same answers."""
        if not stood.at_work:
            self.die()
        else:
            for answer in islice(stood.answers, 1, stood.answered):
                self.advance(answer)
        self.wake_at, self.idle, self.paused, self.drawn = stood.wake_at, stood.idle, stood.paused, stood.drawn
        self.narrator.run = stood.run

    def stands(self) -> Stood:
        return Stood(
            self.wake_at,
            self.idle,
            self.paused,
            self.drawn,
            self.step is not None,
            self.answers,
            len(self.answers),
            self.narrator.run,
        )

    def advance(self, answer: Any) -> None:
        """Hand the pending step's answer (or error) to the coroutine; its next step is pending then."""
        self.answers.append(answer)
        try:
            throws = isinstance(answer, Exception)
            self.step = self.script.throw(answer) if throws else self.script.send(answer)
        except StopIteration:
            self.step = None

    def length(self) -> int:
        """How long its next step takes, in nanoseconds."""
        self.drawn += 1
        return self.lengths[self.drawn - 1]

    def die(self) -> None:
        self.script.close()
        self.step = None
        self.paused = None

    @property
    def alive(self) -> bool:
        # A process can be stopped after its last step: it still has to end.
        return self.step is not None or self.paused is not None


class World:
    """The actors of a scenario, the model they share and the virtual clock."""

    def __init__(
        self, scenario: Scenario, sink: Sink, faults: tuple[Fault, ...], seed: int = 0, *, all_told: bool = False
    ) -> None:
        self.scenario = scenario
        self.backend = MemoryBackend()
        self.sink = sink
        self.now = EPOCH
        self.faults = Faults(faults)
        self.supervisor = Narrator(SUPERVISOR, sink)
        self.actors = [
            Actor(Narrator(name, sink, all_told=all_told), name, script, seed) for name, script in cast(scenario)
        ]

    def clock(self) -> int:
        return self.now

    def perform(self, actor: Actor, step: Step) -> Any:
        """Perform the pending step; answers its result or the error that it raised. Raises Killed."""
        try:
            return perform(
                step,
                self.faults,
                backend=self.backend,
                clock=self.clock,
                narrator=actor.narrator,
                die=_die,
            )
        except (BackendError, ConnectionLost) as error:
            return error

    def crash(self, actor: Actor) -> None:
        actor.die()
        self.supervisor.observed("crash", actor.name, "SIGKILL", self.now)

    def take_stock(self, *, overdue: bool = False) -> Simulated:
        queues = [queue.name for queue in self.scenario.queues]
        last = Actor(self.supervisor, SUPERVISOR, stocktaking(queues), seed=0)
        while last.step is not None:
            last.advance(self.perform(last, last.step))
        return Simulated(self.backend.balances(), self.now, overdue, self.faults.left, tuple(self.faults.struck))

    def close(self) -> None:
        for actor in self.actors:
            actor.script.close()


def cast(scenario: Scenario) -> list[tuple[str, Coroutine[Step, Any, None]]]:
    """The scenario's actors: name and script. Both drivers run these."""
    actors: list[tuple[str, Coroutine[Step, Any, None]]] = []
    for queue in scenario.queues:
        actors.append((producer_name(queue), producer(queue.jobs)))
        for number in range(1, queue.workers + 1):
            name = worker_name(queue, number)
            actors.append((name, worker(name, queue.name, queue.policy, scenario.poll_ms)))
        if queue.policy.reclaim != "none":
            script = reclaimer(queue.name, queue.policy, scenario.poll_ms)
            actors.append((reclaimer_name(queue), script))
    return actors


def _die() -> NoReturn:
    raise Killed
