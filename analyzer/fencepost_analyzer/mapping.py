"""Spans to events: one SQL file for each instrumentation scope, over a typed view of that scope's spans.

A mapping never touches JSON: it declares the attributes it reads, and each is a column named by its key. A value
of another type is null, never an error; keys and values of a recording never become SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb

from fencepost_analyzer import sqlfiles
from fencepost_analyzer.database import EVENTS, directory, resource, sql_type, tidy_events
from fencepost_analyzer.errors import MappingError
from fencepost_analyzer.sqlfiles import SqlFile

SCOPE = re.compile(r"[A-Za-z0-9_.:/@-]{1,200}")
_ATTRIBUTE = re.compile(r"([A-Za-z0-9_.:/-]{1,100})\s+(VARCHAR\[\]|[A-Z]+)")

# How each type is read from the text of a JSON value. Strict: 1.5 is no BIGINT and "yes" no BOOLEAN.
_READ = {
    "VARCHAR": "{value}",
    "BIGINT": "TRY_CAST(CASE WHEN regexp_full_match({value}, '-?[0-9]+') THEN {value} END AS BIGINT)",
    "DOUBLE": "TRY_CAST({value} AS DOUBLE)",
    "BOOLEAN": "CASE {value} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END",
    "VARCHAR[]": "TRY_CAST(TRY_CAST({value} AS JSON) AS VARCHAR[])",
}


@dataclass(frozen=True)
class Attribute:
    """A span or resource attribute that a mapping reads, as a column of type VARCHAR, BIGINT, DOUBLE, BOOLEAN or
    VARCHAR[] (from a JSON array)."""

    key: str
    type: str


@dataclass(frozen=True)
class Mapping:
    """One mapping: which scope's spans it reads, which attributes, and the SELECT that makes events of them."""

    scope: str
    attributes: tuple[Attribute, ...]
    resource: tuple[Attribute, ...]
    sql: str
    path: Path


def load_mappings(extra: Sequence[Path] = ()) -> tuple[Mapping, ...]:
    """Ours and those of the directories `extra`, which replace ours for the same scope. Raises SqlFileError for a
    broken file and MappingError when two files of the user's claim one scope."""
    found = {mapping.scope: mapping for mapping in _shipped()}
    own: dict[str, Mapping] = {}
    for mapping in (_parse(file) for path in extra for file in _read(path)):
        if mapping.scope in own:
            raise MappingError(f"{mapping.path}: scope {mapping.scope} is already mapped by {own[mapping.scope].path}.")
        own[mapping.scope] = mapping
    return tuple((found | own).values())


def map_spans(connection: duckdb.DuckDBPyConnection, mappings: Sequence[Mapping]) -> tuple[str, ...]:
    """Makes the tables `events` and `unread` from the table `spans`: what became of them, and which of them speak of
    jobs and became nothing. Answers the scopes that no mapping knows, sorted.

    Raises MappingError when a mapping's SQL fails."""
    columns = ", ".join(f'"{field.name}" {sql_type(field.type)}' for field in EVENTS)
    connection.execute(f"CREATE TABLE mapped ({columns})")
    rows = connection.execute("SELECT DISTINCT coalesce(scope_name, '') FROM spans").fetchall()
    scopes = {str(row[0]) for row in rows}
    for mapping in mappings:
        if mapping.scope in scopes:
            _apply(connection, mapping)
    tidy_events(connection, "mapped")
    own = [mapping.scope for mapping in mappings if mapping not in _shipped()]
    connection.execute(f"CREATE TABLE unread AS {resource('views/unread.sql')}", {"own": own})
    connection.execute("DROP TABLE mapped")
    return tuple(sorted(scopes - {mapping.scope for mapping in mappings}))


def shipped(scope: str) -> Mapping:
    """Our own mapping of a scope that we map."""
    return next(mapping for mapping in _shipped() if mapping.scope == scope)


@cache
def _shipped() -> tuple[Mapping, ...]:
    return tuple(_parse(file) for file in _read(directory("mappings")))


def _read(path: Path) -> tuple[SqlFile, ...]:
    return sqlfiles.read_all(path, required=("scope", "attributes"), optional=("resource",))


def _parse(file: SqlFile) -> Mapping:
    scope = file.header["scope"]
    if not SCOPE.fullmatch(scope):
        raise file.error("scope", f"'{scope[:60]}' is no instrumentation scope: letters, digits and _ . : / @ - only.")
    attributes = _attributes(file, "attributes")
    resource = _attributes(file, "resource")
    keys = [attribute.key for attribute in (*attributes, *resource)]
    for key in keys:
        if keys.count(key) > 1:
            raise file.error("attributes", f"attribute '{key}' is declared twice.")
    return Mapping(scope, attributes, resource, file.sql, file.path)


def _attributes(file: SqlFile, header: str) -> tuple[Attribute, ...]:
    text = file.header.get(header, "")
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _ATTRIBUTE.fullmatch(part)
        if match is None or match[2] not in _READ:
            raise file.error(header, f"'{part[:60]}' must read 'key TYPE', the type one of {', '.join(_READ)}.")
        found.append(Attribute(match[1], match[2]))
    return tuple(found)


def _apply(connection: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    _reject_clashes(connection, mapping)
    try:
        select = sqlfiles.one_select(connection, mapping.sql)
        if select is None:
            raise MappingError(f"{mapping.path}: a mapping is exactly one SELECT.")
        connection.execute(_staged(mapping))
        connection.execute(f"INSERT INTO mapped BY NAME FROM (\n{select}\n)")
        connection.execute("DROP VIEW staged")
    except duckdb.Error as error:
        raise MappingError(f"{mapping.path}: {' '.join(str(error).split())[:300]}") from error


def _reject_clashes(connection: duckdb.DuckDBPyConnection, mapping: Mapping) -> None:
    names = {str(row[0]).lower() for row in connection.execute("DESCRIBE spans").fetchall()}
    for attribute in (*mapping.attributes, *mapping.resource):
        if attribute.key.lower() in names:
            raise MappingError(f"{mapping.path}: attribute '{attribute.key}' has the name of a column of spans.")


def _staged(mapping: Mapping) -> str:
    """The typed view. Each JSON text is parsed once for all of its keys; a text that is no JSON has none.

    Keys and scope consist of harmless characters only (checked when the file was read), so quoting them is safe."""
    columns = [_column(attribute, "own_values", i) for i, attribute in enumerate(mapping.attributes, start=1)]
    columns += [_column(attribute, "resource_values", i) for i, attribute in enumerate(mapping.resource, start=1)]
    return (
        "CREATE OR REPLACE VIEW staged AS WITH extracted AS (SELECT *, "
        f"{_values('span_attributes', mapping.attributes)} AS own_values, "
        f"{_values('resource_attributes', mapping.resource)} AS resource_values "
        f"FROM spans WHERE scope_name = '{mapping.scope}') "
        f"SELECT {', '.join(['* EXCLUDE (own_values, resource_values)', *columns])} FROM extracted"
    )


def _values(document: str, attributes: tuple[Attribute, ...]) -> str:
    paths = ", ".join(f"""'$."{attribute.key}"'""" for attribute in attributes)
    if not paths:
        return "NULL::VARCHAR[]"
    return f"CASE WHEN json_valid({document}) THEN json_extract_string({document}, [{paths}]) END"


def _column(attribute: Attribute, values: str, index: int) -> str:
    return f'{_READ[attribute.type].format(value=f"{values}[{index}]")} AS "{attribute.key}"'
