"""A scenario: jobs, actors, policies, and the faults that strike them at named steps.

A small file that people write, keep and run again; see docs/failure-modes for examples. Raises ScenarioError,
naming what is wrong, for anything that cannot be run as it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from . import workloads
from .errors import PolicyError, ScenarioError
from .operations import Effect, Job
from .policy import Policy, preset
from .steps import STEPS

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
MAX_JOBS, MAX_WORKERS = 10_000, 64


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

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        data: dict[str, Any] = _without_none(asdict(self))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        data = _known(data, "A scenario", ("id", "queues", "faults", "poll_ms", "at_most_ms"))
        queues = tuple(_queue(entry) for entry in _list(data, "queues"))
        if not queues:
            raise ScenarioError("A scenario needs at least one [[queues]] table.")
        scenario = cls(
            _text(data, "id", "A scenario"),
            queues,
            tuple(_fault(entry) for entry in _list(data, "faults")),
            _number(data, "poll_ms", "A scenario", 20, 1, 60_000),
            _number(data, "at_most_ms", "A scenario", 60_000, 100, 3_600_000),
        )
        _check_names(scenario)
        return scenario


def _queue(data: Mapping[str, Any]) -> Queue:
    data = _known(data, "A queue", ("name", "workload", "jobs", "work_ms", "policy", "workers"))
    name = _text(data, "name", "A queue")
    policy = data.get("policy", "naive")
    try:
        rules = preset(policy) if isinstance(policy, str) else Policy.from_dict(policy)
    except PolicyError as error:
        raise ScenarioError(f"Queue {name}: {error}") from error
    if isinstance(data.get("jobs"), list | tuple):
        jobs = tuple(_job(entry, name) for entry in data["jobs"])
    else:
        count = _number(data, "jobs", f"Queue {name}", 1, 1, MAX_JOBS)
        work_ms = _number(data, "work_ms", f"Queue {name}", 0, 0, 3_600_000)
        jobs = workloads.jobs(_text(data, "workload", f"Queue {name}"), count, name, work_ms)
    return Queue(name, jobs, rules, _number(data, "workers", f"Queue {name}", 2, 1, MAX_WORKERS))


def _job(data: Mapping[str, Any], queue: str) -> Job:
    data = _known(data, "A job", ("id", "queue", "name", "effects", "work_ms", "carrier"))
    effects = []
    for table in _list(data, "effects"):
        entry = _known(table, "An effect", ("key", "account", "amount"))
        key = _text(entry, "key", "An effect")
        amount = _number(entry, "amount", "An effect", 0, -(10**12), 10**12)
        effects.append(Effect(key, str(entry.get("account", key)), amount))
    job_id = _text(data, "id", "A job")
    work_ms = _number(data, "work_ms", "A job", 0, 0, 3_600_000)
    return Job(job_id, queue, str(data.get("name", job_id)), tuple(effects), work_ms)


def _fault(data: Mapping[str, Any]) -> Fault:
    data = dict(data)
    if "at" not in data:
        # In a file people write the point's fields beside the kind; `to_dict` nests them.
        data["at"] = {key: data.pop(key) for key in ("job", "attempt", "step", "index", "when") if key in data}
    data = _known(data, "A fault", ("kind", "at", "until", "at_most_ms"))
    kind = data.get("kind")
    if kind not in KINDS:
        raise ScenarioError(f"There is no fault {kind!r}. There are: {', '.join(KINDS)}.")
    at = _point(data["at"])
    _check_possible(kind, at)
    until = _point({"when": "after", **data["until"]}) if data.get("until") else None
    return Fault(kind, at, until, _number(data, "at_most_ms", "A fault", 10_000, 1, 3_600_000))


def _check_possible(kind: str, at: Point) -> None:
    if kind == "slow" and at.step != "work":
        raise ScenarioError(f"A slow fault strikes the work step, not {at.step}.")
    if kind in ("lost_request", "lost_reply", "db_error") and at.step not in DURABLE:
        raise ScenarioError(f"A {kind} fault strikes a durable step ({', '.join(DURABLE)}), not {at.step}.")
    if at.when in ("begun", "committed") and (kind != "kill" or at.step not in DURABLE):
        raise ScenarioError(f'when = "{at.when}" is for a kill in the middle of a durable step: {", ".join(DURABLE)}.')


def _point(data: Mapping[str, Any]) -> Point:
    data = _known(data, "A point", ("job", "attempt", "step", "index", "when"))
    step, when = data.get("step"), data.get("when", "before")
    if step not in STEPS:
        close = get_close_matches(str(step), STEPS, 1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(STEPS)}."
        raise ScenarioError(f"There is no step {step!r}. {hint}")
    if when not in WHENS:
        raise ScenarioError(f"when is {when!r}; it takes one of {', '.join(WHENS)}.")
    attempt = _number(data, "attempt", "A point", 0 if step in ("enqueue", "reclaim") else 1, 0, 1_000)
    return Point(_text(data, "job", "A point"), attempt, step, _number(data, "index", "A point", 0, 0, 10_000), when)


def _check_names(scenario: Scenario) -> None:
    names = [queue.name for queue in scenario.queues]
    ids = [job.id for job in scenario.jobs]
    for kind, values in (("queue", names), ("job", ids)):
        value, times = Counter(values).most_common(1)[0] if values else ("", 0)
        if times > 1:
            raise ScenarioError(f"Two {kind}s of the scenario are called {value}.")
    for fault in scenario.faults:
        for point in (fault.at, fault.until):
            if point is not None and point.job not in ids:
                raise ScenarioError(f"A fault strikes job {point.job!r}, which the scenario does not have.")


def _known(data: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{what} is a table of {', '.join(keys)}.")
    for key in data:
        if key not in keys:
            close = get_close_matches(str(key), keys, 1)
            hint = f"Did you mean {close[0]}?" if close else f"It takes: {', '.join(keys)}."
            raise ScenarioError(f"{what} has no field {key!r}. {hint}")
    return dict(data)


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise ScenarioError(f"{key} is a list of tables.")
    return list(value)


def _text(data: Mapping[str, Any], key: str, what: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ScenarioError(f"{what} needs a {key}, a text that is not empty.")
    return value


def _number(data: Mapping[str, Any], key: str, what: str, default: int, low: int, high: int) -> int:
    value = data.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ScenarioError(f"{what}: {key} takes a whole number from {low} to {high}, not {value!r}.")
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value
