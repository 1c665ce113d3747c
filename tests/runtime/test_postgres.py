"""What PostgreSQL promises beyond the conformance suite: processes and strangers side by side, and bounded waits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.errors import LockNotAvailable
from runtime.contender import contend
from runtime.real_run import running, until
from runtime.support import Desk, ManualClock, a_job, kill

from fencepost_runtime import postgres as module
from fencepost_runtime.backends import Database
from fencepost_runtime.errors import BackendError
from fencepost_runtime.operations import Effect, Enqueue, Settle, Write
from fencepost_runtime.postgres import PostgresBackend, own_schema
from fencepost_runtime.scenario import Scenario


@pytest.fixture
def database(postgres: str) -> Iterator[Database]:
    with own_schema(postgres) as schema:
        yield Database("postgresql", postgres, schema)


@pytest.fixture
def backend(database: Database) -> Iterator[PostgresBackend]:
    with closing(PostgresBackend(database.address, database.schema)) as opened:
        yield opened


@pytest.fixture
def stranger(database: Database) -> Iterator[psycopg.Connection]:
    """Somebody else's connection, which sees the run's tables; what it does, it does in a transaction."""
    with psycopg.connect(database.address, options=f"-c search_path={database.schema}") as connection:
        yield connection


def pid(backend: PostgresBackend) -> int:
    """The process of the server that serves this backend."""
    return backend._connection.info.backend_pid


def test_processes_side_by_side_are_granted_each_lease_once(database: Database, stranger: psycopg.Connection) -> None:
    """Processes that lease, give back and settle side by side are granted each lease once, finish every job once
    between them, leave positions without a hole, and no position contradicts its time."""
    with closing(database.open()) as backend:
        desk = Desk(backend)
        desk.enqueue(*(f"job-{number}" for number in range(150)))
        told = [line.split() for line in contend(database, processes=4)]
        leases = sorted(tuple(map(int, words[2:])) for words in told if words[0] == "leased")
        done = [words[1] for words in told if words[0] == "done"]
        assert [token for token, _, _ in leases] == list(range(1, len(leases) + 1))
        assert leases == sorted(leases, key=lambda lease: lease[1]), "tokens and positions rise together"
        moments = sorted((int(words[3]), int(words[4])) for words in told if len(words) == 5)
        assert [at for _, at in moments] == sorted(at for _, at in moments), "so do positions and times"
        assert sorted(done) == sorted(f"job-{number}" for number in range(150))
        # 150 enqueues; each lease; two writes and a settle of each job done; the rest of the leases were given back.
        assert desk.position() == 150 + len(leases) + 3 * 150 + (len(leases) - 150) + 1
        assert desk.held() == {}
        assert backend.balances() == {"debit": 1_500, "credit": 3_000}
    positions = stranger.execute("SELECT position FROM effects ORDER BY position").fetchall()
    assert len(set(positions)) == len(positions) == 300


def test_nothing_told_is_lost_and_nothing_is_applied_by_half(database: Database) -> None:
    """Processes killed at random moments of their transactions leave all that was answered, and nothing by half."""
    kill(database, 60, seconds=30, seed=1)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_in_a_minute_of_killing(database: Database, seed: int) -> None:
    """The same for a minute and other seeds."""
    kill(database, 1_000_000, seconds=60, seed=seed)


def test_a_run_of_processes_does_all_work(database: Database, stranger: psycopg.Connection, tmp_path: Path) -> None:
    """Eight jobs on three workers, one of whom is killed between two writes: all is done, every position is told of by
    whoever took it, none contradicts its time, and no connection outlives its process."""
    queue = {"name": "q", "workload": "payments", "jobs": 8, "workers": 3, "policy": {"lease_ms": 700}}
    fault = {"kind": "kill", "job": "pay-3", "step": "write", "index": 1, "when": "before"}
    whole = Scenario.from_dict({"id": "real", "queues": [queue], "faults": [fault], "at_most_ms": 25_000})
    with running(tmp_path, whole, database=database) as run:
        assert run.ended() == (0, "")
        assert run.held() == {}
        assert run.balances() == {"customer": -900, "merchant": 800, "receipts": 8}
        told = [span.attributes for span in run.spans() if "job.transaction.position" in span.attributes]
    keys = ("job.transaction.position", "job.transaction.time_unix_nano")
    moments = sorted(tuple(attributes[key] for key in keys) for attributes in told)
    assert [position for position, _ in moments] == list(range(1, len(moments) + 1))
    assert [at for _, at in moments] == sorted(at for _, at in moments)
    stranger.autocommit = True
    others = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'fencepost')"
    until(lambda: stranger.execute(others).fetchone(), "the end of all connections")


# A worker that is killed inside its transaction: all that it wrote is written, and the commit is still to come.
HALFWAY = """
import os, signal, sys
from fencepost_runtime.backends import Database
from fencepost_runtime.operations import Lease
backend = Database("postgresql", *sys.argv[1:]).open()
def job(job_id):
    os.write(1, b"leased")
    signal.pause()
