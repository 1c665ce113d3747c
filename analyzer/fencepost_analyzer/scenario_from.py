"""From a recording to a scenario: what befell the workers and in which order, each inference with its evidence.

The workload and the policies are what the run announced of itself; faults and order come from the events alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, get_args

from fencepost_analyzer.canonical import BEFALLEN, Row, stories
from fencepost_analyzer.errors import NotReplayable
from fencepost_runtime.actors import MS
from fencepost_runtime.operations import Job
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Kind, Point, Queue, Scenario, When
from fencepost_runtime.simulate import How, Told

_STEP_OF = {
    "enqueue": "enqueue",
    "start": "start",
    "write": "write",
    "renew": "renew",
    "ack": "settle",
    "retry": "retry",
    "dead_letter": "retry",
    "finish": "finish",
    "reclaim": "reclaim",
}
_REFUSED_BY_DATABASE: dict[str, How] = {"BackendError": "db_error", "RolledBack": "rolled_back"}
_HOWS: tuple[How, ...] = get_args(How)
# Steps of unknown outcome that are tried both ways; with more, the rest counts as not applied.
MAX_UNTOLD = 10


@dataclass(frozen=True, slots=True)
class Inference:
    """A fault read from the evidence: in words, with the spans that it rests on."""

    fault: Fault
    sentence: str
    span_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incident:
    """A recording as something that can be run again: `scenario` with the inferred faults, and the recorded order."""

    scenario: Scenario
    seed: int
    schedule: tuple[Told, ...]
    inferences: tuple[Inference, ...]
    rows: tuple[Row, ...]


def readings_of(announced: Scenario, seed: int, rows: Sequence[Row]) -> Iterator[Incident]:
    """Every way to read these events (rows of the `events` relation) of a run of the `announced` scenario, the
    likeliest first. There is more than one only where steps that nobody told the end of overlap.

    Raises NotReplayable for events that say too little."""
    _refuse_unordered(rows)
    told = stories(rows)
    for hows in _hows(rows):
        inferences = tuple(_inferences(announced, told, hows))
        scenario = replace(announced, faults=tuple(inference.fault for inference in inferences))
        yield Incident(scenario, seed, tuple(_schedule(told, hows)), inferences, tuple(rows))


def _refuse_unordered(rows: Sequence[Row]) -> None:
    """Raise NotReplayable for events whose place in their actor's story nobody can know."""
    for row in rows:
        placed = row["at"] is not None and row["producer_seq"] is not None
        if row["event"] == "run" and row["producer_end_seq"] is not None:
            placed = placed and row["until"] is not None
        if not placed:
            what = f"The {row['event']} event of span {row['span_id']}"
            raise NotReplayable(f"{what} has no time or no place in its log.")


def _hows(rows: Sequence[Row]) -> Iterator[dict[str, How]]:
    """How each step that did not simply succeed or get refused ended, by span id; every assignment that fits.

    A step whose outcome nobody told was applied if and only if positions are missing in its place: they are given out
    one by one, so a missing one was taken by somebody who never said so.
    """
    known: dict[str, How] = {
        row["span_id"]: _REFUSED_BY_DATABASE[row["reason"]]
        for row in rows
        if row["outcome"] == "failed" and row["event"] != "run" and row["reason"] in _REFUSED_BY_DATABASE
    }
    steps = _untold(rows)
    missing = _missing(sorted((row["position"], row["at"]) for row in rows if row["position"] is not None))
    found = 0
    for applied in product((True, False), repeat=min(len(steps), MAX_UNTOLD)):
        taken = [step for step, was in zip(steps, applied, strict=False) if was]
        if sum(map(len, taken)) != len(missing) or not _fits(taken, missing):
            continue
        found += 1
        yield known | {row["span_id"]: _untold_how(row, step in taken) for step in steps for row in step}
    if not found:
        # More positions are missing than steps are open: spans are lost. Said by the divergence that follows.
        yield known | {row["span_id"]: _untold_how(row, False) for step in steps for row in step}


