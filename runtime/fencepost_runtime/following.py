"""The simulator led along a recorded schedule: the same actors and model, but the recording says who acts next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from .actors import stocktaking
from .drive import POLLS, SILENT, work_ns
from .errors import Diverged
from .facts import Fact, Narrator, Sink
from .scenario import DURABLE, Fault, Point, Scenario
from .steps import Step
from .world import SIGNALS, SUPERVISOR, Actor, Killed, Simulated, World

# Polls in a row that find nothing although the clock stands where the recording found something.
MAX_POLLS = 2

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


class _Guided(World):
    """Follows a recorded schedule."""

    def __init__(self, scenario: Scenario, schedule: tuple[Told, ...], sink: Sink) -> None:
        self.counter = _CountingSink(sink)
        # How long work took decides how often a lease was renewed; every other fault is in the schedule.
        slow = tuple(fault for fault in scenario.faults if fault.kind == "slow")
        super().__init__(scenario, self.counter, slow)
        self.schedule = schedule
        queues = [queue.name for queue in scenario.queues]
        self.actors.append(Actor(Narrator(SUPERVISOR, self.counter), SUPERVISOR, stocktaking(queues), seed=0))
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

    def tell(self, actor: Actor, told: Told) -> None:
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
            except Killed:
                # Dead, but not yet missed: the supervisor's entry tells of the crash.
                actor.die()
                answer = None
            opened = self.counter.opened - before
            if actor.alive:
                actor.advance(answer)
            if opened or step.name == "finish":
                self.owed[actor.name] = max(opened, 1) - 1
                return
            polls += step.name in POLLS
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
