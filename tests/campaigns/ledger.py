"""What was acknowledged, written down outside of the folder that crashes, by whoever was told.

A line a fact, by one write(2) each, so that it survives the death of its writer between any two operations.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fact:
    """An acknowledgement: after how many operations it came, and of what.

    `kind` is start or end (of span `first`), request (of `count` spans from `first` on), staged or sealed.
    """

    operations: int
    kind: str
    first: int = 0
    count: int = 1


class Ledger:
    """Appends facts to a file. `clock` tells how many operations there were."""

    def __init__(self, path: Path, clock: Callable[[], int] = lambda: 0) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._clock = clock

    def note(self, kind: str, first: int = 0, count: int = 1) -> None:
        """Write down that this was acknowledged."""
        os.write(self._fd, json.dumps([self._clock(), kind, first, count]).encode() + b"\n")


def facts(path: Path, until: int | None = None) -> Iterator[Fact]:
    """What a ledger says; only what was acknowledged within so many operations."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        fact = Fact(*json.loads(line))
        if until is None or fact.operations <= until:
            yield fact