def _untold(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows whose outcome nobody told, grouped into the steps that they belong to, by time."""
    steps: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["outcome"] == "unknown" and row["event"] != "run":
            steps.setdefault((row["at"], row["worker_id"], row["execution_id"]), []).append(row)
    return [step for _, step in sorted(steps.items(), key=lambda entry: str(entry[0]))]


def _fits(taken: list[list[Row]], missing: list[tuple[int, int]]) -> bool:
    """Whether each missing position was taken late enough for the step that is said to have taken it."""
    latest = [at for _, at in missing]
    begun = [row["at"] for step in taken for row in step]
    return all(since <= until for since, until in zip(sorted(begun), sorted(latest), strict=True))


def _untold_how(row: Row, applied: bool) -> How:
    if row["producer_end_seq"] is None:
        return "committed" if applied else "begun"
    return "lost_reply" if applied else "lost_request"


def _missing(seen: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(position, the latest moment at which it can have been taken) of each position that nobody told of."""
    missing = []
    expected = 1
    for position, at in seen:
        missing += [(gap, at) for gap in range(expected, min(position, expected + 10_000))]
        expected = position + 1
    return missing


def _schedule(told: Mapping[str, list[tuple[str, Row]]], hows: Mapping[str, How]) -> Iterable[Told]:
    """The actors' stories merged into one: positions in their order, everything else by the clock."""
    heads = {actor: list(story) for actor, story in told.items()}
    positions = sorted(
        position for story in told.values() for entry in story if (position := _position(*entry)) is not None
    )
    for story in heads.values():
        story.reverse()
    positions.reverse()
    while any(heads.values()):
        ready = [
            (_moment(*story[-1]), actor) for actor, story in heads.items() if story and _may_go(*story[-1], positions)
        ]
        if not ready:
            raise NotReplayable("The recording's positions contradict the order in which its actors told them.")
        at, actor = min(ready)
        event, row = heads[actor].pop()
        if _position(event, row) is not None:
            positions.pop()
        signal = row["reason"] or "" if event in BEFALLEN else ""
        yield Told(actor, at, _how(event, row, hows), row["effect_index"] or 0, signal)


def _position(event: str, row: Row) -> int | None:
    position: int | None = None if event in ("start", "finish") else row["position"]
    return position


def _may_go(event: str, row: Row, positions: list[int]) -> bool:
    position = _position(event, row)
    return position is None or position == positions[-1]


def _moment(event: str, row: Row) -> int:
    return int(row["until"] if event == "finish" else row["at"])


def _how(event: str, row: Row, hows: Mapping[str, How]) -> How:
    if event in BEFALLEN:
        return next(how for how in _HOWS if how == event)
    return "normal" if event in ("start", "finish") else hows.get(row["span_id"], "normal")


def _inferences(
    scenario: Scenario, told: Mapping[str, list[tuple[str, Row]]], hows: Mapping[str, How]
) -> Iterable[Inference]:
    by_job = _by_job(told)
    for actor, story in told.items():
        for number, (event, row) in enumerate(story):
            match event:
                case "crash":
                    yield from _crash(actor, story, number, hows)
                case "pause":
                    yield from _pause(actor, story, number, by_job)
                case _ if hows.get(row["span_id"]) in ("lost_request", "lost_reply", "db_error", "rolled_back"):
                    if event not in ("start", "finish"):
                        yield _lost(actor, event, row, hows[row["span_id"]])
        yield from _slow(scenario, actor, story)


def _by_job(told: Mapping[str, list[tuple[str, Row]]]) -> dict[str, list[tuple[str, Row]]]:
    """What was decided about each job, by whomever: the entries that have a position."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for event, row in (entry for story in told.values() for entry in story):
        if row["position"] is not None and row["job_id"] is not None:
            found.setdefault(row["job_id"], []).append((event, row))
    return found


def _point(event: str, row: Row, when: When) -> Point | None:
    step = _STEP_OF.get(event)
    if step is None or row["job_id"] is None:
        return None
    index = row["effect_index"] or 0
    attempt = row["attempt"] or 0
    return Point(row["job_id"], attempt, step, index, when)


def _last_point(story: list[tuple[str, Row]], number: int, hows: Mapping[str, How]) -> tuple[Point, Row] | None:
    """Where an actor was before entry `number` of its story: after, or in the middle of, the last thing it told."""
    for event, row in (story[index] for index in range(number - 1, -1, -1)):
        if event in BEFALLEN:
            continue
        how = hows.get(row["span_id"]) if event not in ("start", "finish") else None
        when: When = "begun" if how == "begun" else "committed" if how == "committed" else "after"
        if event == "lease":
            # A lease step names no job until it is answered: its worker was about to start.
            return Point(row["job_id"], row["attempt"] or 1, "start"), row
        point = _point(event, row, when)
        if point is not None:
            return point, row
    return None


def _crash(actor: str, story: list[tuple[str, Row]], number: int, hows: Mapping[str, How]) -> Iterable[Inference]:
    found = _last_point(story, number, hows)
    if found is None:
        return
    (point, last), (_, row) = found, story[number]
    sentence = f"{actor} was killed ({row['reason']}) {_where(point)}."
    yield Inference(Fault("kill", point), sentence, (row["span_id"], last["span_id"]))


def _pause(
    actor: str,
    story: list[tuple[str, Row]],
    number: int,
    by_job: Mapping[str, list[tuple[str, Row]]],
) -> Iterable[Inference]:
    found = _last_point(story, number, {})
    resumed = next((other for event, other in islice(story, number + 1, None) if event == "resume"), None)
    if found is None:
        return
    (point, last), (_, row) = found, story[number]
    length_ms = max(1, (resumed["at"] - row["at"]) // MS) if resumed is not None else 3_600_000
    until = _last_by_others(actor, resumed["at"], by_job.get(point.job, ())) if resumed is not None else None
    waited = f" for {length_ms} ms" if resumed is not None else " for good"
    seen = f", until {_where(until)} by another" if until is not None else ""
    sentence = f"{actor} was stopped ({row['reason']}) {_where(point)}{waited}{seen}."
    spans = tuple(other["span_id"] for other in (row, last, resumed) if other is not None)
    # Elsewhere the other attempt may never come: then the pause ends after a while instead.
    yield Inference(Fault("pause", point, until, max(length_ms, 10_000) if until else length_ms), sentence, spans)


def _last_by_others(actor: str, before: int, decided: Sequence[tuple[str, Row]]) -> Point | None:
    """The last durable step of another attempt of the job before a moment: what the sleeper slept through."""
    done = [
        (row["position"], event, row)
        for event, row in decided
        if row["worker_id"] != actor and event in ("write", "ack", "retry") and row["at"] <= before
    ]
    if not done:
        return None
    _, event, row = max(done, key=lambda entry: entry[0])
    return _point(event, row, "after")


def _lost(actor: str, event: str, row: Row, how: How) -> Inference:
    kinds: dict[str, tuple[Kind, str]] = {
        "lost_request": ("lost_request", "the request never arrived: no position was taken for it"),
        "lost_reply": ("lost_reply", "it was applied, for a position was taken, but the reply never came"),
        "db_error": ("db_error", "the database refused it"),
        "rolled_back": ("db_error", "the database refused it and rolled its transaction back"),
    }
    kind, words = kinds[how]
    point = _point(event, row, "before") or Point(row["job_id"] or "", 0, "reclaim")
    sentence = f"{actor}: {point.step} of {point.job}, attempt {point.attempt}: {words}."
    return Inference(Fault(kind, point), sentence, (row["span_id"],))


def _slow(scenario: Scenario, actor: str, story: list[tuple[str, Row]]) -> Iterable[Inference]:
    """Work that took longer than planned: told by the renewals in it, or by a silence longer than the lease."""
    jobs = {job.id: (job, queue) for queue in scenario.queues for job in queue.jobs}
    index, since, renewals, paused = 0, None, 0, 0
    for number, (event, row) in enumerate(story):
        if event in ("pause", "resume", "crash"):
            paused += (row["at"] if event == "resume" else -row["at"]) if event != "crash" else 0
            continue
        known = jobs.get(row["job_id"] or "")
        if event == "renew":
            renewals += 1
        elif event in ("write", "ack", "retry", "finish") and since is not None and known is not None:
            job, queue = known
            work = _work_index(event, row, job, queue.policy, index)
            elapsed = _moment(event, row) - since - paused
            fault = _slow_fault(job, queue, row["attempt"] or 1, work, elapsed, renewals)
            if fault is not None and not _gave_up(event, row):
                words = f"{actor} worked {elapsed // MS} ms {_where(fault.at)}."
                yield Inference(fault, words, (story[number - 1][1]["span_id"], row["span_id"]))
            index, renewals, paused = work + 1, 0, 0
        if event == "start":
            index, renewals, paused = 0, 0, 0
        since = None if event == "finish" else _moment(event, row)


def _work_index(event: str, row: Row, job: Job, policy: Policy, index: int) -> int:
    """Which work step ended with this event. In one transaction all the work comes before the first write."""
    if policy.writes == "atomic":
        return index
    return row["effect_index"] if event == "write" and row["effect_index"] is not None else max(index, len(job.effects))


def _gave_up(event: str, row: Row) -> bool:
    """An attempt that ended early did not come to the end of its work."""
    return event == "finish" and row["outcome"] != "ok"


def _slow_fault(job: Job, queue: Queue, attempt: int, index: int, elapsed: int, renewals: int) -> Fault | None:
    policy = queue.policy
    planned = job.work_ms * MS if index == 0 else 0
    slice_ns = policy.lease_ms * MS // 3
    point = Point(job.id, attempt, "work", index)
    if policy.renews:
        # So many renewals, so many slices of work: the last slice has none after it.
        if renewals == max(0, -(-planned // slice_ns) - 1):
            return None
        return Fault("slow", point, at_most_ms=max(1, (2 * renewals + 1) * slice_ns // (2 * MS)))
    if elapsed - planned < policy.lease_ms * MS:
        return None
    return Fault("slow", point, at_most_ms=max(1, elapsed // MS))


def _where(point: Point) -> str:
    index = f" {point.index}" if point.step in ("write", "work") else ""
    times: dict[str, str] = {
        "before": "before",
        "begun": "in the middle of",
        "committed": "after the commit, before the reply, of",
        "after": "after",
    }
    when = "at" if point.step == "work" else times[point.when]
    return f"{when} {point.step}{index} of {point.job}, attempt {point.attempt}"
