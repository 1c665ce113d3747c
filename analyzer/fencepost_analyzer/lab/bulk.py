"""Many scenarios simulated, their histories judged together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fencepost_analyzer.lab.histories import Histories
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
    histories = Histories()

    def judge() -> Iterator[Judged]:
        for (scenario, events), judgement in zip(ran, histories.judge(invariants, only), strict=True):
            yield Judged(scenario, events, judgement)
        ran.clear()

    for scenario in scenarios:
        sink = ColumnSink()
        overdue = simulate(scenario, sink, seed, all_told=True).overdue
        ran.append((scenario, histories.add(sink, overdue=overdue)))
        if histories.events >= BATCH:
            yield from judge()
    yield from judge()
