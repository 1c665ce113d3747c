"""From a recording to a scenario: what befell the workers and in which order, each inference with its evidence.

The workload and the policies are what the run announced of itself; faults and order come from the events alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, get_args

from fencepost_analyzer.canonical import BEFALLEN, Row, stories
from fencepost_analyzer.errors import NotReplayable
from fencepost_analyzer.inference import Inference, where
from fencepost_analyzer.slowness import moment, slow_work
from fencepost_runtime.actors import MS
from fencepost_runtime.drive import CUT_SHORT
from fencepost_runtime.following import How, Told
from fencepost_runtime.operations import Job
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Kind, Point, Scenario, When

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
_Jobs = Mapping[str, tuple[Job, Policy]]
_REFUSED_BY_DATABASE: dict[str, How] = {"BackendError": "db_error", "RolledBack": "rolled_back"}
_HOWS: tuple[How, ...] = get_args(How)
# A pause whose end nobody told lasts longer than any lease, yet not so long that nobody could wait for it.
UNENDED_PAUSE_MS = 10_000
# Steps of unknown outcome that are tried both ways; with more, the rest counts as not applied.
MAX_UNTOLD = 10


@dataclass(frozen=True, slots=True)
class Incident:
    """A recording as something that can be run again: `scenario` with the inferred faults, and the recorded order.

    `unplaced`: what befell the actors and is bound to no step, in words: a run with `scenario` lacks it."""

    scenario: Scenario
    seed: int
    schedule: tuple[Told, ...]
    inferences: tuple[Inference, ...]
    unplaced: tuple[str, ...]
    rows: tuple[Row, ...]


def readings_of(announced: Scenario, seed: int, rows: Sequence[Row]) -> Iterator[Incident]:
    """Every way to read these events (rows of the `events` relation) of a run of the `announced` scenario, the
    likeliest first. There is more than one only where steps that nobody told the end of overlap.

    Raises NotReplayable for events that say too little."""
    _refuse_unordered(rows)
    told = stories(rows)
    for hows in _hows(rows):
        unplaced: list[str] = []
        inferences = tuple(_inferences(announced, told, hows, unplaced))
        scenario = replace(announced, faults=tuple(inference.fault for inference in inferences))
        yield Incident(scenario, seed, tuple(_schedule(told, hows)), inferences, tuple(unplaced), tuple(rows))


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
            (moment(*story[-1]), actor) for actor, story in heads.items() if story and _may_go(*story[-1], positions)
        ]
        if not ready:
            raise NotReplayable("The recording's positions contradict the order in which its actors told them.")
        at, actor = min(ready)
        event, row = heads[actor].pop()
        if _position(event, row) is not None:
            positions.pop()
        signal = row["reason"] or "" if event == "crash" else ""
        yield Told(actor, at, _how(event, row, hows), row["effect_index"] or 0, signal)


def _position(event: str, row: Row) -> int | None:
    position: int | None = None if event in ("start", "finish") else row["position"]
    return position


def _may_go(event: str, row: Row, positions: list[int]) -> bool:
    position = _position(event, row)
    return position is None or position == positions[-1]


def _how(event: str, row: Row, hows: Mapping[str, How]) -> How:
    if event in BEFALLEN:
        return next(how for how in _HOWS if how == event)
    return "normal" if event in ("start", "finish") else hows.get(row["span_id"], "normal")


def _inferences(
    scenario: Scenario, told: Mapping[str, list[tuple[str, Row]]], hows: Mapping[str, How], unplaced: list[str]
) -> Iterable[Inference]:
    """The faults, once each; what no fault can be bound to is added to `unplaced`."""
    by_job = _by_job(told)
    jobs = {job.id: (job, queue.policy) for queue in scenario.queues for job in queue.jobs}
    seen: set[Fault] = set()
    ended = max((moment(*entry) for story in told.values() for entry in story), default=0)
    for actor, story in told.items():
        places = list(_places(story))
        slow = dict(slow_work(scenario, actor, _with_end(story, ended)))
        for number, (event, row) in enumerate(story):
            found: Inference | None = None
            match event:
                case "crash" if is_cut_short(row):
                    pass  # Ended by the supervisor, which gave up: nothing that befell it.
                case "crash":
                    found = _crash(actor, story, number, hows, jobs, places, slow.get(number))
                case "pause" if _dies_stopped(story, number):
                    continue  # It never went on: the death alone says that, at the same step.
                case "pause":
                    found = _pause(actor, story, number, by_job, jobs, places)
                case _ if hows.get(row["span_id"]) in ("lost_request", "lost_reply", "db_error", "rolled_back"):
                    if event not in ("start", "finish"):
                        found = _lost(actor, event, row, hows[row["span_id"]], jobs, places[number])
            if found is None and event in ("crash", "pause") and not is_cut_short(row):
                befell = "killed" if event == "crash" else "stopped"
                unplaced.append(f"{actor} was {befell} ({row['reason']}) before it had done anything for a job")
            for inference in (slow.get(number), found):
                # The facts of one transaction share one fate.
                if inference is not None and inference.fault not in seen:
                    seen.add(inference.fault)
                    yield inference
        if (unfinished := slow.get(len(story))) is not None:
            yield unfinished


def _with_end(story: list[tuple[str, Row]], ended: int) -> list[tuple[str, Row]]:
    """The story, ended where the evidence ends: nobody told how long work lasted that was under way then."""
    if not story or story[-1][0] == "crash":
        return story
    return [*story, ("crash", {"event": "crash", "at": ended, "span_id": story[-1][1]["span_id"]})]


def is_cut_short(row: Row) -> bool:
    """Whether a crash is told of an actor that the run's own supervisor ended, because the run was."""
    return row["event"] == "crash" and str(row["reason"]).endswith(CUT_SHORT)


