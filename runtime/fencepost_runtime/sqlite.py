"""The queue and its store in one SQLite file: the embedded default, shared by all processes of a run."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import payload
from .errors import BackendError, UnknownJob
from .operations import Clock, Effect, ExpiredLeases, Job, Operation, Result, State
from .rules import Row, perform
from .statements import statements

BUSY_TIMEOUT_S = 30
BUSY_PAUSE_S = 0.001


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever the database will not take, as a BackendError; also numbers and texts that it has no form for."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        raise BackendError(f"{what}: {error}.") from error


class SqliteBackend:
    """A `Backend`. One connection a process: open it after a fork, never before."""

    def __init__(self, path: Path) -> None:
        """Raises BackendError if the file cannot be opened or is not a database."""
        self._sql = statements("sqlite")
        with _refusals(f"The queue's database {path} cannot be used"):
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        self._switch_to_wal()
        # A commit survives the death of its process either way; FULL makes it survive the machine's too.
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            for statement in self._sql["schema"].split(";\n"):
                self._connection.execute(statement)

    def _switch_to_wal(self) -> None:
        """Asks again while others make the same switch: there SQLite answers "locked" at once, whatever its timeout.

        It reads before it writes, and two that have read and want to write would wait for each other for ever
        (https://www.sqlite.org/c3ref/busy_handler.html).
        """
        until = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(BUSY_PAUSE_S)
            else:
                return

    def apply(self, operation: Operation, clock: Clock) -> Result:
        with _refusals("The queue's database refused a step"), self._transaction():
            # The clock is read under the write lock: decisions fall in the order of their times.
            return perform(self, operation, clock())

    def balances(self) -> dict[str, int]:
        with _refusals("The queue's database refused to be read"):
            return dict(self._run("balances").fetchall())

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _run(self, name: str, **values: Any) -> sqlite3.Cursor:
        return self._connection.execute(self._sql[name], values)

    def count(self, counter: str) -> int:
        return int(self._run("count", counter=counter).fetchone()[0])

    def add(self, job: Job, now: int, position: int) -> bool:
        values = {"job_id": job.id, "queue": job.queue, "payload": payload.dump(job)}
        return self._run("add", **values, now=now, position=position).rowcount == 1

    def row(self, job_id: str) -> Row:
        found = self._run("row", job_id=job_id).fetchone()
        if found is None:
            raise UnknownJob(job_id)
        return Row(*found)

    def save(self, row: Row) -> None:
        self._run("save", **asdict(row))

    def job(self, job_id: str) -> Job:
        return payload.load(self._run("job", job_id=job_id).fetchone()[0])

    def oldest_ready(self, queue: str, now: int) -> str | None:
        found = self._run("oldest_ready", queue=queue, now=now).fetchone()
        return found[0] if found else None

    def is_applied(self, effect_key: str) -> bool:
        return self._run("is_applied", effect_key=effect_key).fetchone() is not None

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None:
        values = {"effect_key": effect.key, "account": effect.account, "amount": effect.amount}
        self._run("add_effect", **values, job_id=job_id, token=token, position=position)

    def expired(self, queue: str, now: int) -> ExpiredLeases:
        return tuple(self._run("expired", queue=queue, now=now).fetchall())

    def held(self, queue: str) -> tuple[tuple[str, State], ...]:
        return tuple(self._run("held", queue=queue).fetchall())
