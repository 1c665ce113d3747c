"""`shrink`: the smallest scenario that still breaks what a recorded incident breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.incidents import Subject, incident
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, session
from fencepost_analyzer.cli.scenarios import write
from fencepost_analyzer.render import bold, dim, word
from fencepost_analyzer.text import counted


def register(app: typer.Typer) -> None:
    app.command("shrink", short_help="The smallest scenario that still breaks the same promise.")(shrink)


def shrink(
    context: typer.Context,
    run: Subject,
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
    from fencepost_analyzer.lab.shrink import broken_by
    from fencepost_analyzer.lab.shrink import shrink as shrinking
    from fencepost_analyzer.scenario_file import dump

    here = session(context, recordings, as_json)
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"--out {str(out)!r}: a scenario's file is called something.toml, or nothing would run it")
    with here.out.working("reading …"):
        found = incident(here, run, invariants, mappings)
        broken = invariant or next(
            iter(found.violated or broken_by(found.scenario, found.seed, invariants or ())), None
        )
        if broken is None:
            raise UsageError(f"{run} violates nothing: there is nothing to shrink; `fencepost explore` looks further")
    with here.out.working("shrinking …") as say:
        done = shrinking(
            found.scenario,
            found.seed,
            broken,
            suspects=found.suspects,
            invariants=invariants or (),
            progress=lambda events, tried: say(f"shrinking … {counted(events, 'event')}, {tried:,} tried"),
        )
    sizes = f"{done.events_before:,} → {counted(done.events, 'event')}"
    told = f"The smallest scenario that is left of {run} and breaks {broken}: {sizes}."
    content = dump(done.scenario, seed=found.seed, comments=[told])
    if out is not None:
        write(out, content, force=force)
    if here.out.as_json:
        facts = {"invariant": broken, "events_before": done.events_before, "events": done.events, "tried": done.tried}
        file = str(out) if out is not None else None
        here.out.document(
            {**facts, "seed": found.seed, "scenario": done.scenario.to_dict(), "file": file, "toml": content}
        )
    elif out is None:
        here.out.raw(content)
    else:
        here.out.line("wrote ", bold(out), f": {broken} still breaks, {sizes}")
        here.out.line(dim(f"{counted(done.tried, 'scenario')} tried"))
        here.out.next_steps(f"run {word(out)} --simulate", f"run {word(out)}")
    return 0
