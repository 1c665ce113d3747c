"""Verdicts and what carries them: witness, finding, report. Plain data, and the rules that merge it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["holds", "violated", "unknown"]

# Violated wins over unknown, unknown over holds.
_RANK: dict[str, int] = {"holds": 0, "unknown": 1, "violated": 2}
_EXIT_CODES: dict[str, int] = {"holds": 0, "violated": 1, "unknown": 3}

SPAN_NAMES = {
    "enqueue": "send {queue}",
    "lease": "receive {queue}",
    "run": "process {queue}",
    "renew": "renew {queue}",
    "write": "write {effect}",
    "ack": "settle {queue}",
    "fail": "settle {queue}",
    "dead_letter": "settle {queue}",
    "retry": "retry {queue}",
    "reclaim": "reclaim {queue}",
    "inventory": "inventory {queue}",
}
"""Which span tells of which event; other events are told by a span of their own name."""

_ATTRIBUTES = {
    "job_id": "messaging.message.id",
    "token": "job.lease.token",
    "until": "job.lease.expires_at",
    "effect_key": "job.effect.key",
    "effect_total": "job.effects.total",
    "position": "job.transaction.position",
    "attempt": "job.attempt",
    "intent": "job.intent",
    "order_key": "job.order_key",
    "answered": "job.settle.accepted",
}


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """Violated > unknown > holds; of nothing at all nothing is known."""
    return max(verdicts, key=_RANK.__getitem__, default="unknown")


def exit_code(verdict: Verdict) -> int:
    """0 holds, 1 violated, 3 unknown (2 is for usage errors)."""
    return _EXIT_CODES[verdict]


def span_needed(event: str, column: str | None = None) -> str:
    """The span that would tell of `event`, in words: "`write {effect}` with `job.effect.key`"."""
    name = f"`{SPAN_NAMES.get(event, event)}`"
    return name if column is None else f"{name} with `{_ATTRIBUTES.get(column, column)}`"


@dataclass(frozen=True)
class Witness:
    """One offending case. `at` is Unix nanoseconds; texts are raw and untrusted: escape them where they are shown."""

    verdict: Verdict
    job_id: str | None
    at: int | None
    span_ids: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "span_ids": list(self.span_ids)}


@dataclass(frozen=True)
class Finding:
    """What one invariant says of a recording. `witnesses` are bounded, shortest first; `violations` and `unknowns`
    count all cases. `reason` is one sentence; `missing` names the spans that a verdict would need; `sql` is the
    query that found it, which `query` runs as it is."""

    id: str
    title: str
    severity: str
    principle: str
    polarity: str
    verdict: Verdict
    violations: int = 0
    unknowns: int = 0
    witnesses: tuple[Witness, ...] = ()
    reason: str = ""
    missing: tuple[str, ...] = ()
    sql: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "witnesses": [witness.to_dict() for witness in self.witnesses],
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class Report:
    """All findings of one recording, by id. `unmapped` are its instrumentation scopes that no mapping knows."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    events: int
    jobs: int
    gaps: int
    unmapped: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 holds, 1 violated, 3 unknown."""
        return exit_code(self.verdict)

    @property
    def violated(self) -> tuple[str, ...]:
        """The ids of the invariants that are violated."""
        return tuple(finding.id for finding in self.findings if finding.verdict == "violated")

    def finding(self, invariant_id: str) -> Finding:
        """The finding of one invariant. Raises KeyError when it was not judged."""
        for finding in self.findings:
            if finding.id == invariant_id:
                return finding
        raise KeyError(invariant_id)

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "events": self.events,
            "jobs": self.jobs,
            "gaps": self.gaps,
            "unmapped": list(self.unmapped),
            "violated": list(self.violated),
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True)
class Judgement:
    """What became of one schedule among many. `vacuous` are the unknown ones that had nothing to judge: the schedule
    has no event that the invariant needs. The other unknown ones are real doubts. `overdue`: the schedule was cut off
    by its time, so that nobody knows what it would have violated later."""

    violated: tuple[str, ...]
    unknown: tuple[str, ...]
    vacuous: tuple[str, ...]
    overdue: bool = False
