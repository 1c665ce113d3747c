"""The queue and its store in a PostgreSQL database, one schema a run, by psycopg, which is an extra.

Every transaction first takes the turn: a lock that one of them has at a time. What it decides is decided under it, so
the clock is read under the lock that orders positions, and transactions can neither deadlock nor fail to serialise.
Rows that a rule decides by are locked besides, against hands that know nothing of turns: a lease passes over a job that
somebody else has locked (SKIP LOCKED), everything else waits for the row, within bounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from secrets import token_hex
from typing import Any

import psycopg
from psycopg import conninfo, sql
from psycopg.errors import InsufficientPrivilege

from . import payload
from .errors import BackendError, ConnectionLost, UnknownJob
from .operations import Clock, Effect, ExpiredLeases, Job, Operation, Result, State
from .rules import Row, perform
from .statements import statements

CONNECT_TIMEOUT_S = 10
# A stopped process loses its transaction, and with it the turn, before the patience of those who wait for it ends.
IDLE_TIMEOUT_S, LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S = 10, 30, 60
_DEFAULTS = {
    "fallback_application_name": "fencepost",
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that is gone without a word is noticed, too.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_Connection = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def _refusals(what: str, end: str = ".") -> Iterator[None]:
    """Whatever the database will not take, as a BackendError; also texts that it has no form for."""
    try:
        yield
    except (psycopg.Error, UnicodeEncodeError) as error:
        raise BackendError(f"{what}: {_said(error)}{end}") from error


def _unusable() -> AbstractContextManager[None]:
    return _refusals("The PostgreSQL database cannot be used", "; does it run, and is the connection string right?")


def _said(error: Exception) -> str:
    """The first line of an error's message: what follows are hints, and other tries to connect."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


def _parts(address: str) -> dict[str, Any]:
    """A connection string as its parts, by libpq's names. Raises BackendError, which quotes nothing of it: a part that
    was read wrongly may be one of the password."""
    try:
        found = conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        raise _unreadable() from None
    # An @ or / of a password that is written as it is ends the password early, and the rest passes for a host or port.
    signs = "://" in address and address.count("@") > bool({"user", "password"} & found.keys())
    if signs or str(found.get("port", "")).strip("0123456789,"):
        raise _unreadable()
    return found


def _unreadable() -> BackendError:
    return BackendError(
        "The connection string of the PostgreSQL database cannot be read: write it like "
        "postgresql://user@host:5432/database, with %40 for @, %2F for / and %25 for % inside a name or password."
    )


def has_password(address: str) -> bool:
    """Whether a connection string has a secret in it. Raises BackendError."""
    return any(value for key, value in _parts(address).items() if key.endswith("password"))


def _connect(address: str, schema: str) -> _Connection:
    given = _parts(address)
    ours = {
        "search_path": schema,
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
    }
    # With the connection, not by SET: a pooler that shares connections between clients refuses it, instead of giving
    # the next client our settings.
    options = [given.pop("options", os.environ.get("PGOPTIONS", "")), *(f"-c {key}={ours[key]}" for key in ours)]
    settings = {**_DEFAULTS, **given, "client_encoding": "utf8", "options": " ".join(options)}
    return psycopg.connect(**settings, autocommit=True)


@contextmanager
def own_schema(address: str) -> Iterator[str]:
    """A new schema with the queue's tables for one run; it is dropped at the end, and nothing else is touched.

    Raises BackendError if the database cannot be reached, or takes no new schema.
    """
    schema = f"fencepost_{token_hex(8)}"
    _create(address, schema)
    try:
        yield schema
    except BaseException:
        # What went wrong before is what matters.
        with suppress(BackendError):
            _drop(address, schema)
        raise
    _drop(address, schema)


