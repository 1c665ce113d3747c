"""A scenario: jobs, actors, policies, and the faults that strike them at named steps.

A small file that people write, keep and run again; see docs/failure-modes for examples. Raises ScenarioError,
naming what is wrong, for anything that cannot be run as it is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from . import workloads
from .errors import PolicyError, ScenarioError
from .operations import Effect, Job
from .policy import Policy, preset
from .steps import STEPS
from .wording import instead, shown

Kind = Literal["kill", "pause", "slow", "lost_request", "lost_reply", "db_error"]
When = Literal["before", "begun", "committed", "after"]

KINDS: dict[str, str] = {
    "kill": "SIGKILL the process at the point",
    "pause": "SIGSTOP the process at the point; SIGCONT when `until` was reached or `at_most_ms` passed",
    "slow": "the work step takes `at_most_ms`",
    "lost_request": "the step's request never arrives; the caller sees a lost connection",
    "lost_reply": "the step is applied, its reply never arrives; the caller sees a lost connection",
    "db_error": "the database refuses the step; nothing of it is applied",
}
WHENS = ("before", "begun", "committed", "after")
DURABLE = ("enqueue", "write", "apply", "renew", "settle", "retry", "reclaim")
# Nobody but the actor itself is told of these, so nothing can wait for them.
SILENT = ("work", "idle", "sleep")
OF_NO_JOB = ("lease", "idle", "scan", "inventory")
MAX_QUEUES, MAX_JOBS, MAX_WORKERS, MAX_EFFECTS, MAX_FAULTS = 64, 10_000, 64, 1_000, 1_000
MAX_TEXT = 200
MAX_MS = 3_600_000
MAX_AMOUNT = 10**12
_POINT = ("job", "attempt", "step", "index", "when")


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in an attempt: before its step; begun, but not committed; committed, but not yet told; or after it.

    `attempt` is 0 for steps outside any attempt (enqueue, reclaim).
    """

    job: str
    attempt: int
    step: str
    index: int = 0
    when: When = "before"


