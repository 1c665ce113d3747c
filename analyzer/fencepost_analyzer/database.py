"""One locked DuckDB in memory: verified Arrow tables go in, views stand over them, nothing gets out.

Everything that reads a recording with SQL runs in such a connection, because names, attributes and queries
are untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from fencepost_analyzer import sqlfiles
from fencepost_analyzer.errors import EventsError

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS: pa.Schema = pa.schema(
    [
        ("schedule", pa.int64()),
        ("event", pa.string()),
        ("job_id", pa.string()),
        ("attempt", pa.int64()),
        ("execution_id", pa.string()),
        ("worker_id", pa.string()),
        ("queue", pa.string()),
        ("at", pa.int64()),
        ("until", pa.int64()),
        ("decided_by", pa.int64()),
        ("position", pa.int64()),
        ("token", pa.int64()),
        ("effect_key", pa.string()),
        ("effect_index", pa.int64()),
        ("effect_total", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("intent", pa.string()),
        ("order_key", pa.string()),
        ("host", pa.string()),
        ("producer", pa.string()),
        ("producer_seq", pa.int64()),
        ("producer_end_seq", pa.int64()),
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
    ]
)
"""The columns of `events`, one row an event. Times are unix nanoseconds; anything may be null."""

GAPS: pa.Schema = pa.schema(
    [
        ("producer", pa.string()),
        ("first_seq", pa.int64()),
        ("last_seq", pa.int64()),
        ("since_unix_nano", pa.int64()),
        ("until_unix_nano", pa.int64()),
        ("cause", pa.string()),
        ("lost", pa.int64()),
        ("detail", pa.string()),
    ]
)
"""The columns of `gaps`: what is known to be missing. A null time is unbounded, a null producer anybody."""

# In the order in which they must be created: each reads only what stands before it.
VIEWS = (
    "moments",
    "horizon",
    "nameless",
    "leases",
    "befallen",
    "undone",
    "steps",
    "effects",
    "jobs",
    "suspects",
    "suspect_runs",
    "takeovers",
    "returns",
    "partings",
    "endings",
    "inventories",
    "held",
    "holdings",
    "unfinished",
    "unended",
)
# Those that several invariants read and that are small or dear to compute.
_KEPT = frozenset(
    (
        "horizon",
        "befallen",
        "undone",
        "effects",
        "jobs",
        "suspect_runs",
        "takeovers",
        "returns",
        "partings",
        "endings",
        "inventories",
        "held",
        "holdings",
        "unfinished",
        "unended",
    )
)

_LOCKS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET allow_persistent_secrets = false",
    "SET python_enable_replacements = false",
    "SET python_scan_all_frames = false",
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


@contextmanager
def database(
    tables: Mapping[str, pa.Table], *, memory_limit: str | None = None, threads: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection holding `tables` (name → Arrow table, copied in), locked: no files, no extensions, no Python
    variables, and no way to change that. `memory_limit` as DuckDB spells it ("1GB"); `threads` None = all cores."""
    config: dict[str, str | bool | int | float | list[str]] = {}
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    try:
        for name, table in tables.items():
            load(connection, name, table)
        lock(connection)
        yield connection
    finally:
        connection.close()


