"""Many scenarios simulated, their histories judged together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_table
from fencepost_analyzer.verdicts import Judgement
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate

# Events that are judged in one query of each invariant, more or less: memory stays bounded however many scenarios come.
BATCH = 200_000


class Judged(NamedTuple):
    """One scenario, what was violated in its history, and how many events that has."""

    scenario: Scenario
    events: int
    judgement: Judgement


def judged(
    scenarios: Iterable[Scenario], seed: int, invariants: Sequence[Path] = (), only: Collection[str] | None = None
) -> Iterator[Judged]:
    """Every scenario with its verdicts, in the order they come in. `invariants`: directories of the user's own; `only`:
    the ids to judge. Judged is what is true in the simulator, not what its spans could show.

    Raises InvariantError if an invariant cannot be judged."""
    ran: list[tuple[Scenario, int]] = []
    rows: list[dict[str, Any]] = []

    def judge() -> Iterator[Judged]:
        verdicts = judge_many(events_table(rows), extra=invariants, only=only)
        for number, (scenario, events) in enumerate(ran):
            yield Judged(scenario, events, verdicts[number])
        ran.clear()
        rows.clear()

    for scenario in scenarios:
        sink = ColumnSink(len(ran))
        simulate(scenario, sink, seed, all_told=True)
        told = sink.rows()
        ran.append((scenario, len(told)))
        rows += told
        if len(rows) >= BATCH:
            yield from judge()
    if ran:
        yield from judge()
