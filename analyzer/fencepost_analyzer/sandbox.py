"""The process behind `query`: reads tables from stdin, answers one SELECT on stdout, and can do little else.

Protocol: a line of JSON, then two Arrow streams (spans, gaps); the answer is "table", a line feed and an Arrow
stream, or "error", a line feed and one sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import threading
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa

from fencepost_analyzer.check import opened
from fencepost_analyzer.errors import AnalyzerError

CUT = b"fencepost.cut"
TOO_LARGE = "The query needs more memory than it may use: select fewer columns or rows, or filter first."
TOO_LONG = "The query took longer than {:g} s and was stopped: filter or aggregate more, or allow more time."

# What interpreter, Arrow, DuckDB and their threads map beside the query's own memory.
_BASE_BYTES = 4_000_000_000

_FAMILY = re.compile(r"^(?:[A-Z][A-Za-z/]+ )*Error: ")


class _Received:
    """The recording as it came through the pipe."""

    id = ""

    def __init__(self, spans: pa.Table, gaps: pa.Table) -> None:
        self._spans, self._gaps = spans, gaps

    def spans(self) -> pa.Table:
        return self._spans

    def gaps(self) -> pa.Table:
        return self._gaps


def main() -> None:
    """Answers one request. The answer goes to a private copy of stdout, so that nothing else can write into it."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    source = sys.stdin.buffer
    request = json.loads(source.readline())
    _limit(request["memory_bytes"])
    try:
        table = _answer(request, _Received(_read(source), _read(source)))
    except MemoryError:
        answer.write(b"error\n" + TOO_LARGE.encode())
    except Exception as error:  # Whatever it is: a silent end would be taken for a lack of memory.
        answer.write(b"error\n" + _sentence(error, request["timeout_s"]).encode("utf-8", "replace"))
    else:
        answer.write(b"table\n")
        with pa.ipc.new_stream(answer, table.schema) as writer:
            writer.write_table(table)
    answer.flush()


def _limit(memory_bytes: int) -> None:
    """No core dumps, no files, and not much more memory than DuckDB is allowed."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_AS: memory_bytes + _BASE_BYTES,
    }
    for what, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # A lower hard limit than ours is as good.
            resource.setrlimit(what, (most, most))


def _read(source: IO[bytes]) -> pa.Table:
    return pa.ipc.open_stream(source).read_all()


def _answer(request: dict[str, Any], recording: _Received) -> pa.Table:
    megabytes = max(1, request["memory_bytes"] // 1_000_000)
    mappings = [Path(path) for path in request["mappings"]]
    with opened(recording, mappings=mappings, memory_limit=f"{megabytes}MB") as (connection, _):
        alarm = threading.Timer(request["timeout_s"], connection.interrupt)
        alarm.daemon = True
        alarm.start()
        try:
            return _select(connection, request["sql"], request["limit_rows"])
        finally:
            alarm.cancel()


def _select(connection: duckdb.DuckDBPyConnection, sql: str, limit_rows: int) -> pa.Table:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise AnalyzerError(f"A query is exactly one SELECT; this is {len(statements)} statements.")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise AnalyzerError(f"A query only reads: {kind.name} is not allowed, only SELECT is.")
    # What hides in a WITH or behind EXPLAIN ANALYZE would change this process's copy, and its own answer.
    connection.execute("BEGIN TRANSACTION READ ONLY")
    reader: pa.RecordBatchReader = connection.execute(statements[0]).to_arrow_reader(min(limit_rows + 1, 10_000))
    batches: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > limit_rows:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, limit_rows)
    return table.replace_schema_metadata({CUT: b"true" if rows > limit_rows else b"false"})


def _sentence(error: Exception, timeout_s: float) -> str:
    """DuckDB's message boiled down: what is wrong, the nearest name, and the place if it fits on a line."""
    if isinstance(error, duckdb.InterruptException):
        return TOO_LONG.format(timeout_s)
    if isinstance(error, duckdb.OutOfMemoryException):
        return TOO_LARGE
    if isinstance(error, duckdb.TransactionException) and "read-only" in str(error):
        return "A query only reads: this one changes tables inside, only SELECT is allowed."
    lines = [line.strip() for line in str(error).splitlines()]
    place = next((line for line in lines if line.startswith("LINE ")), "")
    said = [line for line in lines if line and not line.startswith(("LINE ", "^"))]
    text = " ".join([_FAMILY.sub("", said[0] if said else type(error).__name__), *said[1:2]])
    text = text if len(text) <= 400 else text[:397] + "..."
    return f"{text} ({place})" if place and len(place) <= 120 else text


if __name__ == "__main__":
    main()
