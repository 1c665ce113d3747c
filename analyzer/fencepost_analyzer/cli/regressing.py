"""`regression`: a shrunk incident and its recovery as a test of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.incidents import Subject, incident
from fencepost_analyzer.cli.options import AsJson, Changes, Mappings, PolicyName, Recordings, changes, session
from fencepost_analyzer.cli.scenarios import write
from fencepost_analyzer.render import bold, command, word
from fencepost_analyzer.text import counted


def register(app: typer.Typer) -> None:
    app.command("regression", short_help="A pytest file that holds an incident to its recovery.")(regression)


def regression(
    context: typer.Context,
    run: Subject,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to, a name like test_incident.py.")],
    policy: PolicyName = None,
    changed: Changes = None,
    invariant: Annotated[
        str | None,
        typer.Option("--invariant", metavar="ID", help="Which it breaks.  [default: the first that is violated]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Shrink an incident, and write a pytest file that reproduces it and asserts the recovery.

    \b
      fencepost regression latest --policy safe --out test_incident.py
      fencepost regression FM-002 --set fencing=true --set dedupe=effect_key --out test_incident.py
      pytest test_incident.py

    The file needs fencepost and pytest, and no recording. If the invariant holds within two faults of the incident,
    too, a third test asserts that. Nothing is written if the recovery does not heal: exit code 2.
    """
    from fencepost_analyzer.lab.regression import hold_elsewhere
    from fencepost_analyzer.lab.regression import regression as regressing
    from fencepost_analyzer.lab.shrink import broken_by, shrink
    from fencepost_analyzer.scenario_file import dump
    from fencepost_runtime.policy import preset

    here = session(context, recordings, as_json)
    if out.suffix != ".py":
        raise UsageError(f"--out {str(out)!r}: pytest collects files called test_something.py")
    recovery = changes(changed)
    if policy is not None:
        recovery = {**preset(policy).to_dict(), **recovery}
        del recovery["name"]
    if not recovery:
        raise UsageError("say which recovery: --policy NAME or --set FIELD=VALUE; `fencepost recommend` names some")
    with here.out.working("reading …"):
        found = incident(here, run, None, mappings)
        broken = invariant or next(iter(found.violated or broken_by(found.scenario, found.seed)), None)
    if broken is None:
        raise UsageError(f"{run} violates nothing: there is nothing to hold it to")
    with here.out.working("shrinking …"):
        done = shrink(found.scenario, found.seed, broken, suspects=found.suspects)
        made = regressing(found.name, dump(done.scenario, seed=found.seed), broken, recovery)
        # What is shrunk need not show any more where it was struck.
        hold_elsewhere(found.scenario, found.seed, found.inferences, recovery)
    write(out, made.content, force=force)
    if here.out.as_json:
        facts = {"incident": found.name, "invariant": broken, "events": done.events, "recovery": recovery}
        here.out.document({**facts, "within": made.within, "file": str(out)})
        return 0
    within = "nor within two faults of it" if made.within else "within two faults of it, it may"
    here.out.line(
        "wrote ", bold(out), f": {broken} breaks in {counted(done.events, 'event')}, not so with the recovery, {within}"
    )
    here.out.line("run it with ", command(f"pytest {word(out)}"))
    return 0
