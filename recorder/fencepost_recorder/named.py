"""What is kept of each of the producers that a file or a client names: of so many by name, of all others together.

A client may name a new one with every span. A manifest that named them all could become too large to be read, and what
was recorded would be lost with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from fencepost_recorder.gaps import Gap

MAX_NAMED = 10_000
# Nobody has this name: those who have none are "unknown".
OTHERS = ""
_Key = TypeVar("_Key")


def count(told: dict[tuple[str, str], int], producer: str, kind: str, spans: int) -> None:
    """Add spans that a producer told in a log of that kind."""
    key = (producer, kind)
    if key not in told and len(told) >= MAX_NAMED:
        key = (OTHERS, kind)
    told[key] = told.get(key, 0) + spans


def note(gaps: dict[_Key, Gap], key: _Key, others: _Key, gap: Gap) -> None:
    """Keep a gap that is told once, however often it is found: under its key, or as one of anybody's."""
    if key not in gaps and len(gaps) >= MAX_NAMED:
        key, gap = others, replace(gap, producer=None, lost=None)
    gaps.setdefault(key, gap)