def _dies_stopped(story: Sequence[tuple[str, Row]], number: int) -> bool:
    """Whether the next that befalls an actor which was stopped is a death of its own."""
    following = next(((event, row) for event, row in islice(story, number + 1, None) if event in BEFALLEN), None)
    return following is not None and following[0] == "crash" and not is_cut_short(following[1])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry of a story stands in its attempt: renewals before it, and the work step that it belongs to; or how
    often its job had been taken back before."""

    renewals: int
    work: int
    reclaims: int


def _places(story: Iterable[tuple[str, Row]]) -> Iterator[_Place]:
    renewals = work = 0
    reclaims = Counter[str | None]()
    for event, row in story:
        if event in ("start", "lease"):
            renewals = work = 0
        reclaims[row["job_id"]] += event == "reclaim"
        yield _Place(renewals, work, max(0, reclaims[row["job_id"]] - 1))
        if event == "renew":
            renewals += 1
        elif event == "write":
            work = (row["effect_index"] or 0) + 1


def _by_job(told: Mapping[str, list[tuple[str, Row]]]) -> dict[str, list[tuple[str, Row]]]:
    """What was decided about each job, by whomever: the entries that have a position."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for event, row in (entry for story in told.values() for entry in story):
        if row["position"] is not None and row["job_id"] is not None:
            found.setdefault(row["job_id"], []).append((event, row))
    return found


def _point(event: str, row: Row, when: When, jobs: _Jobs, place: _Place | None = None) -> Point | None:
    step = _STEP_OF.get(event)
    if step is None or row["job_id"] is None:
        return None
    index, attempt = row["effect_index"] or 0, row["attempt"] or 0
    if step == "reclaim" or (event == "dead_letter" and not attempt):
        # Buried by who takes leases back, in the same transaction.
        step, index = "reclaim", place.reclaims if place is not None else 0
    elif _in_one(event, row, jobs):
        step, index = "apply", 0
    elif step == "renew":
        index = place.renewals if place is not None else 0
    return Point(row["job_id"], attempt, step, index, when)


def _in_one(event: str, row: Row, jobs: _Jobs) -> bool:
    """Whether this was told of the transaction of all effects; a write that ended it before is told by itself."""
    known = jobs.get(row["job_id"])
    if known is None or known[1].writes != "atomic" or row["reason"] == "RolledBack":
        return False
    _, policy = known
    return event == "write" or (event == "ack" and policy.ack == "with_writes")