@dataclass(frozen=True, slots=True)
class Fault:
    """`until` and `at_most_ms` end a pause; `at_most_ms` is the length of a slow step, in milliseconds."""

    kind: Kind
    at: Point
    until: Point | None = None
    at_most_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    jobs: tuple[Job, ...]
    policy: Policy
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run: by real processes or by the simulator, under each queue's policy.

    `poll_ms` is how often idle actors look again; `at_most_ms` bounds the whole run.
    """

    id: str
    queues: tuple[Queue, ...]
    faults: tuple[Fault, ...] = ()
    poll_ms: int = 20
    at_most_ms: int = 60_000

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for queue in self.queues for job in queue.jobs)

    def with_policy(self, policy: Policy) -> Scenario:
        """The same work and faults with every queue under `policy`."""
        return replace(self, queues=tuple(replace(queue, policy=policy) for queue in self.queues))

    def with_changes(self, changes: Mapping[str, Any]) -> Scenario:
        """The same with single policy fields changed in every queue. Raises PolicyError for what no policy allows."""
        queues = tuple(replace(queue, policy=queue.policy.replace(**changes)) for queue in self.queues)
        return replace(self, queues=queues)

    def due(self) -> dict[str, int]:
        """What each account would hold had every job taken effect exactly once."""
        found: dict[str, int] = {}
        for effect in (effect for job in self.jobs for effect in job.effects):
            found[effect.account] = found.get(effect.account, 0) + effect.amount
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        data: dict[str, Any] = _without_none(asdict(self))
        return data

    def to_json(self) -> str:
        """`to_dict` as JSON text, ASCII, without blanks."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """Raises ScenarioError for whatever cannot be run as it is written."""
        data = _known(data, "A scenario", ("id", "queues", "faults", "poll_ms", "at_most_ms"))
        queues = tuple(_queue(entry) for entry in _list(data, "queues", "A scenario", MAX_QUEUES))
        if not queues:
            raise ScenarioError("A scenario needs at least one [[queues]] table.")
        scenario = cls(
            _text(data, "id", "A scenario"),
            queues,
            tuple(_fault(entry) for entry in _list(data, "faults", "A scenario", MAX_FAULTS)),
            _number(data, "poll_ms", "A scenario", 20, 1, 60_000),
            _number(data, "at_most_ms", "A scenario", 60_000, 100, MAX_MS),
        )
        _check_names(scenario)
        return scenario


def _queue(data: Mapping[str, Any]) -> Queue:
    data = _known(data, "A queue", ("name", "workload", "jobs", "work_ms", "policy", "workers"))
    name = _text(data, "name", "A queue")
    what = f"Queue {shown(name)}"
    policy = data.get("policy", "naive")
    try:
        rules = preset(policy) if isinstance(policy, str) else Policy.from_dict(policy)
    except PolicyError as error:
        raise ScenarioError(f"{what}: {error}") from error
    return Queue(name, _jobs(data, name, what), rules, _number(data, "workers", what, 2, 1, MAX_WORKERS))


def _jobs(data: Mapping[str, Any], queue: str, what: str) -> tuple[Job, ...]:
    """A queue's jobs: one by one, or so and so many of a workload's shape."""
    if isinstance(data.get("jobs"), list | tuple):
        for key in ("workload", "work_ms"):
            if key in data:
                raise ScenarioError(f"{what} names its jobs one by one, so it takes no {key}.")
        return tuple(_job(entry, queue) for entry in _list(data, "jobs", what, MAX_JOBS))
    count = _number(data, "jobs", what, 1, 1, MAX_JOBS)
    work_ms = _number(data, "work_ms", what, 0, 0, MAX_MS)
    return workloads.jobs(_text(data, "workload", what), count, queue, work_ms)


def _job(data: Mapping[str, Any], queue: str) -> Job:
    data = _known(data, "A job", ("id", "queue", "name", "effects", "work_ms", "carrier"))
    job_id = _text(data, "id", "A job")
    what = f"Job {shown(job_id)}"
    name = _text({"name": job_id, **data}, "name", what)
    effects = tuple(_effect(entry, what) for entry in _list(data, "effects", what, MAX_EFFECTS))
    _unique("effect", (effect.key for effect in effects), what)
    return Job(job_id, queue, name, effects, _number(data, "work_ms", what, 0, 0, MAX_MS))


def _effect(data: Mapping[str, Any], job: str) -> Effect:
    data = _known(data, "An effect", ("key", "account", "amount"))
    key = _text(data, "key", f"An effect of {job[0].lower()}{job[1:]}")
    what = f"Effect {shown(key)}"
    account = _text({"account": key, **data}, "account", what)
    return Effect(key, account, _number(data, "amount", what, 0, -MAX_AMOUNT, MAX_AMOUNT))


def _fault(data: Mapping[str, Any]) -> Fault:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"A fault is a table of kind, at, until, at_most_ms, not {shown(data)}.")
    data = dict(data)
    if "at" not in data:
        # In a file people write the point's fields beside the kind; `to_dict` nests them.
        data["at"] = {key: data.pop(key) for key in _POINT if key in data}
    data = _known(data, "A fault", ("kind", "at", "until", "at_most_ms"))
    kind = _choice(data.get("kind"), KINDS, "fault")
    at = _point(data["at"])
    _check_possible(kind, at)
    until = _until(kind, data["until"]) if data.get("until") is not None else None
    return Fault(kind, at, until, _number(data, "at_most_ms", "A fault", 10_000, 1, MAX_MS))


def _check_possible(kind: str, at: Point) -> None:
    durable = f"a durable step ({', '.join(DURABLE)})"
    if kind == "slow" and at.step != "work":
        raise ScenarioError(f"A slow fault strikes the work step, not {at.step}.")
    if kind in ("lost_request", "lost_reply", "db_error") and at.step not in DURABLE:
        raise ScenarioError(f"A {kind} fault strikes {durable}, not {at.step}.")
    if kind not in ("kill", "pause") and at.when != "before":
        raise ScenarioError(f"A {kind} fault takes no when: that is for the moment of a kill or a pause.")
    if at.when in ("begun", "committed") and (kind != "kill" or at.step not in DURABLE):
        raise ScenarioError(f'when = "{at.when}" is for a kill in the middle of {durable}.')


def _until(kind: str, data: Any) -> Point:
    if kind != "pause":
        raise ScenarioError(f"A {kind} fault takes no until: that ends a pause.")
    point = _point({"when": "after", **data} if isinstance(data, Mapping) else data)
    if point.step in SILENT:
        raise ScenarioError(f"A pause cannot last until a {point.step} step: nobody else is told of it.")
    if point.when != "after":
        raise ScenarioError(f'A pause lasts until after a step, so its until takes no when = "{point.when}".')
    return point


def _point(data: Any) -> Point:
    data = _known(data, "A point", _POINT)
    step = _choice(data.get("step"), STEPS, "step")
    when = _choice(data.get("when", "before"), WHENS, "when")
    if step in OF_NO_JOB:
        raise ScenarioError(f"A fault is bound to a job, and the {step} step has none: take the step before or after.")
    outside = step in ("enqueue", "reclaim")
    attempt = _number(data, "attempt", "A point", 0 if outside else 1, 0, 1_000)
    if outside != (attempt == 0):
        rule = "outside any attempt: attempt is 0" if outside else "inside an attempt: attempt counts from 1"
        raise ScenarioError(f"The {step} step is {rule}, not {attempt}.")
    return Point(
        _text(data, "job", "A point"), attempt, step, _number(data, "index", "A point", 0, 0, MAX_EFFECTS), when
    )


def _check_names(scenario: Scenario) -> None:
    _unique("queue", (queue.name for queue in scenario.queues), "The scenario")
    _unique("job", (job.id for job in scenario.jobs), "The scenario")
    jobs = {job.id: job for job in scenario.jobs}
    for fault in scenario.faults:
        for point in (fault.at, fault.until):
            if point is not None:
                _check_point(point, jobs)


def _check_point(point: Point, jobs: Mapping[str, Job]) -> None:
    if point.job not in jobs:
        raise ScenarioError(f"A fault strikes job {shown(point.job)}, which is not there: {instead(point.job, jobs)}")
    effects = len(jobs[point.job].effects)
    # The work after the last write has an index too.
    steps = {"work": effects + 1, "write": effects, "renew": MAX_EFFECTS}.get(point.step, 1)
    if point.index >= steps:
        rule = f"an attempt has {steps}, counted from 0"
        raise ScenarioError(f"Job {shown(point.job)} has no {point.step} step {point.index}: {rule}.")


def _unique(kind: str, names: Iterable[str], where: str) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise ScenarioError(f"{where} has {times} {kind}s called {shown(name)}: rename all but one.")


def _known(data: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{what} is a table of {', '.join(keys)}, not {shown(data)}.")
    for key in data:
        if key not in keys:
            raise ScenarioError(f"{what} has no field {shown(key)}: {instead(key, keys, 'it takes')}")
    return dict(data)


def _choice(value: Any, known: Iterable[str], what: str) -> Any:
    if value not in tuple(known):
        raise ScenarioError(f"There is no {what} {shown(value)}: {instead(value, known)}")
    return value


def _list(data: Mapping[str, Any], key: str, what: str, most: int) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise ScenarioError(f"{what}: {key} is a list of tables, not {shown(value)}.")
    if len(value) > most:
        raise ScenarioError(f"{what}: {key} has {len(value)} entries; there may be {most}.")
    return list(value)


def _text(data: Mapping[str, Any], key: str, what: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        article = "an" if key[0] in "aeiou" else "a"
        raise ScenarioError(f"{what} needs {article} {key}, a text of 1 to {MAX_TEXT} characters, not {shown(value)}.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ScenarioError(f"{what}: {key} {shown(value)} holds half a character, which no database can store.")
    return value


def _number(data: Mapping[str, Any], key: str, what: str, default: int, low: int, high: int) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ScenarioError(f"{what}: {key} takes a whole number from {low} to {high}, not {shown(value)}.")
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