backend.job = job
backend.apply(Lease("q", "w", 10**12), lambda: 1_000_000_000_001)
"""


def test_a_killed_process_s_transaction_is_rolled_back(database: Database, backend: PostgresBackend) -> None:
    """Killed between what it wrote and its commit, a worker leaves no lease, no number taken, and nobody waiting."""
    desk = Desk(backend)
    desk.enqueue("a")
    command = [sys.executable, "-c", HALFWAY, database.address, database.schema]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.read(6) == b"leased"
        worker.kill()
    leased = desk.lease()
    assert (leased.attempt, leased.token, leased.position) == (1, 1, 2)


def test_the_clock_is_read_in_turn(backend: PostgresBackend, stranger: psycopg.Connection) -> None:
    """Decisions fall in the order of their times: nobody else can decide between the clock's reading and the commit."""

    def clock() -> int:
        with pytest.raises(LockNotAvailable):
            stranger.execute("LOCK TABLE turn IN SHARE MODE NOWAIT")
        stranger.rollback()
        return 1

    backend.apply(Enqueue(a_job()), clock)
    stranger.execute("LOCK TABLE turn IN SHARE MODE NOWAIT")


def test_a_lease_passes_over_a_job_that_a_stranger_has_locked(
    backend: PostgresBackend, stranger: psycopg.Connection
) -> None:
    """A row that somebody has locked who knows nothing of turns is left out, not waited for, until it is free again."""
    desk = Desk(backend)
    desk.enqueue("a", "b")
    stranger.execute("SELECT 1 FROM jobs WHERE id = 'a' FOR UPDATE")
    assert desk.lease().job.id == "b"
    assert desk.ask_lease() is None
    stranger.rollback()
    assert desk.lease().job.id == "a"


def test_a_rule_decides_by_rows_that_nobody_can_change(backend: PostgresBackend, stranger: psycopg.Connection) -> None:
    """A job's row and an effect's are locked from when a rule has read them until its decision is committed."""
    desk = Desk(backend)
    desk.enqueue("a")
    leased = desk.lease()
    desk.write(leased)
    save, count = backend.save, backend.count

    def refused(statement: str) -> None:
        stranger.execute("SET lock_timeout = '10ms'")
        with pytest.raises(LockNotAvailable):
            stranger.execute(statement)
        stranger.rollback()

    backend.count = lambda name: refused("DELETE FROM effects") or count(name)
    assert desk.write(leased, dedupe=True).reason == "duplicate"
    backend.count = count
    backend.save = lambda row: refused("UPDATE jobs SET token = 9") or save(row)
    assert desk.settle(leased).accepted


