"""`scenario`: what a recording comes to, as a file that can be edited, kept and run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Mappings, Recordings, Run, session
from fencepost_analyzer.render import bold, word
from fencepost_analyzer.text import counted


def register(app: typer.Typer) -> None:
    app.command("scenario", short_help="What a recording comes to, as a file to edit and run again.")(scenario)


def scenario(
    context: typer.Context,
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to, a name in .toml.  [default: stdout]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Write the scenario that a recording comes to: jobs, policies, and the faults that its spans show.

    \b
      fencepost scenario latest                       to look at
      fencepost scenario latest --out incident.toml   to edit, to keep in a repository, and to run again:
      fencepost run incident.toml --simulate

    Comments say which spans each fault was read from, what remains open about it, what is bound to no step, and how
    far the recording goes if it is cut off. Exit code 3 says that the recorded history cannot be repeated with it.
    """
    from fencepost_analyzer.retelling import retell

    here = session(context, recordings, as_json)
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"--out {str(out)!r}: a scenario's file is called something.toml, or nothing would run it")
    with here.out.working("reading …"), here.case(run, None, mappings) as case:
        told = retell(case)
    content = told.to_toml()
    if out is not None:
        write(out, content, force=force)
    if here.out.as_json:
        here.out.document({**told.to_dict(), "file": str(out) if out is not None else None, "toml": content})
    elif out is None:
        here.out.raw(content)
    else:
        faults = counted(len(told.scenario.faults), "fault")
        here.out.line("wrote ", bold(out), f": {counted(len(told.scenario.jobs), 'job')}, {faults}")
        here.out.next_steps(f"run {word(out)} --simulate", f"run {word(out)}")
    return 0 if told.explained else 3


def write(path: Path, content: str, *, force: bool) -> None:
    """Keeps a scenario's file. Raises UsageError if there is one already, unless by `force`, and OSError."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(content)
    except FileExistsError as error:
        raise UsageError(f"{path} exists: choose another name, or replace it with --force") from error
