"""The simulator: the actors' coroutines in virtual time, one step at a time, on the queue's model.

No threads, sockets or clocks: the same scenario and seed give the same history, bit for bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .actors import MS
from .columns import ColumnSink
from .course import Course, Moment
from .drive import POLLS, SILENT, nothing_left, reaches, work_ns
from .facts import Sink
from .scenario import REPEATED, Fault, Point, Scenario
from .steps import Step
from .world import EPOCH, SIGNALS, Actor, Killed, Simulated, World

# How long after its expiry a lease that is still held counts as stuck: its own length, this at least (INV-010).
LEAST_GRACE_NS = 5_000 * MS


class Passed(NamedTuple):
    """One entry of a run's trail: an actor came to a step at `at` (Unix nanoseconds); `struck` of the scenario's faults
    had struck when it was over. `stopped`: those who were stopped then."""

    actor: str
    step: Step
    at: int
    struck: int
    stopped: tuple[str, ...]


def simulate(
    scenario: Scenario, sink: Sink, seed: int = 0, *, trail: list[Passed] | None = None, all_told: bool = False
) -> Simulated:
    """Run a scenario to its end, telling `sink`. The seed draws the length of each step, and so the schedule.

    `trail` is given every step that an actor of the scenario comes to, in order, told or not. `all_told`: the sink
    hears also what no actor lived to tell, or could know; then nothing that a fault struck is in doubt."""
    return _Free(scenario, sink, seed, trail, all_told=all_told).run()


def explored(
    scenario: Scenario, sink: ColumnSink, seed: int, *, trail: list[Passed], like: Course | None, course: Course | None
) -> Simulated:
    """Run a scenario as `simulate` does, all told. `like` is the course of its run without the last of its faults: as
    far as that fault makes no difference, the run is not repeated. `course` is given the run's own."""
    world = _Free(scenario, sink, seed, trail, all_told=True, course=course)
    moment = like.before(scenario.faults[-1]) if like is not None else None
    if like is not None and moment is not None:
        world.go_on_from(moment, scenario.faults[-1])
        if course is not None:
            course.go_on_as(like, moment)
    return world.run()


class _Free(World):
    """Chooses the schedule itself: whoever wakes first acts first."""

    def __init__(
        self,
        scenario: Scenario,
        sink: Sink,
        seed: int,
        trail: list[Passed] | None,
        *,
        all_told: bool,
        course: Course | None = None,
    ) -> None:
        super().__init__(scenario, sink, scenario.faults, seed, all_told=all_told)
        self.trail = trail
        self.horizon = EPOCH + scenario.at_most_ms * MS
        self.over = False
        self.stopped: tuple[str, ...] = ()
        self.awaited = {fault.until for fault in scenario.faults if fault.until is not None}
        self.reached: set[Point] = set()
        self.course = course

    def moment(self, number: int) -> Moment:
        assert isinstance(self.sink, ColumnSink)
        return Moment(
            number,
            self.now,
            self.over,
            self.stopped,
            frozenset(self.reached),
            self.faults.copy(),
            self.backend.copy(),
            self.sink.copy(),
            tuple(self.trail or ()),
            tuple(actor.stands() for actor in self.actors),
        )

    def go_on_from(self, moment: Moment, fault: Fault) -> None:
        """Become what another run was at a moment, to which a fault is added."""
        assert isinstance(self.sink, ColumnSink) and self.trail is not None
        self.now, self.over, self.stopped = moment.now, moment.over, moment.stopped
        self.reached = set(moment.reached)
        self.backend = moment.backend.copy()
        self.faults = moment.faults.copy()
        self.faults.add(fault)
        self.sink.go_on_as(moment.sink)
        self.trail += moment.trail
        for actor, stood in zip(self.actors, moment.actors, strict=True):
            actor.go_on_as(stood)

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
            except Killed:
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

    def next_actor(self) -> Actor | None:
        """Of those alive who wakes first; of several at once the first that the scenario casts."""
        found = None
        for actor in self.actors:
            if (actor.step is not None or actor.paused is not None) and (
                found is None or actor.wake_at < found.wake_at
            ):
                found = actor
        return found

    def skips_vain_polls(self, actor: Actor) -> bool:
        """Let an idle actor's next poll be the first that can find something: polls in vain change nothing."""
        if not actor.idle or actor.paused is not None or self.over:
            return False
        change = self.backend.next_change(self.now)
        for other in self.actors:
            if not other.idle and other.alive and (change is None or other.wake_at < change):
                change = other.wake_at
        if change is None or change <= actor.wake_at:
            return False
        poll_ns = self.scenario.poll_ms * MS
        actor.wake_at += -(-(change - actor.wake_at) // poll_ns) * poll_ns
        return True

    def act(self, actor: Actor) -> None:
        if actor.paused is not None:
            self.resume(actor)
            return
        step = actor.step
        if step is None:
            return
        if self.course is not None:
            self.course.note(step, self.moment)
        try:
            self.go(actor, step)
        finally:
            if self.trail is not None:
                self.trail.append(Passed(actor.name, step, self.now, len(self.faults.struck), self.stopped))

    def go(self, actor: Actor, step: Step) -> None:
        endangered = self.faults.may_strike(step)
        if endangered and self.interrupted(actor, step, "before"):
            return
        if step.name in SILENT:
            self.answer_silent(actor, step)
        else:
            answer = self.look(actor, step) if step.name in POLLS else self.perform(actor, step)
            # An actor whose poll found nothing is as idle as before.
            actor.idle = actor.idle and answer is None
            if self.awaited:
                self.wake_waiting(step, answer)
            actor.advance(answer)
            actor.wake_at = self.now + actor.length()
        if endangered:
            self.interrupted(actor, step, "after")

    def look(self, actor: Actor, step: Step) -> Any:
        """Perform a poll. It is of no job, so that nothing strikes it, and told only if it found something."""
        assert step.operation is not None
        answer = self.backend.apply(step.operation, self.clock)
        if answer is not None:
            actor.narrator.after(step, answer, self.now)
        return answer

    def answer_silent(self, actor: Actor, step: Step) -> None:
        match step.name:
            case "idle":
                actor.idle = True
                vain, answers = actor.answers[-1] is None, actor.answers[:-1]
                actor.advance(not self.finished())
                if vain:
                    # A poll in vain leaves a script as it was. A list of its own: the other may be part of a course.
                    actor.answers = answers
                actor.wake_at = self.now + step.planned_ns
            case "work":
                actor.advance(work_ns(step, self.faults))
            case "sleep":
                actor.advance(None)
                actor.wake_at = self.now + step.planned_ns
            case _:
                actor.advance(None)

    def interrupted(self, actor: Actor, step: Step, when: Any) -> bool:
        """Strike the actor with the kill or pause that is due at this moment, if one is."""
        fault = self.faults.strike(step, when)
        if fault is None:
            return False
        if fault.kind == "kill":
            raise Killed
        actor.paused = fault
        self.stopped = (*self.stopped, actor.name)
        # Whoever waits for what has happened already does not wait.
        reached = fault.until in self.reached
        actor.wake_at = self.now + (actor.length() if reached else fault.at_most_ms * MS)
        self.supervisor.observed("pause", actor.name, SIGNALS["pause"], self.now)
        return True

    def resume(self, actor: Actor) -> None:
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
