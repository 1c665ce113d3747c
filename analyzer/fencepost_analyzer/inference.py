"""One fault read from a recording's evidence, and a moment of an attempt in words."""

from __future__ import annotations

from dataclasses import dataclass

from fencepost_runtime.scenario import Fault, Point, Scenario


@dataclass(frozen=True, slots=True)
class Inference:
    """A fault read from the evidence: in words, with the spans that it rests on.

    `work` is the work step of its attempt that it fell into or came after: where else it may strike. `written`: that
    somebody wrote it, so that nothing about its place is open."""

    fault: Fault
    sentence: str
    span_ids: tuple[str, ...]
    work: int = 0
    written: bool = False


def as_written(scenario: Scenario) -> tuple[Inference, ...]:
    """The faults of a scenario that somebody wrote: they rest on nothing else, and strike where it says. A settle is
    the settle, whenever a policy comes to it."""
    # A lease is renewed while work is slow, or planned to be long: then it is the first.
    slow = {(one.at.job, one.at.attempt): one.at.index for one in reversed(scenario.faults) if one.kind == "slow"}

    def work(point: Point) -> int:
        return slow.get((point.job, point.attempt), 0) if point.step == "renew" else point.index

    return tuple(Inference(fault, "as it is written", (), work(fault.at), written=True) for fault in scenario.faults)


def where(point: Point) -> str:
    """A moment in words: "in the middle of write 1 of pay-2, attempt 1"."""
    # People count from one; a scenario's own index counts from zero.
    counted = point.step in ("write", "work") or (point.step == "reclaim" and point.index)
    index = f" {point.index + 1}" if counted else ""
    times: dict[str, str] = {
        "before": "before",
        "begun": "in the middle of",
        "committed": "after the commit, before the reply, of",
        "after": "after",
    }
    when = "at" if point.step == "work" else times[point.when]
    # Taking a lease back is no attempt.
    attempt = f", attempt {point.attempt}" if point.attempt else ""
    return f"{when} {point.step}{index} of {point.job}{attempt}"


def named(fault: Fault) -> str:
    """A fault in words: "the pause before write 2 of pay-2, attempt 1"."""
    words = {"kill": "the kill", "pause": "the pause", "slow": "the slow work", "db_error": "the database error"}
    return f"{words.get(fault.kind, 'the ' + fault.kind.replace('_', ' '))} {where(fault.at)}"


def told(fault: Fault) -> str:
    """A fault in words, and how long it lasts: "the pause before … until after write 1 of pay-2, attempt 2"."""
    if fault.until is not None:
        return f"{named(fault)} until {where(fault.until)}"
    lasts = fault.kind in ("pause", "slow")
    return f"{named(fault)}, {fault.at_most_ms:,} ms long" if lasts else named(fault)