def test_whoever_is_stopped_loses_the_turn(
    database: Database, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction in which nothing happens is ended by the server: its step is refused, and the others go on; the
    next step makes a new connection."""
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 0.1)
    with closing(PostgresBackend(database.address, database.schema)) as backend:
        stranger.autocommit = True

        def clock() -> int:
            gone = f"SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid(backend)})"
            until(lambda: stranger.execute(gone).fetchone(), "the end of the transaction")
            return 1

        with pytest.raises(BackendError, match="refused a step"):
            backend.apply(Enqueue(a_job()), clock)
        assert Desk(backend).position() == 1


@pytest.mark.parametrize(("limit", "cause"), [("LOCK_TIMEOUT_S", "lock"), ("STATEMENT_TIMEOUT_S", "statement")])
def test_a_wait_for_the_turn_ends(
    database: Database, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, limit: str, cause: str
) -> None:
    """Whoever does not get its turn in time is refused the step, and can go on when the turn is free."""
    monkeypatch.setattr(module, limit, 0.1)
    stranger.execute("LOCK TABLE turn IN EXCLUSIVE MODE")
    with closing(PostgresBackend(database.address, database.schema)) as backend:
        desk = Desk(backend)
        with pytest.raises(BackendError, match=f"refused a step: canceling statement due to {cause} timeout"):
            desk.enqueue("a")
        stranger.rollback()
        desk.enqueue("a")
        assert desk.held() == {"a": "ready"}


def test_a_step_that_is_refused_at_its_commit_leaves_nothing(
    backend: PostgresBackend, stranger: psycopg.Connection
) -> None:
    """A server that answers COMMIT with an error has applied nothing: that is no doubt, but a refusal."""
    later = "FOREIGN KEY (job_id) REFERENCES jobs DEFERRABLE INITIALLY DEFERRED"
    stranger.execute(f"ALTER TABLE effects ADD CONSTRAINT later {later}")
    stranger.commit()
    desk = Desk(backend)
    with pytest.raises(BackendError, match="refused a step: insert or update on table"):
        desk.do(Write("ghost", Effect("k", "acc", 1), 1, False, False))
    assert backend.balances() == {}
    assert desk.position() == 1


def test_an_interrupted_step_is_rolled_back(database: Database, backend: PostgresBackend) -> None:
    """Ctrl-C inside a transaction leaves neither a change nor a lock, and the connection can be used again."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.apply(Enqueue(a_job()), interrupted)
    with closing(database.open()) as other:
        Desk(other).enqueue("a")
    assert Desk(backend).held() == {"a": "ready"}


def test_what_was_committed_is_there_after_reopening(database: Database) -> None:
    """Closing and opening again changes nothing: jobs, tokens, positions and balances go on."""
    with closing(database.open()) as backend:
        desk = Desk(backend)
        desk.enqueue("a", "b")
        desk.write_all(desk.lease(), settle=True)
    with closing(database.open()) as backend:
        assert backend.balances() == {"debit": 10, "credit": 20}
        leased = Desk(backend).lease()
        assert (leased.job.id, leased.token, leased.position) == ("b", 2, 7)


def test_a_closed_backend_refuses(database: Database) -> None:
    """After close every step and every look is refused as a BackendError, and no connection is made again."""
    backend = database.open()
    backend.close()
    with pytest.raises(BackendError, match="refused a step: the connection is closed"):
        backend.apply(Settle("a", 1, "ack", True), ManualClock())
    with pytest.raises(BackendError, match="refused to be read"):
        backend.balances()
    with pytest.raises(BackendError, match="refused to be read"):
        backend.held("q")


@pytest.mark.parametrize("way", ["address", "environment"])
def test_the_user_s_own_settings_do_not_matter(
    database: Database, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What the user asked for stays, but neither a stricter isolation level nor another search path or encoding changes
    what the queue does; waits are bounded where the user says nothing."""
    options = "-c default_transaction_isolation=serializable -c search_path=public"
    address = database.address
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    if way == "address":
        address = address.replace("?", f"?options={quote(options)}&")
    else:
        monkeypatch.setenv("PGOPTIONS", options)
    with closing(PostgresBackend(address, database.schema)) as backend:
        assert backend._connection.execute("SHOW default_transaction_isolation").fetchone() == ("serializable",)
        assert backend._connection.info.get_parameters()["connect_timeout"] == "10"
        desk = Desk(backend)
        desk.enqueue("a", "日本語")
        assert list(desk.held()) == ["a", "日本語"]
        level = "SELECT current_setting('transaction_isolation')"
        backend.count = lambda _: backend._connection.execute(level).fetchone()[0]
        assert backend.apply(Settle("a", 0, "ack", False), ManualClock()).position == "read committed"
    assert stranger.execute("SELECT id FROM jobs WHERE state = 'done'").fetchall() == [("a",)]
