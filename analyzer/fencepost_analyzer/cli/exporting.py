"""`export`: a recording for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Recordings, Run, session
from fencepost_analyzer.render import bold, command, word

if TYPE_CHECKING:
    from fencepost_recorder import Exported

STDOUT = "-"


def register(app: typer.Typer) -> None:
    app.command("export", short_help="Write a recording for other tools: OTLP, or Perfetto.")(export)


def export(
    context: typer.Context,
    run: Run,
    file_format: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="otlp-json, otlp (protobuf), or perfetto, which is for looking at."
        ),
    ] = "otlp-json",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.  [default: the recording's id]"),
    ] = None,
    gzip: Annotated[
        bool, typer.Option("--gzip", help="Compress it; done anyway where FILE's name ends with .gz.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Write a recording for other tools.

    \b
      fencepost export latest                         OTLP JSON lines: the Collector, Jaeger, Tempo, fencepost import
      fencepost export latest --format otlp --gzip    the same as length-delimited protobuf, compressed
      fencepost export latest --format perfetto       open it in ui.perfetto.dev, or in chrome://tracing
      fencepost export latest -o - | head -1

    Every hash of the recording is checked before anything is written. Spans that never ended, producers and known gaps
    go along as `fencepost.*` attributes; what an import cannot get back is that nothing else is missing.
    """
    from fencepost_recorder import EXPORT_FORMATS, export_recording

    here = session(context, recordings, as_json)
    made = here.open(run)
    if output == STDOUT:
        _check_stdout(here.out.as_json, binary=gzip or file_format == "otlp")
        export_recording(made, sys.stdout.buffer, file_format, gzip=gzip)
        return 0
    compressed = gzip or (output or "").endswith(".gz")
    name = f"{made.id}{EXPORT_FORMATS.get(file_format, '')}" + (".gz" if compressed else "")
    target = Path(name if output is None else output)
    with here.out.working(f"exporting {made.id} …"):
        done = export_recording(made, target, file_format, gzip=compressed, force=force)
    here.out.line("exported ", bold(made.id), f" to {target}: {_contents(done)}")
    if file_format == "perfetto":
        here.out.line("open it at ", command("https://ui.perfetto.dev"))
    else:
        here.out.next_steps(f"import {word(target)} --id again")
    if here.out.as_json:
        facts = {"recording": made.id, "file": str(target), "format": done.format, "spans": done.spans}
        here.out.document({**facts, "never_ended": done.never_ended, "bytes": done.bytes})
    return 0


def _check_stdout(as_json: bool, *, binary: bool) -> None:
    if as_json:
        raise UsageError("--json describes the file that is written: name one with --output")
    if binary and sys.stdout.isatty():
        raise UsageError("this is no text for a terminal: name a file with --output, or pipe it")
    sys.stdout.flush()


def _contents(done: Exported) -> str:
    open_ended = f", {done.never_ended:,} of them never ended" if done.never_ended else ""
    return f"{text.counted(done.spans, 'span')}{open_ended}, {text.size(done.bytes)}"
