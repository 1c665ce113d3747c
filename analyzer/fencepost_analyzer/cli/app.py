"""The command line's root: what comes before a command, and where each command lives."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fencepost_analyzer.cli import (
    advising,
    catalogue,
    comparing,
    demo,
    exploring,
    exporting,
    judging,
    postmortems,
    recording,
    recordings,
    regressing,
    replaying,
    scenarios,
    showing,
    shrinking,
)
from fencepost_analyzer.cli.options import Globals
from fencepost_analyzer.cli.strict import StrictTyper
from fencepost_analyzer.version import __version__

HELP = """\
A flight recorder and crash lab for job queues.

\b
  fencepost demo                  a crash, the proof, the policy that heals it: the whole story
  fencepost run FM-003            break a queue on purpose, on real processes, and record it
  fencepost record -- COMMAND     run your own workers, and record them and all that befalls them
  fencepost list                  what has been recorded
  fencepost show latest           what happened, job by job
  fencepost check latest          which promises were broken, and the witnesses
  fencepost query latest "SELECT event, count(*) FROM events GROUP BY ALL"
  fencepost replay latest         the same history again, from the recording alone
  fencepost replay latest --policy safe        the same incident under another policy
  fencepost scenario latest       the incident as a file, to edit and run again
  fencepost shrink latest         the smallest scenario that still breaks the same promise
  fencepost explore latest --policy safe       what else could have happened, every schedule within a bound
  fencepost matrix latest         the incident under every policy: which promises hold, and at what price
  fencepost recommend latest      the weakest policy under which it cannot happen again, and why
  fencepost regression latest --policy safe --out test_incident.py
  fencepost postmortem new latest              the evidence, attached to a postmortem
  fencepost import spans.jsonl.gz              traces from elsewhere (OTLP JSON lines or protobuf)
  fencepost export latest                      traces for elsewhere (OTLP, Perfetto)

RUN is a recording's id, a path to it, or `latest`. Results go to stdout, progress and errors to stderr.

\b
Exit codes:
  0    holds; or what was asked for is done
  1    violated; or the evidence does not stand
  2    it could not be done: the sentence on stderr says why, and the way out
  3    unknown: the recording cannot tell, and the verdict says what is missing
  130  interrupted
  143  ended by SIGTERM
"""

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def build() -> typer.Typer:
    app = StrictTyper(help=HELP, add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
    app.callback(invoke_without_command=True)(root)
    app.command("demo", short_help="The whole story, in a few seconds.")(demo.demo)
    recordings.register(app)
    recording.register(app)
    showing.register(app)
    judging.register(app)
    replaying.register(app)
    scenarios.register(app)
    exploring.register(app)
    shrinking.register(app)
    comparing.register(app)
    advising.register(app)
    regressing.register(app)
    app.add_typer(postmortems.build(), name="postmortem", short_help="The proof in a folder, beside a page for people.")
    exporting.register(app)
    catalogue.register(app)
    return app


def root(
    context: typer.Context,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder of recordings.  [default: $FENCEPOST_RECORDINGS, or ./recordings]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; every command takes this.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"fencepost {__version__}\n")
        raise typer.Exit
    context.obj = Globals(recordings, as_json)
    explain_if_bare(context)


def explain_if_bare(context: typer.Context) -> None:
    """A group without a command shows its help, on stderr: nothing was done."""
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)


def run(arguments: Sequence[str]) -> int:
    """Parses and runs one command; answers its exit code. Raises whatever goes wrong."""
    command = typer.main.get_command(build())
    try:
        with command.make_context("fencepost", list(arguments)) as context:
            code = command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return int(code or 0)
