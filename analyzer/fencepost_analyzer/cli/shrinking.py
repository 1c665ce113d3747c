"""`shrink`: the smallest scenario that still breaks what a recorded incident breaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, Session, session
from fencepost_analyzer.cli.scenarios import write
from fencepost_analyzer.render import bold, dim, word
from fencepost_analyzer.text import counted

if TYPE_CHECKING:
    from fencepost_runtime.scenario import Scenario


def register(app: typer.Typer) -> None:
    app.command("shrink", short_help="The smallest scenario that still breaks the same promise.")(shrink)


def shrink(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE", help="A recording, or a scenario of yours (TOML or JSON).", show_default=False
        ),
    ],
    invariant: Annotated[
        str | None,
        typer.Option(
            "--invariant", metavar="ID", help="Which must still break.  [default: the first that is violated]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to, a name in .toml.  [default: stdout]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Take away from an incident whatever its violation does not need: jobs, workers, faults, effects, waits.

    \b
      fencepost shrink latest                                  to look at
      fencepost shrink latest --invariant INV-003 --out small.toml
      fencepost run small.toml --simulate                      the smallest incident, recorded like any other

    What is left is minimal: without any one thing of it the invariant no longer breaks in the simulator, under the
    recorded seed. Judged is what is true there, not what spans could prove.
    """
    from fencepost_analyzer.lab.shrink import shrink as shrinking
    from fencepost_analyzer.scenario_file import dump

    here = session(context, recordings, as_json)
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"--out {str(out)!r}: a scenario's file is called something.toml, or nothing would run it")
    with here.out.working("reading …"):
        scenario, seed, broken, suspects = _incident(here, run, invariant, invariants, mappings)
    with here.out.working("shrinking …") as say:
        done = shrinking(
            scenario,
            seed,
            broken,
            suspects=suspects,
            invariants=invariants or (),
            progress=lambda events, tried: say(f"shrinking … {counted(events, 'event')}, {tried:,} tried"),
        )
    sizes = f"{done.events_before:,} → {counted(done.events, 'event')}"
    told = f"The smallest scenario that is left of {run} and breaks {broken}: {sizes}."
    content = dump(done.scenario, seed=seed, comments=[told])
    if out is not None:
        write(out, content, force=force)
    if here.out.as_json:
        facts = {"invariant": broken, "events_before": done.events_before, "events": done.events, "tried": done.tried}
        file = str(out) if out is not None else None
        here.out.document({**facts, "seed": seed, "scenario": done.scenario.to_dict(), "file": file, "toml": content})
    elif out is None:
        here.out.raw(content)
    else:
        here.out.line("wrote ", bold(out), f": {broken} still breaks, {sizes}")
        here.out.line(dim(f"{counted(done.tried, 'scenario')} tried"))
        here.out.next_steps(f"run {word(out)} --simulate", f"run {word(out)}")
    return 0


def _incident(
    here: Session, run: str, invariant: str | None, invariants: list[Path] | None, mappings: list[Path] | None
) -> tuple[Scenario, int, str, list[str]]:
    """The scenario, its seed, the invariant that must still break, and the jobs that its witnesses name."""
    from fencepost_analyzer.lab.shrink import broken_by
    from fencepost_analyzer.retelling import retell
    from fencepost_analyzer.scenario_file import load

    if Path(run).suffix in (".toml", ".json"):
        scenario, seed = load(Path(run))
        named = invariant or next(iter(broken_by(scenario, seed, invariants or ())), None)
        suspects = []
    else:
        with here.case(run, invariants, mappings) as case:
            told, report = retell(case), case.report
        scenario, seed = told.scenario, told.seed
        named = invariant or next(iter(report.violated), None)
        found = next((one for one in report.findings if one.id == named), None)
        suspects = [witness.job_id for witness in found.witnesses if witness.job_id] if found is not None else []
    if named is None:
        raise UsageError(f"{run} violates nothing: there is nothing to shrink; `fencepost explore` looks further")
    known = {job.id for job in scenario.jobs}
    return scenario, seed, named, [job for job in suspects if job in known]
