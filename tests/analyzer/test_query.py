"""A user's SQL is answered by a process of its own, or refused in one sentence; nothing else comes of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from benchmarks.generator import generate
from benchmarks.telling import spans

from fencepost_analyzer import query as querying
from fencepost_analyzer.check import check
from fencepost_analyzer.database import GAPS, VIEWS, database
from fencepost_analyzer.errors import QueryError
from fencepost_analyzer.query import is_cut, query


class Fake:
    id = "fake"

    def __init__(self, spans: pa.Table) -> None:
        self._spans = spans

    def spans(self) -> pa.Table:
        return self._spans

    def gaps(self) -> pa.Table:
        return pa.Table.from_pylist([{"cause": "torn_tail"}], schema=GAPS)


@pytest.fixture(scope="module")
def recording() -> Fake:
    return Fake(spans(generate(1, 4, {1: "zombie_write"}).rows))


def refusal(recording: Fake, sql: str, timeout_s: float = 30) -> str:
    with pytest.raises(QueryError) as caught:
        query(recording, sql, timeout_s=timeout_s)
    return str(caught.value)


def test_spans_gaps_events_and_views_can_be_queried(recording: Fake) -> None:
    tables = ("spans", "gaps", "events", *VIEWS)
    sql = " UNION ALL ".join(f"SELECT '{name}' AS name, (SELECT count(*) FROM {name}) AS rows" for name in tables)
    rows = {row["name"]: row["rows"] for row in query(recording, sql).to_pylist()}
    assert set(rows) == set(tables)
    assert rows["jobs"] == 4
    assert rows["gaps"] == 1


def test_the_query_of_a_finding_is_a_query(recording: Fake) -> None:
    finding = check(recording).finding("INV-003")
    assert query(recording, finding.sql).num_rows == finding.violations == 1


@pytest.mark.parametrize(
    "sql",
    ["FROM events", "VALUES (1)", "WITH a AS (SELECT 1) FROM a", "DESCRIBE events", "EXPLAIN SELECT 1", "SHOW TABLES"],
)
def test_whatever_only_reads_is_a_query(recording: Fake, sql: str) -> None:
    assert query(recording, sql).num_columns > 0


def test_an_answer_is_cut_at_the_limit_and_says_so(recording: Fake) -> None:
    cut = query(recording, "FROM range(100_000)", limit_rows=7)
    assert (cut.num_rows, is_cut(cut)) == (7, True)
    whole = query(recording, "FROM range(7)", limit_rows=7)
    assert (whole.num_rows, is_cut(whole)) == (7, False)


def test_a_comment_or_a_semicolon_at_the_end_does_no_harm(recording: Fake) -> None:
    assert query(recording, "SELECT 1; -- done").num_rows == 1


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT nme FROM spans", 'Referenced column "nme" not found in FROM clause! Candidate bindings: "name"'),
        ("FROM evnts", 'Table with name evnts does not exist! Did you mean "events"? (LINE 1: FROM evnts)'),
        ("SELCT 1", 'syntax error at or near "SELCT" (LINE 1: SELCT 1)'),
        ("", "A query is exactly one SELECT; this is 0 statements."),
        ("SELECT 1; SELECT 2", "A query is exactly one SELECT; this is 2 statements."),
        ("SELECT error('x' || chr(10) || 'y')", "x y"),
    ],
)
def test_an_error_is_one_line_that_keeps_the_hint(recording: Fake, sql: str, sentence: str) -> None:
    said = refusal(recording, sql)
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.parametrize(
    "sql",
    [
        "COPY events TO '{path}'",
        "EXPORT DATABASE '{path}'",
        "ATTACH '{path}' AS a",
        "ATTACH ':memory:' AS a",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "RESET memory_limit",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE a AS SELECT 1",
        "CREATE SECRET s (TYPE s3)",
        "DROP TABLE events",
        "DELETE FROM events",
        "UPDATE events SET job_id = NULL",
        "INSERT INTO events FROM events",
        "CHECKPOINT",
        "VACUUM",
        "USE memory",
        "BEGIN",
        "PREPARE p AS SELECT 1",
    ],
)
def test_a_statement_that_does_not_read_is_refused(recording: Fake, tmp_path: Path, sql: str) -> None:
    assert "only SELECT is" in refusal(recording, sql.format(path=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{path}')",
        "FROM read_blob('{path}')",
        "FROM read_csv('{path}')",
        "FROM read_json('{path}')",
        "FROM read_parquet('{path}')",
        "FROM parquet_metadata('{path}')",
        "FROM sniff_csv('{path}')",
        "FROM glob('{path}')",
        "FROM glob('{directory}/[s]ecret.csv')",
        "FROM read_csv('{directory}/[s]ecret.csv')",
        "FROM '{path}'",
        "FROM read_text('/proc/self/environ')",
        "FROM query('FROM read_text(''{path}'')')",
        "EXPLAIN ANALYZE COPY events TO '{directory}/out.csv'",
        "SELECT getenv('HOME')",
    ],
)
def test_no_file_can_be_read_or_written(recording: Fake, tmp_path: Path, sql: str) -> None:
    path = tmp_path / "secret.csv"
    path.write_text("secret\n1\n")
    said = refusal(recording, sql.format(path=path, directory=tmp_path))
    assert "disabled" in said or "does not exist" in said
    assert [found.name for found in tmp_path.iterdir()] == ["secret.csv"]


def test_a_bound_file_name_cannot_be_read_either(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    with database({}) as connection, pytest.raises(duckdb.PermissionException):
        connection.execute("FROM read_csv(?)", [str(tmp_path / "[ab].csv")])


@pytest.mark.parametrize("name", ["secret", "reader", "connection", "request", "batches", "sys"])
def test_no_python_variable_can_be_read(recording: Fake, name: str) -> None:
    secret = pa.table({"x": [1]})
    assert "does not exist" in refusal(recording, f"FROM {name}")
    with database({}) as connection, pytest.raises(duckdb.CatalogException):
        connection.execute("FROM secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize(
    "sql", ["WITH gone AS (DELETE FROM events RETURNING *) FROM gone", "EXPLAIN ANALYZE DELETE FROM events"]
)
def test_a_change_hidden_in_a_query_is_refused(recording: Fake, sql: str) -> None:
    assert "only reads" in refusal(recording, sql)


def test_the_environment_stays_with_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    assert "SHOP_PASSWORD" not in querying._environment()


def test_nothing_is_imported_from_where_the_user_stands(
    recording: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "duckdb.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert query(recording, "SELECT 1").num_rows == 1


def test_a_query_that_takes_too_long_is_stopped(recording: Fake) -> None:
    began = time.monotonic()
    said = refusal(recording, "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3", timeout_s=1.5)
    assert said == "The query took longer than 1.5 s and was stopped: filter or aggregate more, or allow more time."
    assert time.monotonic() - began < 15


def test_a_query_that_needs_too_much_memory_is_refused(recording: Fake) -> None:
    with pytest.raises(QueryError, match="needs more memory than it may use"):
        query(recording, "SELECT list(i) FROM range(100_000_000) t(i)", memory_bytes=100_000_000, timeout_s=60)


def test_an_answer_that_is_too_large_is_refused(recording: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querying, "MAX_ANSWER_BYTES", 1_000_000)
    assert "The answer is larger than 1 MB" in refusal(recording, "SELECT repeat('x', 10_000) FROM range(1_000)")


def test_a_query_that_is_too_long_is_refused(recording: Fake) -> None:
    assert "longer than 100000 bytes" in refusal(recording, "SELECT 1 --" + "x" * 100_000)


def test_a_query_that_cannot_be_encoded_is_refused(recording: Fake) -> None:
    assert "not valid UTF-8" in refusal(recording, "SELECT '\ud800'")


def test_deep_nesting_is_an_error_not_a_crash(recording: Fake) -> None:
    assert refusal(recording, "SELECT " + "(" * 20_000 + "1" + ")" * 20_000)


def test_no_child_is_left_behind(recording: Fake) -> None:
    query(recording, "SELECT 1")
    refusal(recording, "FROM nowhere")
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children if Path(f"/proc/{child}").exists()]
    assert not [name for name in names if b"fencepost_analyzer.sandbox" in name]
