"""Work that took longer than planned, read from an actor's story: by renewals in it, or a silence beyond its lease."""

from __future__ import annotations

from collections.abc import Iterator

from fencepost_analyzer.canonical import Row
from fencepost_analyzer.inference import Inference, where
from fencepost_runtime.actors import MS
from fencepost_runtime.operations import Job
from fencepost_runtime.policy import Policy
from fencepost_runtime.scenario import Fault, Point, Queue, Scenario


def moment(event: str, row: Row) -> int:
    """When an entry of an actor's story was told, in Unix nanoseconds."""
    return int(row["until"] if event == "finish" else row["at"])


def slow_work(scenario: Scenario, actor: str, story: list[tuple[str, Row]]) -> Iterator[tuple[int, Inference]]:
    """Work that took longer than planned, by the entry that ended it: told by the renewals in it, or by a silence
    longer than the lease. A death, or an attempt given up, ends work before its time: it took that long at least."""
    jobs = {job.id: (job, queue) for queue in scenario.queues for job in queue.jobs}
    index, since, renewals, paused = 0, None, 0, 0
    at_work: Row | None = None
    for number, (event, row) in enumerate(story):
        if event in ("pause", "resume"):
            paused += row["at"] if event == "resume" else -row["at"]
            continue
        if event == "crash":
            # A process that is killed while it is stopped worked no longer than to its stop.
            paused += row["at"] if paused < 0 else 0
        elif event == "start":
            at_work = row
        ended = at_work if event == "crash" else row
        known = jobs.get(ended["job_id"] or "") if ended is not None else None
        if event == "renew":
            renewals += 1
        elif ended is not None and since is not None and known is not None and _ends_work(event, known[1].policy):
            job, queue = known
            cut = event == "crash" or event in ("retry", "dead_letter") or _gave_up(event, row)
            work = index if cut else _work_index(event, row, job, queue.policy, index)
            elapsed = moment(event, row) - since - paused
            fault = _slow_fault(job, queue, ended["attempt"] or 1, work, elapsed, renewals, cut=cut)
            if fault is not None and (event == "crash" or renewals or not cut):
                words = f"{actor} worked {elapsed // MS} ms {where(fault.at)}."
                yield number, Inference(fault, words, (story[number - 1][1]["span_id"], row["span_id"]), work)
            index, renewals, paused = work + 1, 0, 0
        if event == "start":
            index, renewals, paused = 0, 0, 0
        if event == "finish":
            at_work = None
        if event != "renew":
            since = None if event in ("finish", "crash") else moment(event, row)


def _ends_work(event: str, policy: Policy) -> bool:
    # An early acknowledgement comes before all work.
    return event in ("write", "retry", "dead_letter", "finish", "crash") or (event == "ack" and policy.ack != "early")


def _work_index(event: str, row: Row, job: Job, policy: Policy, index: int) -> int:
    """Which work step ended with this event. In one transaction all the work comes before the first write."""
    if policy.writes == "atomic":
        return index
    return row["effect_index"] if event == "write" and row["effect_index"] is not None else max(index, len(job.effects))


def _gave_up(event: str, row: Row) -> bool:
    """An attempt that ended early did not come to the end of its work."""
    return event == "finish" and row["outcome"] != "ok"


def _slow_fault(
    job: Job, queue: Queue, attempt: int, index: int, elapsed: int, renewals: int, *, cut: bool
) -> Fault | None:
    """`cut`: the work was cut off, so that it may have been meant to last as planned."""
    policy = queue.policy
    planned = job.work_ms * MS if index == 0 else 0
    slice_ns = policy.lease_ms * MS // 3
    point = Point(job.id, attempt, "work", min(index, len(job.effects)))
    if policy.renews:
        # So many renewals, so many slices of work: the last slice has none after it.
        due = max(0, -(-planned // slice_ns) - 1)
        if renewals == due or (cut and renewals < due):
            return None
        return Fault("slow", point, at_most_ms=max(1, (2 * renewals + 1) * slice_ns // (2 * MS)))
    if elapsed - planned < policy.lease_ms * MS:
        return None
    return Fault("slow", point, at_most_ms=max(1, elapsed // MS))
