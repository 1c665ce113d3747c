"""Why a fork's verdicts are other than the recording's: where the history of the job concerned parts from the recorded.

Who took a job and how long a lease lasts differ between any two schedules and policies, so they part no histories: a
job's events are compared for what was done and what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fencepost_analyzer.canonical import FIELDS, Canonical, Entry
from fencepost_analyzer.verdicts import Finding, Report, Verdict

_AT = {name: place for place, name in enumerate(FIELDS)}
_ASIDE = ("actor", "length", "queue")
_DONE = {
    "enqueue": "the enqueue",
    "lease": "the lease of",
    "write": "the write",
    "renew": "the renewal of",
    "ack": "the acknowledgement of",
    "retry": "giving back",
    "dead_letter": "burying the job after",
    "reclaim": "taking back the lease of",
    "inventory": "the inventory",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One invariant whose verdict changed, from `recorded` to `replayed`; `job`, and `event`, counted from 1, at which
    the job's replayed history parts from the recorded one; `sentence` says how. Both are None if no job is named, and
    `event` is if the two histories are the same but for their times and who did what."""

    invariant: str
    recorded: Verdict
    replayed: Verdict
    job: str | None
    event: int | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "invariant": self.invariant,
            "recorded": self.recorded,
            "replayed": self.replayed,
            "job": self.job,
            "event": self.event,
            "sentence": self.sentence,
        }


def changes(before: Report, after: Report, recorded: Canonical, replayed: Canonical) -> tuple[Change, ...]:
    """One for each invariant that is violated in the recording and not in the replay, or the other way round."""
    known = {finding.id: finding for finding in after.findings}
    return tuple(
        _change(one, known[one.id], recorded, replayed)
        for one in before.findings
        if one.id in known and (one.verdict == "violated") != (known[one.id].verdict == "violated")
    )


def _change(before: Finding, after: Finding, recorded: Canonical, replayed: Canonical) -> Change:
    """Told of the first witness's job whose histories part, else of the first one's."""
    broken = before if before.verdict == "violated" else after
    jobs = list(dict.fromkeys(one.job_id for one in broken.witnesses if one.job_id is not None))
    found = [(job, _parting(_story(recorded, job), _story(replayed, job))) for job in jobs]
    parted = next(((job, parting) for job, parting in found if parting is not None), None)
    if parted is not None:
        job, (place, said) = parted
        sentence = f"{before.id}, job {job}: {said}."
        return Change(before.id, before.verdict, after.verdict, job, place + 1, sentence)
    if not jobs:
        sentence = f"{before.id}: its witnesses name no job."
        return Change(before.id, before.verdict, after.verdict, None, None, sentence)
    sentence = f"{before.id}, job {jobs[0]}: the same was done in the same order; only times, or who did it, differ."
    return Change(before.id, before.verdict, after.verdict, jobs[0], None, sentence)


def _story(history: Canonical, job: str) -> Sequence[Entry]:
    return history.projections.get(("job", job), ())


def _parting(recorded: Sequence[Entry], replayed: Sequence[Entry]) -> tuple[int, str] | None:
    """The place at which two stories of a job first differ in what was done, and how they do."""
    for place in range(max(len(recorded), len(replayed))):
        one = recorded[place] if place < len(recorded) else None
        other = replayed[place] if place < len(replayed) else None
        if _core(one) != _core(other):
            return place, _words(one, other) + "".join(_longer(recorded[:place], replayed[:place]))
    return None


def _core(entry: Entry | None) -> Entry | None:
    return None if entry is None else tuple(v for name, v in zip(FIELDS, entry, strict=True) if name not in _ASIDE)


def _words(recorded: Entry | None, replayed: Entry | None) -> str:
    if replayed is None:
        return f"nothing more was done for the job, where the recording has {_what(recorded)} {_how(recorded)}"
    if recorded is None:
        return f"{_what(replayed)} was {_how(replayed)}, where the recording has nothing more"
    if _what(recorded) == _what(replayed):
        if _how(recorded) == _how(replayed):
            fields = [name for name, one, other in zip(FIELDS, recorded, replayed, strict=True) if one != other]
            return f"{_what(replayed)} has another {' and '.join(name for name in fields if name not in _ASIDE)}"
        return f"{_what(replayed)} was {_how(replayed)}, where the recording has it {_how(recorded)}"
    return f"{_what(replayed)} was {_how(replayed)}, where the recording has {_what(recorded)} {_how(recorded)}"


def _what(entry: Entry | None) -> str:
    """The step: "the write pay-2/credit of attempt 1"."""
    if entry is None:
        return "nothing"
    event, attempt, effect = (entry[_AT[name]] for name in ("event", "attempt", "effect"))
    name = _DONE.get(event, str(event))
    if event in ("enqueue", "inventory"):
        return name
    lease = entry[_AT["lease"]]
    which = f"attempt {attempt}" if attempt else f"lease {lease}" if lease else "the job"
    if event == "reclaim":
        return f"taking back {which}"
    return f"{name} {effect} of {which}" if effect is not None else f"{name} {which}"


def _how(entry: Entry | None) -> str:
    """What came of it: "applied", "refused (fenced)", "never answered"."""
    if entry is None:
        return ""
    event, outcome, reason = (entry[_AT[name]] for name in ("event", "outcome", "reason"))
    why = f" ({reason})" if reason else ""
    if outcome == "ok":
        return ("applied" if event == "write" else "accepted" if event in ("ack", "renew") else "done") + why
    return ("refused" if outcome == "failed" else "never answered") + why


def _longer(recorded: Sequence[Entry], replayed: Sequence[Entry]) -> Iterator[str]:
    """That leases were granted for another time before the stories part: that may be all that made them part."""
    for one, other in zip(recorded, replayed, strict=True):
        before, after = (entry[_AT["length"]] for entry in (one, other))
        if one[_AT["event"]] == "lease" and before != after and before is not None and after is not None:
            yield f" (its lease was granted for {after // 1_000_000:,} ms instead of {before // 1_000_000:,} ms)"
            return
