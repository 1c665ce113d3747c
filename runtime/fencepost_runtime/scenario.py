"""A scenario: jobs, actors, policies, and the faults that strike them at named steps.

A small file that people write, keep and run again; see docs/failure-modes for examples. Raises ScenarioError,
naming what is wrong, for anything that cannot be run as it is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from . import workloads
from .errors import PolicyError, ScenarioError
from .operations import Effect, Job
from .policy import Policy, preset
from .steps import STEPS
from .wording import half_character, instead, shown

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
# A job may come to these more than once, under the same name: a pause lasts until the next one.
REPEATED = ("scan", "reclaim")
MAX_QUEUES, MAX_JOBS, MAX_WORKERS, MAX_EFFECTS, MAX_FAULTS = 64, 10_000, 64, 1_000, 1_000
MAX_TEXT = 200
MAX_MS = 3_600_000
MAX_AMOUNT = 10**12
_POINT = ("job", "attempt", "step", "index", "when")
_FAULT = ("kind", *_POINT, "until", "at_most_ms")


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
    def from_dict(cls, data: Mapping[str, Any], *, also: tuple[str, ...] = ()) -> Scenario:
        """`also`: fields beside those of a scenario, which the caller reads itself.

        Raises ScenarioError, with the path of what is wrong, for whatever cannot be run as it is written."""
        data = _known(data, "A scenario", ("id", *also, "queues", "faults", "poll_ms", "at_most_ms"))
        queues = _each(data, "queues", "A scenario", MAX_QUEUES, _queue)
        if not queues:
            raise ScenarioError("A scenario needs at least one [[queues]] table.", ("queues",))
        jobs = _jobs_by_name(queues)
        return cls(
            _text(data, "id", "A scenario"),
            queues,
            _each(data, "faults", "A scenario", MAX_FAULTS, lambda entry: _fault(entry, jobs)),
            _number(data, "poll_ms", "A scenario", 20, 1, 60_000),
            _number(data, "at_most_ms", "A scenario", 60_000, 100, MAX_MS),
        )


def lacking(at: Point, policy: Policy, job: Job) -> str | None:
    """Why a job has no such step under a policy, if it has none."""
    name = f"under policy {policy.name}"
    if at.step == "renew" and not policy.renews:
        return f"{name} there is no renew step"
    if at.step == "retry" and policy.ack == "early":
        return f"{name} there is no retry step"
    if at.step in REPEATED and policy.reclaim == "none":
        return f"{name} there is no reclaimer"
    if at.step == "apply" and policy.writes != "atomic":
        return f"{name} the writes have no transaction in common"
    if at.step == "apply" and not job.effects and policy.ack != "with_writes":
        return f"{name} a job without effects has no transaction"
    return None


def surplus(at: Point, policy: Policy) -> str | None:
    """Why a policy never comes to such an attempt, if it does not."""
    if at.attempt > policy.max_attempts:
        return f"under policy {policy.name} there is no attempt {at.attempt}"
    return None


_Path = tuple[str | int, ...]
_Parsed = TypeVar("_Parsed")


@contextmanager
def _within(*keys: str | int) -> Iterator[None]:
    """What is wrong in here is so below these keys."""
    try:
        yield
    except ScenarioError as error:
        error.path = (*keys, *error.path)
        raise


def _each(
    data: Mapping[str, Any], key: str, what: str, most: int, parse: Callable[[Any], _Parsed]
) -> tuple[_Parsed, ...]:
    found = []
    for number, entry in enumerate(_list(data, key, what, most)):
        with _within(key, number):
            found.append(parse(entry))
    return tuple(found)


def _queue(data: Mapping[str, Any]) -> Queue:
    data = _known(data, "A queue", ("name", "workload", "jobs", "work_ms", "policy", "workers"))
    name = _text(data, "name", "A queue")
    what = f"Queue {shown(name)}"
    policy = data.get("policy", "naive")
    try:
        rules = preset(policy) if isinstance(policy, str) else Policy.from_dict(policy)
    except PolicyError as error:
        field = () if error.field is None else (error.field,)
        raise ScenarioError(f"{what}: {error}", ("policy", *field)) from error
    return Queue(name, _jobs(data, name, what), rules, _number(data, "workers", what, 2, 1, MAX_WORKERS))


def _jobs(data: Mapping[str, Any], queue: str, what: str) -> tuple[Job, ...]:
    """A queue's jobs: one by one, or so and so many of a workload's shape."""
    if isinstance(data.get("jobs"), list | tuple):
        for key in ("workload", "work_ms"):
            if key in data:
                raise ScenarioError(f"{what} names its jobs one by one, so it takes no {key}.", (key,))
        return _each(data, "jobs", what, MAX_JOBS, lambda entry: _job(entry, queue))
    count = _number(data, "jobs", what, 1, 1, MAX_JOBS)
    work_ms = _number(data, "work_ms", what, 0, 0, MAX_MS)
    shape = _text(data, "workload", what)
    with _within("workload"):
        return workloads.jobs(shape, count, queue, work_ms)


def _job(data: Mapping[str, Any], queue: str) -> Job:
    data = _known(data, "A job", ("id", "queue", "name", "effects", "work_ms", "carrier"))
    job_id = _text(data, "id", "A job")
    what = f"Job {shown(job_id)}"
    name = _text({"name": job_id, **data}, "name", what)
    effects = _each(data, "effects", what, MAX_EFFECTS, lambda entry: _effect(entry, what))
    _unique("effect", ((effect.key, ("effects", number, "key")) for number, effect in enumerate(effects)), what)
    return Job(job_id, queue, name, effects, _number(data, "work_ms", what, 0, 0, MAX_MS))


def _effect(data: Mapping[str, Any], job: str) -> Effect:
    data = _known(data, "An effect", ("key", "account", "amount"))
    key = _text(data, "key", f"An effect of {job[0].lower()}{job[1:]}")
    what = f"Effect {shown(key)}"
    account = _text({"account": key, **data}, "account", what)
    return Effect(key, account, _number(data, "amount", what, 0, -MAX_AMOUNT, MAX_AMOUNT))


def _fault(data: Mapping[str, Any], jobs: Mapping[str, Job]) -> Fault:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"A fault is a table of kind, at, until, at_most_ms, not {shown(data)}.")
    data = dict(data)
    inside = ("at",) if "at" in data else ()
    if not inside:
        # In a file people write the point's fields beside the kind; `to_dict` nests them.
        data["at"] = {key: data.pop(key) for key in _POINT if key in data}
    data = _known(data, "A fault", ("kind", "at", "until", "at_most_ms"), said=(*_FAULT, *inside))
    kind = _choice(data, "kind", KINDS, "fault")
    with _within(*inside):
        at = _point(data["at"])
        _check_possible(kind, at)
        _check_point(at, jobs)
    until = None
    if data.get("until") is not None:
        with _within("until"):
            until = _until(kind, data["until"])
            _check_point(until, jobs)
    return Fault(kind, at, until, _number(data, "at_most_ms", "A fault", 10_000, 1, MAX_MS))


def _check_possible(kind: str, at: Point) -> None:
    durable = f"a durable step ({', '.join(DURABLE)})"
    if kind == "slow" and at.step != "work":
        raise ScenarioError(f"A slow fault strikes the work step, not {at.step}.", ("step",))
    if kind in ("lost_request", "lost_reply", "db_error") and at.step not in DURABLE:
        raise ScenarioError(f"A {kind} fault strikes {durable}, not {at.step}.", ("step",))
    if kind not in ("kill", "pause") and at.when != "before":
        raise ScenarioError(f"A {kind} fault takes no when: that is for the moment of a kill or a pause.", ("when",))
    if at.when in ("begun", "committed") and (kind != "kill" or at.step not in DURABLE):
        raise ScenarioError(f'when = "{at.when}" is for a kill in the middle of {durable}.', ("when",))


def _until(kind: str, data: Any) -> Point:
    if kind != "pause":
        raise ScenarioError(f"A {kind} fault takes no until: that ends a pause.")
    point = _point({"when": "after", **data} if isinstance(data, Mapping) else data, awaited=True)
    if point.step in SILENT:
        raise ScenarioError(f"A pause cannot last until a {point.step} step: nobody else is told of it.", ("step",))
    if point.step in REPEATED and point.index:
        raise ScenarioError(f"A pause lasts until the next {point.step}, so its until takes no index.", ("index",))
    if point.when != "after":
        raise ScenarioError(
            f'A pause lasts until after a step, so its until takes no when = "{point.when}".', ("when",)
        )
    return point


def _point(data: Any, *, awaited: bool = False) -> Point:
    data = _known(data, "A point", _POINT)
    step = _choice(data, "step", STEPS, "step")
    when = _choice({"when": "before", **data}, "when", WHENS, "when")
    if step in OF_NO_JOB and not (awaited and step in REPEATED):
        raise ScenarioError(
            f"A fault is bound to a job, and the {step} step has none: take the step before or after.", ("step",)
        )
    outside = step in ("enqueue", *REPEATED)
    attempt = _number(data, "attempt", "A point", 0 if outside else 1, 0, 1_000)
    if outside != (attempt == 0):
        rule = "outside any attempt: attempt is 0" if outside else "inside an attempt: attempt counts from 1"
        raise ScenarioError(f"The {step} step is {rule}, not {attempt}.", ("attempt",))
    return Point(
        _text(data, "job", "A point"), attempt, step, _number(data, "index", "A point", 0, 0, MAX_EFFECTS), when
    )


def _jobs_by_name(queues: tuple[Queue, ...]) -> dict[str, Job]:
    _unique("queue", ((queue.name, ("queues", number, "name")) for number, queue in enumerate(queues)), "The scenario")
    named: list[tuple[Job, _Path]] = [
        (job, ("queues", number, "jobs", place, "id"))
        for number, queue in enumerate(queues)
        for place, job in enumerate(queue.jobs)
    ]
    _unique("job", ((job.id, path) for job, path in named), "The scenario")
    return {job.id: job for job, _ in named}


def _check_point(point: Point, jobs: Mapping[str, Job]) -> None:
    if point.job not in jobs:
        raise ScenarioError(
            f"A fault strikes job {shown(point.job)}, which is not there: {instead(point.job, jobs)}", ("job",)
        )
    effects = len(jobs[point.job].effects)
    # The work after the last write has an index too.
    steps = {"work": effects + 1, "write": effects, "renew": MAX_EFFECTS, "reclaim": MAX_EFFECTS}.get(point.step, 1)
    if point.index >= steps:
        rule = f"an attempt has {steps}, counted from 0"
        raise ScenarioError(f"Job {shown(point.job)} has no {point.step} step {point.index}: {rule}.", ("index",))


def _unique(kind: str, names: Iterable[tuple[str, _Path]], where: str) -> None:
    """`names`: each with its path; of those that are the same the second one is wrong."""
    known = list(names)
    for name, times in Counter(name for name, _ in known).most_common(1):
        if times > 1:
            _, (_, path), *_ = (entry for entry in known if entry[0] == name)
            raise ScenarioError(f"{where} has {times} {kind}s called {shown(name)}: rename all but one.", path)


def _known(data: Any, what: str, keys: tuple[str, ...], said: tuple[str, ...] = ()) -> dict[str, Any]:
    """`said`: the keys as people write them, if these are others."""
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{what} is a table of {', '.join(keys)}, not {shown(data)}.")
    for key in data:
        if key not in keys:
            raise ScenarioError(f"{what} has no field {shown(key)}: {instead(key, said or keys, 'it takes')}", (key,))
    return dict(data)


def _choice(data: Mapping[str, Any], key: str, known: Iterable[str], what: str) -> Any:
    value = data.get(key)
    if value not in tuple(known):
        raise ScenarioError(f"There is no {what} {shown(value)}: {instead(value, known)}", (key,))
    return value


def _list(data: Mapping[str, Any], key: str, what: str, most: int) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise ScenarioError(f"{what}: {key} is a list of tables, not {shown(value)}.", (key,))
    if len(value) > most:
        raise ScenarioError(f"{what}: {key} has {len(value)} entries; there may be {most}.", (key,))
    return list(value)


def _text(data: Mapping[str, Any], key: str, what: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        article = "an" if key[0] in "aeiou" else "a"
        rule = f"a text of 1 to {MAX_TEXT} characters"
        raise ScenarioError(f"{what} needs {article} {key}, {rule}, not {shown(value)}.", (key,))
    if half_character(value):
        rule = "holds half a character, which no database can store"
        raise ScenarioError(f"{what}: {key} {shown(value)} {rule}.", (key,))
    return value


def _number(data: Mapping[str, Any], key: str, what: str, default: int, low: int, high: int) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ScenarioError(f"{what}: {key} takes a whole number from {low} to {high}, not {shown(value)}.", (key,))
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
