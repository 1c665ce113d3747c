"""`check` and `query`: which promises a recording broke, and whatever else SQL can say of it."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, Run, own_sql, session
from fencepost_analyzer.render import Column, Output, Part, dim, word
from fencepost_analyzer.reports import print_report

if TYPE_CHECKING:
    import pyarrow as pa

    from fencepost_analyzer.verdicts import Report
    from fencepost_recorder import Recording

MAX_SQL_BYTES = 100_000
_BARE_AT = re.compile(r"(?<![\w.\"])at(?![\w\"])", re.IGNORECASE)


class Format(enum.StrEnum):
    """How `query` prints rows."""

    table = "table"
    csv = "csv"
    json = "json"


def register(app: typer.Typer) -> None:
    app.command("check", short_help="Which promises were broken, and by what.")(check)
    app.command("query", short_help="Ask a recording anything, in SQL.")(query)


def check(
    context: typer.Context,
    run: Run,
    invariants: Invariants = None,
    mappings: Mappings = None,
    witnesses: Annotated[
        int, typer.Option("--witnesses", metavar="N", min=0, max=10, help="How many witnesses to print of each.")
    ] = 3,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Judge a recording: which promises hold, which were broken and by what, and what cannot be told.

    \b
      fencepost check latest
      fencepost check latest --witnesses 10
      fencepost check latest --invariants ./invariants
      fencepost check latest --json | jq .violated

    Exit code 0: all hold. 1: at least one is violated. 3: none is violated, but at least one is unknown, because
    spans are missing; the verdict names them.
    """
    here = session(context, recordings, as_json)
    with here.out.working("judging …"), here.case(run, invariants, mappings) as case:
        report, replayable = case.report, case.announced is not None
    if here.out.as_json:
        here.out.document({"recording": case.recording.id, **report.to_dict()})
    else:
        print_report(here.out, report, case.recording.id, witnesses)
        _suggest(here.out, report, run, own_sql(invariants, mappings), replayable=replayable)
    return report.exit_code


def query(
    context: typer.Context,
    run: Run,
    sql: Annotated[
        str | None,
        typer.Argument(metavar='"SELECT …"', help="One SELECT, in DuckDB's SQL.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE.sql", help="Read the SELECT from a file; - is stdin.")
    ] = None,
    output_format: Annotated[
        Format | None, typer.Option("--format", help="table on a terminal, csv in a pipe, if not said.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1_000_000, help="At most N rows.")] = 1_000,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=3_600, help="Stop after this many seconds.")
    ] = 30,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Ask a recording anything, in SQL. It only reads, in a process of its own, with no access to files.

    \b
      fencepost query latest "SELECT event, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC"
      fencepost query latest "SELECT * FROM events WHERE job_id = 'pay-2' ORDER BY position" --format csv
      fencepost query latest --file postmortems/001-double-charge/evidence/queries/INV-001.sql

    \b
    Tables:  spans    one row a span; times in Unix nanoseconds, attributes as JSON text
             gaps     what is known to be missing
             events   what the spans mean: event, job_id, worker_id, at, outcome, ...
    Views:   jobs, leases, steps, effects ...: `SHOW TABLES` lists them, `DESCRIBE events` the columns
    Note:    the column "at" is written in quotes, for AT is a word of SQL

    Rows beyond --limit are cut, and stderr says so. CSV escapes what is not printable; JSON keeps every character.
    """
    from fencepost_analyzer.query import is_cut

    here = session(context, recordings, as_json)
    statement = _statement(sql, file)
    shape = Format.json if here.out.as_json else output_format or (Format.table if here.out.terminal else Format.csv)
    here.out.as_json = shape is Format.json
    with here.out.working("asking …"):
        table = _ask(here.open(run), statement, timeout_s, limit, mappings or ())
    cut = is_cut(table)
    names = _distinct(table.column_names)
    if shape is Format.json:
        rows = [dict(zip(names, row, strict=True)) for row in _rows(table)]
        here.out.document({"columns": names, "rows": rows, "cut": cut})
    elif shape is Format.csv:
        here.out.separated(names, _rows(table))
    else:
        print_rows(here.out, names, table)
    if cut:
        here.out.note(f"only the first {text.counted(table.num_rows, 'row')}: --limit N gives more")
    return 0


def print_rows(out: Output, names: Sequence[str], table: pa.Table) -> None:
    """An answer as a table of text; null is shown as NULL, so that it is not taken for an empty text."""
    import pyarrow as pa

    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    columns = [
        Column(name, right=any(is_kind(kind) for is_kind in numeric))
        for name, kind in zip(names, table.schema.types, strict=True)
    ]
    out.table(columns, ([_cell(value) for value in row] for row in _rows(table)))
    out.line(dim(f"({text.counted(table.num_rows, 'row')})"))


def _suggest(out: Output, report: Report, run: str, own: str, *, replayable: bool) -> None:
    if report.verdict == "violated":
        out.blank()
        job = next((one.job_id for found in report.findings for one in found.witnesses if one.job_id), None)
        ref = word(run)
        shown = f"show {ref}" + (f" --job {word(job)}" if job is not None else "") + own
        replay = [f"replay {ref} --policy safe{own}"] if replayable else []
        out.next_steps(shown, *replay, f"postmortem new {ref}{own}")


def _ask(recording: Recording, sql: str, timeout_s: float, limit_rows: int, mappings: Sequence[Path]) -> pa.Table:
    from fencepost_analyzer import query as querying
    from fencepost_analyzer.errors import QueryError

    try:
        return querying.query(recording, sql, timeout_s=timeout_s, limit_rows=limit_rows, mappings=mappings)
    except QueryError as error:
        # DuckDB has a clause AT, and complains of the word that follows.
        if "syntax error" in str(error) and _BARE_AT.search(sql):
            raise UsageError(f'{error}; the column at must be quoted: "at"') from error
        raise


def _statement(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        raise UsageError('give one SELECT, as text or by --file: fencepost query latest "SELECT * FROM events LIMIT 5"')
    if file is None:
        return sql or ""
    if str(file) == "-":
        import sys

        return sys.stdin.read(MAX_SQL_BYTES + 1)
    with file.open("rb") as stream:
        return stream.read(MAX_SQL_BYTES + 1).decode("utf-8", "replace")


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else []


def _distinct(names: Sequence[str]) -> list[str]:
    """Column names as they are, the second of the same name with `_2`, so that none hides another."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def _cell(value: object) -> Part:
    return dim("NULL") if value is None else str(value)