def _last_point(
    story: list[tuple[str, Row]],
    number: int,
    hows: Mapping[str, How],
    jobs: _Jobs,
    places: Sequence[_Place],
) -> tuple[Point, Row] | None:
    """Where an actor was before entry `number` of its story: after, or in the middle of, the last thing it told."""
    for index in range(number - 1, -1, -1):
        event, row = story[index]
        if event in BEFALLEN:
            continue
        how = hows.get(row["span_id"]) if event not in ("start", "finish") else None
        when: When = "begun" if how == "begun" else "committed" if how == "committed" else "after"
        if event == "lease":
            # A lease step names no job until it is answered: its worker was about to start.
            return Point(row["job_id"], row["attempt"] or 1, "start"), row
        point = _point(event, row, when, jobs, places[index])
        answered = event == "ack" and row["outcome"] != "unknown" and row["reason"] not in _REFUSED_BY_DATABASE
        if answered and point is not None and jobs[point.job][1].ack == "early":
            # It was about to work: under other policies the acknowledgement comes after that.
            point = Point(point.job, point.attempt, "work")
        if point is not None:
            return point, row
    return None


def _crash(
    actor: str,
    story: list[tuple[str, Row]],
    number: int,
    hows: Mapping[str, How],
    jobs: _Jobs,
    places: Sequence[_Place],
    slow: Inference | None,
) -> Inference | None:
    found = _last_point(story, number, hows, jobs, places)
    if found is None:
        return None
    (point, last), (_, row) = found, story[number]
    work = places[number].work
    if slow is not None and not jobs[point.job][1].renews:
        # It had been silent for longer than its lease: it died at the end of that work, not at its beginning.
        work = slow.work
        point = _after_work(slow.fault.at, *jobs[point.job])
    sentence = f"{actor} was killed ({row['reason']}) {where(point)}."
    return Inference(Fault("kill", point), sentence, (row["span_id"], last["span_id"]), work)


def _after_work(work: Point, job: Job, policy: Policy) -> Point:
    """The step that comes after a work step."""
    if work.index < len(job.effects):
        return replace(work, step="write")
    return replace(work, step="settle" if policy.ack == "late" else "finish", index=0)


def _pause(
    actor: str,
    story: list[tuple[str, Row]],
    number: int,
    by_job: Mapping[str, list[tuple[str, Row]]],
    jobs: _Jobs,
    places: Sequence[_Place],
) -> Inference | None:
    found = _last_point(story, number, {}, jobs, places)
    resumed = next((other for event, other in islice(story, number + 1, None) if event == "resume"), None)
    if found is None:
        return None
    (point, last), (_, row) = found, story[number]
    length_ms = max(1, (resumed["at"] - row["at"]) // MS) if resumed is not None else UNENDED_PAUSE_MS
    decided = by_job.get(point.job, ())
    until = _last_by_others(actor, resumed["at"], decided, jobs) if resumed is not None else None
    waited = f" for {length_ms} ms" if resumed is not None else ", and was not seen to go on"
    seen = f", until {where(until)} by another" if until is not None else ""
    sentence = f"{actor} was stopped ({row['reason']}) {where(point)}{waited}{seen}."
    spans = tuple(other["span_id"] for other in (row, last, resumed) if other is not None)
    # Elsewhere the other attempt may never come: then the pause ends after a while instead.
    at_most_ms = max(length_ms, 10_000) if until else length_ms
    return Inference(Fault("pause", point, until, at_most_ms), sentence, spans, places[number].work)


def _last_by_others(actor: str, before: int, decided: Sequence[tuple[str, Row]], jobs: _Jobs) -> Point | None:
    """The last durable step of another attempt of the job before a moment: what the sleeper slept through."""
    done = [
        (row["position"], event, row)
        for event, row in decided
        if row["worker_id"] != actor and event in ("write", "ack", "retry") and row["at"] <= before
    ]
    if not done:
        return None
    _, event, row = max(done, key=lambda entry: entry[0])
    return _point(event, row, "after", jobs)


def _lost(actor: str, event: str, row: Row, how: How, jobs: _Jobs, place: _Place) -> Inference:
    kinds: dict[str, tuple[Kind, str]] = {
        "lost_request": ("lost_request", "the request never arrived: no position was taken for it"),
        "lost_reply": ("lost_reply", "it was applied, for a position was taken, but the reply never came"),
        "db_error": ("db_error", "the database refused it"),
        "rolled_back": ("db_error", "the database refused it and rolled its transaction back"),
    }
    kind, words = kinds[how]
    point = _point(event, row, "before", jobs, place) or Point(row["job_id"] or "", 0, "reclaim")
    attempt = f", attempt {point.attempt}" if point.attempt else ""
    sentence = f"{actor}: {point.step} of {point.job}{attempt}: {words}."
    return Inference(Fault(kind, point), sentence, (row["span_id"],), place.work)