def _create(address: str, schema: str) -> None:
    with _unusable(), _connect(address, schema) as connection:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                connection.execute(statements("postgres")["schema"])
        except InsufficientPrivilege as error:
            database, role = (
                sql.Identifier(name).as_string(connection) for name in (connection.info.dbname, connection.info.user)
            )
            raise BackendError(
                f"The role {role} may not make a schema in the PostgreSQL database {database}, and each run needs one "
                f"of its own: GRANT CREATE ON DATABASE {database} TO {role}, or name another database."
            ) from error


def _drop(address: str, schema: str) -> None:
    left = f"The run's schema {schema} is still in the PostgreSQL database"
    with _refusals(left), _connect(address, schema) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


class PostgresBackend:
    """A `Backend`, in a schema that `own_schema` made. One connection a process: open it after a fork, never before.

    A connection that was lost is made again for the next transaction.
    """

    def __init__(self, address: str, schema: str) -> None:
        """Raises BackendError if the database cannot be reached."""
        self._sql = statements("postgres")
        self._address, self._schema = address, schema
        self._closed = False
        with _unusable():
            self._connection = _connect(address, schema)

    def apply(self, operation: Operation, clock: Clock) -> Result:
        with _refusals("The queue's database refused a step"), self._transaction():
            # The clock is read when it is our turn: decisions fall in the order of their times.
            return perform(self, operation, clock())

    def balances(self) -> dict[str, int]:
        with _refusals("The queue's database refused to be read"):
            return dict(self._run("balances").fetchall())

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._connection.closed and not self._closed:
            self._connection = _connect(self._address, self._schema)
        try:
            self._connection.execute(self._sql["begin"], prepare=False)
            yield
        except BaseException:
            self._roll_back()
            raise
        self._commit()

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except BaseException as error:
            # A server that loses the connection rolls back by itself.
            self._connection.close()
            if not isinstance(error, psycopg.Error):
                raise

    def _commit(self) -> None:
        """Raises ConnectionLost if the outcome is unknown: only an answer says what became of a COMMIT."""
        try:
            self._connection.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized == "ERROR":
                raise
            self._connection.close()
            if isinstance(error, psycopg.Error):
                raise ConnectionLost from error
            raise

    def _run(self, name: str, **values: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        # Never on a new connection: that would be outside of the transaction.
        return self._connection.execute(self._sql[name], values)

    def _one(self, name: str, **values: Any) -> tuple[Any, ...] | None:
        return self._run(name, **values).fetchone()

    def count(self, counter: str) -> int:
        ((value,),) = self._run("count", counter=counter).fetchall()
        return int(value)

    def add(self, job: Job, now: int, position: int) -> bool:
        values = {"job_id": job.id, "queue": job.queue, "payload": payload.dump(job)}
        return self._run("add", **values, now=now, position=position).rowcount == 1

    def row(self, job_id: str) -> Row:
        found = self._one("row", job_id=job_id)
        if found is None:
            raise UnknownJob(job_id)
        return Row(*found)

    def save(self, row: Row) -> None:
        self._run("save", **asdict(row))

    def job(self, job_id: str) -> Job:
        ((text,),) = self._run("job", job_id=job_id).fetchall()
        return payload.load(text)

    def oldest_ready(self, queue: str, now: int) -> str | None:
        found = self._one("oldest_ready", queue=queue, now=now)
        return found[0] if found else None

    def is_applied(self, effect_key: str) -> bool:
        return self._one("is_applied", effect_key=effect_key) is not None

    def add_effect(self, effect: Effect, job_id: str, token: int, position: int) -> None:
        values = {"effect_key": effect.key, "account": effect.account, "amount": effect.amount}
        self._run("add_effect", **values, job_id=job_id, token=token, position=position)

    def expired(self, queue: str, now: int) -> ExpiredLeases:
        return tuple(self._run("expired", queue=queue, now=now).fetchall())

    def held(self, queue: str) -> tuple[tuple[str, State], ...]:
        with _refusals("The queue's database refused to be read"):
            return tuple(self._run("held", queue=queue).fetchall())
