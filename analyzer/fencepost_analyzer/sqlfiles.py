"""SQL files with a strict header: how mappings, invariants and views are read from disk.

A file begins with comment lines `-- key: value`; a line `--   more` (three spaces or more) continues the value
above it. The first line of another kind ends the header; from there on everything is SQL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fencepost_analyzer.errors import SqlFileError
from fencepost_recorder.plainfile import open_plain

MAX_FILE_BYTES = 1_000_000

_KEY = re.compile(r"-- ([a-z_]+):\s*(.*)")
_MORE = re.compile(r"--\s{3,}(\S.*)")


@dataclass(frozen=True)
class SqlFile:
    """One SQL file: `header` maps a key to its text, `lines` a key to its 1-based line, `sql` is the whole text."""

    path: Path
    header: Mapping[str, str]
    lines: Mapping[str, int]
    sql: str

    def error(self, key: str, problem: str) -> SqlFileError:
        """An error about the header key `key`, with file and line."""
        return SqlFileError(f"{self.path}:{self.lines.get(key, 1)}: {problem}")


def read(path: Path, *, required: Collection[str], optional: Collection[str] = ()) -> SqlFile:
    """Reads one file. Raises SqlFileError for an unknown, doubled or missing header key, or an empty body."""
    text = _text(path)
    header, lines, end = _header(path, text.splitlines(), allowed={*required, *optional})
    missing = [key for key in required if not header.get(key)]
    if missing:
        raise SqlFileError(f"{path}:1: the header lacks '{missing[0]}': add a line '-- {missing[0]}: ...'.")
    if not "\n".join(text.splitlines()[end:]).strip():
        raise SqlFileError(f"{path}:{end + 1}: no SQL follows the header.")
    return SqlFile(path, header, lines, text)


def read_all(directory: Path, *, required: Collection[str], optional: Collection[str] = ()) -> tuple[SqlFile, ...]:
    """Reads every *.sql file directly in `directory`, by name. Raises SqlFileError, also when there is none."""
    if not directory.is_dir():
        raise SqlFileError(f"{directory} is not a directory: name one that holds .sql files.")
    paths = sorted(path for path in directory.glob("*.sql") if not path.name.startswith("."))
    if not paths:
        raise SqlFileError(f"{directory} holds no .sql file.")
    return tuple(read(path, required=required, optional=optional) for path in paths)


def one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """The text of the one SELECT that `sql` holds, fit to stand in parentheses, where it can only read (a subquery
    cannot modify data); None when it holds anything else. Raises duckdb.Error when it cannot be parsed."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return None
    # A semicolon at the end is the statement's still; behind it come comments at most. Offsets count bytes.
    text = statements[0].query.encode()
    code = [at for at, kind in duckdb.tokenize(statements[0].query) if kind != duckdb.token_type.comment]
    while code and text[code[-1] : code[-1] + 1] == b";":
        text = text[: code.pop()]
    return text.decode()


def _text(path: Path) -> str:
    try:
        # A link may stand for a file, as in a folder of links to those that are in use.
        with open_plain(path.resolve()) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise SqlFileError(f"{path}:1: larger than {MAX_FILE_BYTES} bytes, so it is not read.")
        return data.decode()
    except OSError as error:
        raise SqlFileError(f"{path}:1: cannot be read: {error.strerror}.") from error
    except UnicodeError as error:
        raise SqlFileError(f"{path}:1: is not UTF-8 text: save it as UTF-8.") from error


def _header(path: Path, lines: list[str], allowed: set[str]) -> tuple[dict[str, str], dict[str, int], int]:
    header: dict[str, str] = {}
    where: dict[str, int] = {}
    last = ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("--"):
            return header, where, number - 1
        if last and (more := _MORE.fullmatch(line)):
            header[last] = f"{header[last]} {more[1].strip()}".strip()
            continue
        last = _new_key(path, number, line, allowed, header)
        where[last] = number
    return header, where, len(lines)


def _new_key(path: Path, number: int, line: str, allowed: set[str], header: dict[str, str]) -> str:
    match = _KEY.fullmatch(line.rstrip())
    if match is None:
        raise SqlFileError(f"{path}:{number}: a header line must read '-- key: value'.")
    key, value = match[1], match[2].strip()
    if key not in allowed:
        raise SqlFileError(f"{path}:{number}: unknown header key '{key}'; known: {', '.join(sorted(allowed))}.")
    if key in header:
        raise SqlFileError(f"{path}:{number}: header key '{key}' is given twice.")
    header[key] = value
    return key
