"""Simulated histories on their way to be judged, all of them in one query of each invariant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_of
from fencepost_analyzer.verdicts import Judgement
from fencepost_runtime.columns import ColumnSink

# What the ids of goals begin with.
GOAL = "GOAL-"
# Rows are kept as Python's values until there are so many, then as columns, a tenth as large.
_ROWS = 50_000


class Histories:
    """Takes histories one by one and judges them together. `events`: how many are in them."""

    def __init__(self) -> None:
        self.events = 0
        self._unfinished = set[int]()
        self._taken = 0
        self._records: list[tuple[Any, ...]] = []
        self._tables: list[pa.Table] = []

    def __len__(self) -> int:
        return self._taken

    def add(self, sink: ColumnSink, *, overdue: bool = False) -> int:
        """Take what a sink was told, as the next history; how many events that is. `overdue`: it ended because its time
        was up, so that nobody knows whether a goal would have been reached."""
        sink.schedule = self._taken
        if overdue:
            self._unfinished.add(self._taken)
        records = sink.records()
        self._taken += 1
        self.events += len(records)
        self._records += records
        if len(self._records) >= _ROWS:
            self._compact()
        return len(records)

    def judge(self, invariants: Sequence[Path] = (), only: Collection[str] | None = None) -> list[Judgement]:
        """The verdicts on each history, in the order in which they came; from then on there are none.

        `invariants`: directories of the user's own; `only`: the ids to judge. Raises InvariantError if an invariant
        cannot be judged."""
        self._compact()
        found = judge_many(pa.concat_tables(self._tables), extra=invariants, only=only) if self._taken else {}
        judgements = [
            _cut_off(found[number]) if number in self._unfinished else found[number] for number in range(self._taken)
        ]
        self.events = self._taken = 0
        self._tables.clear()
        self._unfinished.clear()
        return judgements

    def _compact(self) -> None:
        self._tables.append(events_of(self._records))
        self._records.clear()


def _cut_off(judgement: Judgement) -> Judgement:
    """What breaks no matter how it would have gone on; a goal that was not reached is undecided."""
    open_goals = tuple(name for name in judgement.violated if name.startswith(GOAL))
    violated = tuple(name for name in judgement.violated if name not in open_goals)
    return replace(judgement, violated=violated, unknown=(*judgement.unknown, *open_goals), overdue=True)
