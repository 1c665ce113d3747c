"""A large recording against its books: in a child, by columns, because there are millions of rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaigns import spans
from campaigns.apart import WentWrong, apart

from fencepost_recorder import recover

_CONSTANT = {
    "trace_id": {spans.TRACE_ID.hex()},
    "name": {"write pay-1/debit"},
    "kind": {3},
    "scope_name": {spans.SCOPE},
    "service_name": {"campaign"},
}
# A kill can end a write(2) between two pages: half of a frame that nobody was promised.
_FAIR_GAPS = {"unsequenced", "torn_tail"}


@dataclass
class Found:
    """What is not as it must be, counted in spans, and the first words."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    failed: int = 0
    words: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add another recording's."""
        for name in ("lost", "doubled", "wrong", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.words = (self.words + other.words)[:5]

    def figures(self) -> dict[str, object]:
        """For a JSON line."""
        return {**asdict(self), "words": self.words}


def judged(directory: Path, started: list[range], ended: list[range]) -> Found:
    """Recover a recording and hold it against the spans whose start, and whose end, was acknowledged."""
    try:
        return apart(lambda: _judged(directory, started, ended))
    except WentWrong as error:
        return Found(failed=1, words=[str(error)])


def _judged(directory: Path, started: list[range], ended: list[range]) -> Found:
    found = Found()
    recording = recover(directory, tool_version="0.0.campaign")
    rows = recording.spans()
    for name, values in _CONSTANT.items():
        other = set(rows[name].unique().to_pylist()) - values
        if other and rows.num_rows:
            found.wrong += len(other)
            found.words.append(f"{name} is {sorted(map(str, other))[:3]}")
    for text in rows["span_attributes"].unique().to_pylist():
        found.wrong += json.loads(text) != spans.ATTRIBUTES
    numbers = [int(one, 16) for one in rows["span_id"].to_pylist()]
    there = set(numbers)
    found.doubled = len(numbers) - len(there)
    open_ones = {
        number
        for number, duration in zip(numbers, rows["duration_time_unix_nano"].is_null().to_pylist(), strict=True)
        if duration
    }
    missing = [one for numbers in started for one in numbers if one not in there]
    missing += [one for numbers in ended for one in numbers if one in open_ones]
    found.lost = len(missing)
    found.words += [f"span {one} is missing, or its end" for one in missing[:2]]
    unfair = [gap for gap in recording.gaps().to_pylist() if gap["cause"] not in _FAIR_GAPS]
    found.wrong += len(unfair)
    found.words += [f"a gap that is none: {gap}" for gap in unfair[:2]]
    return found