def load(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Copies an Arrow table into the connection under `name`, which must be one of ours, never a user's."""
    connection.register("incoming", table)
    try:
        connection.execute(f'CREATE TABLE "{name}" AS FROM incoming')
    finally:
        connection.unregister("incoming")


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Takes away files, extensions, replacement scans and the settings themselves, for the connection's life."""
    for statement in _LOCKS:
        connection.execute(statement)


def create_views(
    connection: duckdb.DuckDBPyConnection, *, readers: Iterable[str] = (), for_others: bool = True
) -> None:
    """Creates the views of views/*.sql over `events`, in order; `events` and `gaps` must exist. Of those that `readers`
    read, SQL that will run on the connection, the dear ones become tables, computed once. Without `for_others` nobody
    else will ask, and views that no reader reads are left out."""
    connection.execute(resource("views/resets.sql"))
    connection.execute(resource("views/macros.sql"))
    texts = {name: resource(f"views/{name}.sql") for name in VIEWS}
    read = _read(texts, readers)
    for name, text in texts.items():
        if name in read & _KEPT and _created(connection, name, text):
            continue
        if for_others or name in read:
            connection.execute(f'CREATE VIEW "{name}" AS {text}')


def _read(texts: Mapping[str, str], readers: Iterable[str]) -> set[str]:
    """Which views some SQL names, by itself or through others; one that it names in a comment only, too."""
    found: set[str] = set()
    waiting = list(readers)
    while waiting:
        for name in (texts.keys() & re.findall(r"\w+", waiting.pop().lower())) - found:
            found.add(name)
            waiting.append(texts[name])
    return found


def _created(connection: duckdb.DuckDBPyConnection, name: str, text: str) -> bool:
    """Whether the table could be computed; if not, as a view it fails only those who read it."""
    try:
        connection.execute(f'CREATE TABLE "{name}" AS {text}')
    except duckdb.Error:
        return False
    return True


def settle_disputes(connection: duckdb.DuckDBPyConnection, *, among_spans: bool = True) -> None:
    """Makes `disputed`, the ids of spans that were recorded with different contents, and leaves one row of each in
    `spans`: what is told twice must not count twice. Where there are events only, nothing is disputed."""
    connection.execute("CREATE TABLE disputed (trace_id VARCHAR, span_id VARCHAR)")
    known = "SELECT 1 FROM gaps WHERE cause = 'conflicting_duplicate' LIMIT 1"
    if among_spans and connection.execute(known).fetchall():
        connection.execute(f"CREATE TEMP TABLE aside AS {resource('views/disputed.sql')}")
        connection.execute("INSERT INTO disputed SELECT DISTINCT trace_id, span_id FROM aside")
        connection.execute('DELETE FROM spans WHERE rowid IN (SELECT "row" FROM aside)')
        connection.execute("DROP TABLE aside")


def tidy_events(connection: duckdb.DuckDBPyConnection, source: pa.Table | str) -> None:
    """Makes the table `events` from an Arrow table, or from a table of the connection, which must be one of ours:
    impossible times become null, and every event of an execution gets its id."""
    if isinstance(source, str):
        connection.execute(f'CREATE VIEW source AS FROM "{source}"')
        connection.execute(f"CREATE TABLE events AS {resource('views/tidy_events.sql')}")
        connection.execute("DROP VIEW source")
        return
    connection.register("source", source)
    try:
        connection.execute(f"CREATE TABLE events AS {resource('views/tidy_events.sql')}")
    finally:
        connection.unregister("source")


def sql_type(arrow_type: pa.DataType) -> str:
    """The SQL type of a column of events or gaps."""
    return "BIGINT" if pa.types.is_integer(arrow_type) else "VARCHAR"


def events_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """An events table from plain dicts; keys left out are null, `schedule` is 0. Raises EventsError."""
    listed = [{"schedule": 0, **row} for row in rows]
    unknown = sorted({key for row in listed for key in row} - set(EVENTS.names))
    if unknown:
        raise EventsError(f"Events have no column '{unknown[0]}'; the columns are {', '.join(EVENTS.names)}.")
    return pa.Table.from_pylist(listed, schema=EVENTS)


def events_of(records: Iterable[Sequence[object]]) -> pa.Table:
    """An events table from rows that hold a value for each column of `EVENTS`, in their order."""
    columns = list(zip(*records, strict=True)) or [()] * len(EVENTS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, EVENTS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=EVENTS)


def conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """`table` with exactly the columns of `schema`: missing ones null, types cast. Raises EventsError."""
    unknown = sorted(set(table.column_names) - set(schema.names))
    if unknown:
        raise EventsError(f"The {what} have an unknown column '{unknown[0]}'; known: {', '.join(schema.names)}.")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowInvalid as error:
            raise EventsError(f"Column '{field.name}' of the {what} is not {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def rows(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What a query just executed answers, a dictionary a row."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def resource(name: str) -> str:
    """The text of a SQL file shipped with the package, such as "views/runs.sql"."""
    return files("fencepost_analyzer").joinpath(name).read_text(encoding="utf-8")


def directory(name: str) -> Path:
    """The directory of shipped SQL files called `name`: "mappings" or "invariants"."""
    return Path(sqlfiles.__file__).parent / name
