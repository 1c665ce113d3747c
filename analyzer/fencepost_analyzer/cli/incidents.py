"""What the commands of the laboratory start from: a recording, a scenario's file, or a failure mode by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fencepost_analyzer.cli.options import Session

if TYPE_CHECKING:
    from fencepost_analyzer.inference import Inference
    from fencepost_analyzer.lab.explore import Exploration, Plan
    from fencepost_runtime.scenario import Scenario

Subject = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE|FM-001",
        help="A recording, a scenario of yours (TOML or JSON), or a failure mode.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, max=256, help="Processes.  [default: one a core]")
]
Faults = Annotated[int, typer.Option("--faults", min=0, max=4, help="Faults in one schedule, in all.")]
Crashes = Annotated[int, typer.Option("--crashes", min=0, max=4, help="Crashes among them.")]
Pauses = Annotated[int, typer.Option("--pauses", min=0, max=4, help="Pauses and slow work among them.")]
Losses = Annotated[int, typer.Option("--losses", min=0, max=4, help="Lost replies and database errors among them.")]


@dataclass(frozen=True, slots=True)
class Incident:
    """`recorded`: whether it is a recording. `inferences`: its faults, each with where else it may strike; `violated`:
    what a recording proves broken; `suspects`: the jobs that its witnesses name; `notes`: what the scenario lacks of
    the recording, as clauses."""

    name: str
    recorded: bool
    scenario: Scenario
    seed: int
    inferences: tuple[Inference, ...]
    violated: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def incident(
    here: Session, subject: str, invariants: list[Path] | None = None, mappings: list[Path] | None = None
) -> Incident:
    """What a command was asked about. Raises as opening a recording, a file or a failure mode does."""
    from fencepost_analyzer.catalogue import failure_mode
    from fencepost_analyzer.inference import as_written
    from fencepost_analyzer.retelling import retell
    from fencepost_analyzer.scenario_file import load

    if Path(subject).suffix in (".toml", ".json"):
        scenario, seed = load(Path(subject))
        return Incident(Path(subject).stem, False, scenario, seed, as_written(scenario))
    if subject.upper().startswith("FM-"):
        mode = failure_mode(subject)
        return Incident(mode.id, False, mode.scenario, 1, as_written(mode.scenario))
    with here.case(subject, invariants, mappings) as case:
        told, report = retell(case), case.report
    jobs = {job.id for job in told.scenario.jobs}
    broken = [finding for finding in report.findings if finding.verdict == "violated"]
    suspects = dict.fromkeys(one.job_id for finding in broken for one in finding.witnesses if one.job_id in jobs)
    return Incident(
        case.recording.id,
        True,
        told.scenario,
        told.seed,
        told.found.inferences,
        report.violated,
        tuple(job for job in suspects if job is not None),
        (*told.found.unplaced, *told.cut_off),
    )


@contextmanager
def exploring(workers: int) -> Iterator[Callable[[Sequence[Plan]], Iterable[Exploration]]]:
    """Explores plans, a process to each."""
    from fencepost_analyzer.lab.explore import explore
    from fencepost_analyzer.lab.processes import processes
    from fencepost_analyzer.lab.search import one_by_one

    if workers <= 1:
        yield one_by_one
        return
    with processes(workers) as pool:
        yield lambda plans: pool.map(explore, plans)


def cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
