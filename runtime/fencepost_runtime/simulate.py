"""The simulator: the actors' coroutines in virtual time, one step at a time, on the queue's model.

No threads, sockets or clocks: the same scenario and seed give the same history, bit for bit.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, NamedTuple, NoReturn

from .actors import MS, producer, reclaimer, stocktaking, worker
from .drive import SILENT, Faults, nothing_left, perform, producer_name, reaches, reclaimer_name, work_ns, worker_name
from .errors import BackendError, ConnectionLost, Diverged
from .facts import Fact, Narrator, Sink
from .memory import MemoryBackend
from .scenario import DURABLE, REPEATED, Fault, Point, Scenario
from .steps import Step

# Virtual time begins at 2026-01-01T00:00:00Z, in Unix nanoseconds.
EPOCH = 1_767_225_600_000_000_000
# A step takes from a fifth of a millisecond to two; the seed draws each, for each actor by itself.
STEP_NS = (MS // 5, 2 * MS)
# How long after its expiry a lease that is still held counts as stuck: its own length, this at least (INV-010).
LEAST_GRACE_NS = 5_000 * MS
SUPERVISOR = "supervisor"
# What stops a process, and what lets it go on. By which signal one dies is its own affair.
SIGNALS = {"pause": "SIGSTOP", "resume": "SIGCONT"}
# Polls in a row that find nothing although the clock stands where the recording found something.
MAX_POLLS = 2


class _Killed(Exception):
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


class Passed(NamedTuple):
    """One entry of a run's trail: an actor came to a step at `at` (Unix nanoseconds); `struck` of the scenario's faults
    had struck when it was over. `stopped`: those who were stopped then."""

    actor: str
    step: Step
    at: int
    struck: int
    stopped: tuple[str, ...]


class _Actor:
    def __init__(self, narrator: Narrator, name: str, script: Coroutine[Step, Any, None], seed: int) -> None:
        self.name = name
        self.script = script
        self.narrator = narrator
        # Each actor's own: what befalls one changes nothing of how fast the others are.
        self._random = Random(seed << 32 | crc32(name.encode())).random
        self.wake_at = EPOCH + self.length()
        self.step: Step | None = None
        self.idle = False
        self.paused: Fault | None = None
        self.advance(None)

    def advance(self, answer: Any) -> None:
        """Hand the pending step's answer (or error) to the coroutine; its next step is pending then."""
        try:
            throws = isinstance(answer, Exception)
            self.step = self.script.throw(answer) if throws else self.script.send(answer)
        except StopIteration:
            self.step = None

    def length(self) -> int:
        """How long its next step takes, in nanoseconds."""
        shortest, longest = STEP_NS
        return shortest + int(self._random() * (longest - shortest))

    def die(self) -> None:
        self.script.close()
        self.step = None
        self.paused = None

    @property
    def alive(self) -> bool:
        # A process can be stopped after its last step: it still has to end.
        return self.step is not None or self.paused is not None


class _World:
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
            _Actor(Narrator(name, sink, all_told=all_told), name, script, seed) for name, script in cast(scenario)
        ]

    def clock(self) -> int:
        return self.now

    def perform(self, actor: _Actor, step: Step) -> Any:
        """Perform the pending step; answers its result or the error that it raised. Raises _Killed."""
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

    def crash(self, actor: _Actor) -> None:
        actor.die()
        self.supervisor.observed("crash", actor.name, "SIGKILL", self.now)

    def take_stock(self, *, overdue: bool = False) -> Simulated:
        queues = [queue.name for queue in self.scenario.queues]
        last = _Actor(self.supervisor, SUPERVISOR, stocktaking(queues), seed=0)
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
    raise _Killed


def simulate(
    scenario: Scenario, sink: Sink, seed: int = 0, *, trail: list[Passed] | None = None, all_told: bool = False
) -> Simulated:
    """Run a scenario to its end, telling `sink`. The seed draws the length of each step, and so the schedule.

    `trail` is given every step that an actor of the scenario comes to, in order, told or not. `all_told`: the sink
    hears also what no actor lived to tell, or could know; then nothing that a fault struck is in doubt."""
    return _Free(scenario, sink, seed, trail, all_told=all_told).run()


