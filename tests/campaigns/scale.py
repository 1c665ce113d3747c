"""How large a campaign is, and how it tells what it found: one JSON line a figure."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

VARIABLE = "FENCEPOST_CAMPAIGN_SCALE"
Figure = dict[str, Any]


def scale() -> float:
    """1.0 is the size that the promises are shown at; a sample is smaller."""
    return float(os.environ.get(VARIABLE, "1.0"))


def scaled(full: int, least: int = 1) -> int:
    """So many of `full` at the present scale."""
    return max(least, round(full * scale()))


def figure(name: str, value: Any, unit: str, **more: Any) -> Figure:
    """One figure; what must be zero is called `lost`, `doubled`, `wrong`, `failed` or `missed`."""
    return {"figure": name, "value": value, "unit": unit, **more}


def not_run(name: str, why: str) -> Figure:
    """A campaign that this machine cannot run says so: it must not look as if it had passed."""
    return {"figure": name, "not run": why}


MUST_BE_ZERO = ("lost", "doubled", "wrong", "failed", "missed")


def failures(figures: Iterable[Figure]) -> list[Figure]:
    """The figures in which something is not zero that must be."""
    return [one for one in figures if any(one.get(name) for name in MUST_BE_ZERO)]


def told(figures: Iterator[Figure]) -> list[Figure]:
    """Print each figure as it comes; all of them."""
    found = []
    for one in figures:
        sys.stdout.write(json.dumps(one) + "\n")
        sys.stdout.flush()
        found.append(one)
    return found
