"""What a recording must hold, given what was acknowledged: nothing lost, nothing doubled, nothing made up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from campaigns import spans
from campaigns.children import Outcome
from campaigns.ledger import Fact

# What every recording of a receiver says: its clients number nothing.
ALWAYS = frozenset({"unsequenced"})
# A write that was cut, or undone by a power cut, shows where the log ends.
TORN = frozenset({"torn_tail", "sequence_break"})


@dataclass
class Finding:
    """What is not as it must be, in words; all empty when all is well."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong or self.failed)

    def words(self) -> list[str]:
        """All of it."""
        return [*self.failed, *self.lost, *self.doubled, *self.wrong]


def owed(known: list[Fact]) -> list[Fact]:
    """What survives a power cut though its log does not: all that came before the last staging or sealing."""
    last = max((at for at, fact in enumerate(known) if fact.kind in ("staged", "sealed")), default=-1)
    return known[: last + 1]


def judge(
    outcome: Outcome, known: list[Fact], due: list[Fact], *, gaps: frozenset[str] = ALWAYS, unattributed: int = 0
) -> Finding:
    """Hold what a recovery gave against what was acknowledged, of which `due` must be there.

    `gaps` are the causes that may be told besides what the crash itself explains; so many spans may be
    `unattributed`, because the frame that says whose they are could not be written.
    """
    finding = Finding()
    if outcome.failed:
        if due or "there is no recording" not in outcome.refused:
            finding.failed.append(outcome.failed)
        return finding
    told = outcome.value
    for row in [one for one in told["rows"] if not (one["service_name"] and one["scope_name"])][:unattributed]:
        row.update(service_name=row["service_name"] or "campaign", scope_name=row["scope_name"] or spans.SCOPE)
    _judge_spans(finding, told["rows"], due)
    finding.wrong += [f"a gap that is none: {gap}" for gap in told["gaps"] if not _is_fair(gap, gaps, known)]
    if not (told["same"] and told["idle"]):
        finding.wrong.append("recovering it again changed it")
    files = {"gaps.parquet", "manifest.json", "spans", *(one["path"] for one in told["manifest"]["files"])}
    finding.wrong += [f"{path} was left behind" for path in told["files"] if path not in files]
    return finding


def _is_fair(gap: dict[str, Any], causes: frozenset[str], known: list[Fact]) -> bool:
    # Of a log that was killed between its making and its header nobody can know that it was empty.
    empty = gap["cause"] == "torn_tail" and gap["first_seq"] == 0 and not known
    return gap["cause"] in causes or empty


def _judge_spans(finding: Finding, rows: list[dict[str, Any]], due: list[Fact]) -> None:
    times_of = Counter(int(row["span_id"], 16) for row in rows)
    finding.doubled += [f"span {number} {times} times" for number, times in times_of.items() if times > 1]
    finding.wrong += [why for row in rows if (why := spans.wrong(row))]
    ended = {int(row["span_id"], 16) for row in rows if row["duration_time_unix_nano"] is not None}
    for fact in due:
        numbers = range(fact.first, fact.first + fact.count) if fact.kind in ("start", "end", "request") else ()
        finding.lost += [f"span {one}, acknowledged as {fact.kind}" for one in numbers if one not in times_of]
        if fact.kind != "start":
            finding.lost += [f"the end of span {one}" for one in numbers if one in times_of and one not in ended]