class _Free(_World):
    """Chooses the schedule itself: whoever wakes first acts first."""

    def __init__(
        self, scenario: Scenario, sink: Sink, seed: int, trail: list[Passed] | None, *, all_told: bool
    ) -> None:
        super().__init__(scenario, sink, scenario.faults, seed, all_told=all_told)
        self.trail = trail
        self.horizon = EPOCH + scenario.at_most_ms * MS
        self.over = False
        self.stopped: tuple[str, ...] = ()
        self.awaited = {fault.until for fault in scenario.faults if fault.until is not None}
        self.reached: set[Point] = set()

    def run(self) -> Simulated:
        overdue = False
        while actor := self.next_actor():
            if actor.wake_at > self.horizon:
                overdue = True
                break
            if self.skips_vain_polls(actor):
                continue
            self.now = max(self.now, actor.wake_at)
            try:
                self.act(actor)
            except _Killed:
                self.crash(actor)
        self.close()
        if not overdue:
            self.outlast_leases()
        return self.take_stock(overdue=overdue)

    def outlast_leases(self) -> None:
        """Let so much time pass that a lease which nobody is left to take back is seen to be stuck: looked at earlier,
        nobody could tell it from one that is still good."""
        policies = {job.id: queue.policy for queue in self.scenario.queues for job in queue.jobs}
        for job_id, expires_at in self.backend.leased():
            grace = max(policies[job_id].lease_ms * MS, LEAST_GRACE_NS)
            self.now = max(self.now, expires_at + grace + MS)

    def next_actor(self) -> _Actor | None:
        """Of those alive who wakes first; of several at once the first that the scenario casts."""
        found = None
        for actor in self.actors:
            if (actor.step is not None or actor.paused is not None) and (
                found is None or actor.wake_at < found.wake_at
            ):
                found = actor
        return found

    def skips_vain_polls(self, actor: _Actor) -> bool:
        """Let an idle actor's next poll be the first that can find something: polls in vain change nothing."""
        if not actor.idle or actor.paused is not None or self.over:
            return False
        busy = [a.wake_at for a in self.actors if a.alive and not a.idle]
        change = self.backend.next_change(self.now)
        change = min(busy if change is None else [*busy, change], default=None)
        if change is None or change <= actor.wake_at:
            return False
        poll_ns = self.scenario.poll_ms * MS
        actor.wake_at += -(-(change - actor.wake_at) // poll_ns) * poll_ns
        return True

    def act(self, actor: _Actor) -> None:
        if actor.paused is not None:
            self.resume(actor)
            return
        step = actor.step
        if step is None:
            return
        try:
            self.go(actor, step)
        finally:
            if self.trail is not None:
                self.trail.append(Passed(actor.name, step, self.now, len(self.faults.struck), self.stopped))

    def go(self, actor: _Actor, step: Step) -> None:
        if self.interrupted(actor, step, "before"):
            return
        if step.name in SILENT:
            self.answer_silent(actor, step)
        else:
            answer = self.perform(actor, step)
            # An actor whose poll found nothing is as idle as before.
            actor.idle = actor.idle and answer is None
            if self.awaited:
                self.wake_waiting(step, answer)
            actor.advance(answer)
            actor.wake_at = self.now + actor.length()
        self.interrupted(actor, step, "after")

    def answer_silent(self, actor: _Actor, step: Step) -> None:
        match step.name:
            case "idle":
                actor.idle = True
                actor.advance(not self.finished())
                actor.wake_at = self.now + step.planned_ns
            case "work":
                actor.advance(work_ns(step, self.faults))
            case "sleep":
                actor.advance(None)
                actor.wake_at = self.now + step.planned_ns
            case _:
                actor.advance(None)

    def interrupted(self, actor: _Actor, step: Step, when: Any) -> bool:
        """Strike the actor with the kill or pause that is due at this moment, if one is."""
        fault = self.faults.strike(step, when)
        if fault is None:
            return False
        if fault.kind == "kill":
            raise _Killed
        actor.paused = fault
        self.stopped = (*self.stopped, actor.name)
        # Whoever waits for what has happened already does not wait.
        reached = fault.until in self.reached
        actor.wake_at = self.now + (actor.length() if reached else fault.at_most_ms * MS)
        self.supervisor.observed("pause", actor.name, SIGNALS["pause"], self.now)
        return True

    def resume(self, actor: _Actor) -> None:
        self.supervisor.observed("resume", actor.name, SIGNALS["resume"], self.now)
        actor.paused = None
        self.stopped = tuple(name for name in self.stopped if name != actor.name)
        # It was stopped in front of its next step: that one comes before anybody else's.
        actor.wake_at = self.now + 1

    def wake_waiting(self, step: Step, answer: Any) -> None:
        reached = {point for point in self.awaited if reaches(point, step, answer)}
        self.reached |= {point for point in reached if point.step not in REPEATED}
        for actor in self.actors:
            if actor.paused is not None and actor.paused.until in reached:
                self.resume(actor)

    def finished(self) -> bool:
        if not self.over:
            busy = any(a.alive and not a.idle for a in self.actors)
            live = {a.name for a in self.actors if a.alive}
            self.over = not busy and nothing_left(self.scenario, self.backend.held, live)
        return self.over


How = Literal[
    "normal", "begun", "committed", "lost_request", "lost_reply", "db_error", "rolled_back", "crash", "pause", "resume"
]


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of a recorded schedule: `actor` told something at `at` (Unix nanoseconds).

    `how` is normal; or what kept the step from being told in full: begun, committed (killed there),
    lost_request, lost_reply, db_error, rolled_back (write `index` inside an open transaction); or what befell the
    actor: crash (by `signal`), pause, resume.
    """

    actor: str
    at: int
    how: How = "normal"
    index: int = 0
    signal: str = ""


def follow(scenario: Scenario, schedule: tuple[Told, ...], sink: Sink) -> Simulated:
    """Run a scenario along a recorded schedule: each entry lets its actor go as far as its next telling step.

    Raises Diverged if an actor has nothing to tell where the schedule says that it told something.
    """
    return _Guided(scenario, schedule, sink).run()


class _CountingSink:
    """Counts what is told, so that a step that tells several facts uses up as many entries."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.opened = 0

    def open(self, fact: Fact, parent: Any) -> Any:
        self.opened += 1
        return self._sink.open(fact, parent)

    def carrier(self, handle: Any) -> str:
        return self._sink.carrier(handle)

    def close(self, handle: Any, fact: Fact, now: int) -> None:
        self._sink.close(handle, fact, now)


class _Guided(_World):
    """Follows a recorded schedule."""

    def __init__(self, scenario: Scenario, schedule: tuple[Told, ...], sink: Sink) -> None:
        self.counter = _CountingSink(sink)
        # How long work took decides how often a lease was renewed; every other fault is in the schedule.
        slow = tuple(fault for fault in scenario.faults if fault.kind == "slow")
        super().__init__(scenario, self.counter, slow)
        self.schedule = schedule
        queues = [queue.name for queue in scenario.queues]
        self.actors.append(_Actor(Narrator(SUPERVISOR, self.counter), SUPERVISOR, stocktaking(queues), seed=0))
        self.by_name = {actor.name: actor for actor in self.actors}
        # Entries of an actor that a step of it has told already.
        self.owed: dict[str, int] = {}

    def run(self) -> Simulated:
        for told in self.schedule:
            self.now = told.at
            actor = self.by_name.get(told.actor)
            if actor is None:
                raise Diverged(f"The recording has an actor {told.actor!r} that the scenario does not cast.")
            if told.how in ("crash", "pause", "resume"):
                # Only a death is taken as it was told: repeated, any signal would be as good as the right one.
                self.supervisor.observed(told.how, actor.name, SIGNALS.get(told.how, told.signal), told.at)
                if told.how == "crash":
                    actor.die()
            elif self.owed.get(actor.name):
                self.owed[actor.name] -= 1
            else:
                self.tell(actor, told)
        self.close()
        return Simulated(self.backend.balances(), self.now)

    def tell(self, actor: _Actor, told: Told) -> None:
        polls = 0
        while actor.step is not None and polls < MAX_POLLS:
            step = actor.step
            if step.name in SILENT:
                actor.advance(self.silent_answer(step))
                continue
            before = self.counter.opened
            if _is_struck(step, told):
                if step.name not in DURABLE:
                    raise Diverged(f"{told.actor}'s {step.name} step cannot end in {told.how}.")
                self.faults.add(_struck(step, told.how))
            try:
                answer = self.perform(actor, step)
            except _Killed:
                # Dead, but not yet missed: the supervisor's entry tells of the crash.
                actor.die()
                answer = None
            opened = self.counter.opened - before
            if actor.alive:
                actor.advance(answer)
            if opened or step.name == "finish":
                self.owed[actor.name] = max(opened, 1) - 1
                return
            polls += step.name in ("lease", "scan")
        raise Diverged(f"{told.actor} told something in the recording, but has nothing to tell under this policy.")

    def silent_answer(self, step: Step) -> Any:
        if step.name == "work":
            return work_ns(step, self.faults)
        return True if step.name == "idle" else None


def _is_struck(step: Step, told: Told) -> bool:
    if step.effect is not None:
        return told.how == "rolled_back" and told.index == step.index
    return told.how not in ("normal", "rolled_back")


def _struck(step: Step, how: How) -> Fault:
    """The fault that makes a step end as the recording says it did."""
    point = Point(step.job_id or "", step.attempt, step.name, step.index)
    match how:
        case "begun" | "committed":
            return Fault("kill", replace(point, when=how))
        case "lost_request" | "lost_reply" | "db_error":
            return Fault(how, point)
        case "rolled_back":
            return Fault("db_error", point)
    raise Diverged(f"A step cannot end in {how}.")
