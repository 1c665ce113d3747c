"""How a PostgreSQL database is reached, lost and left: doubts where there are some, own schemas, no secrets told."""

from __future__ import annotations

import select
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from postgres_server import GUEST, PASSWORD, VISITOR, as_role
from runtime.support import Desk, a_job, one_sentence

from fencepost_runtime.backends import Database, has_password, own_database
from fencepost_runtime.errors import BackendError, ConnectionLost
from fencepost_runtime.operations import Enqueue
from fencepost_runtime.postgres import PostgresBackend, own_schema

SOCKET = ".s.PGSQL.5432"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fencepost%'"


class Wire:
    """A way to the server on which the first COMMIT gets lost: itself (`request`), or what it is answered (`reply`)."""

    def __init__(self, folder: Path, server: str, loses: str) -> None:
        self._server = server
        self._loses = loses
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._carry, args=(client,)))
            self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            while True:
                ready, _, _ = select.select([client, server], [], [])
                source, sink = (client, server) if client in ready else (server, client)
                data = source.recv(65_536)
                lost, self._loses = (self._loses, "") if b"COMMIT\0" in data else ("", self._loses)
                if not data or lost == "request":
                    return
                sink.sendall(data)
                if lost == "reply":
                    server.recv(65_536)
                    return


@contextmanager
def wired(address: str, loses: str) -> Iterator[str]:
    """A connection string of the same database over a wire."""
    server = address.rpartition("host=")[2]
    with (
        tempfile.TemporaryDirectory(prefix="fencepost-wire-") as folder,
        closing(Wire(Path(folder), f"{server}/{SOCKET}", loses)),
    ):
        yield address.replace(server, folder)


@pytest.fixture
def schema(postgres: str) -> Iterator[str]:
    with own_schema(postgres) as name:
        yield name


def schemas(address: str) -> list[str]:
    with psycopg.connect(address) as connection:
        return [name for (name,) in connection.execute(SCHEMAS)]


@pytest.mark.parametrize(("loses", "held"), [("request", {}), ("reply", {"a": "ready"})])
def test_a_commit_that_is_not_answered_is_a_doubt(postgres: str, schema: str, loses: str, held: dict[str, str]) -> None:
    """Whether the COMMIT got lost or its reply did, nobody can tell: ConnectionLost; the next step makes a new
    connection, and finds what became of it."""
    with wired(postgres, loses) as address, closing(PostgresBackend(address, schema)) as backend:
        desk = Desk(backend)
        with pytest.raises(ConnectionLost):
            desk.enqueue("a")
        assert desk.held() == held


def terminating(backend: PostgresBackend, postgres: str) -> Callable[[], int]:
    """A clock in whose reading the server ends the backend's connection."""

    def clock() -> int:
        with psycopg.connect(postgres) as connection:
            ended = "SELECT pg_terminate_backend(%s, 10000)"
            assert connection.execute(ended, [backend._connection.info.backend_pid]).fetchone() == (True,)
        return 1

    return clock


def test_a_connection_lost_before_the_commit_is_no_doubt(postgres: str, schema: str) -> None:
    """A transaction whose connection goes before its COMMIT was said is rolled back: BackendError; the next step makes
    a new connection."""
    with closing(PostgresBackend(postgres, schema)) as backend:
        with pytest.raises(BackendError, match=r"refused a step: .*terminating connection"):
            backend.apply(Enqueue(a_job()), terminating(backend, postgres))
        desk = Desk(backend)
        assert desk.position() == 1
        desk.enqueue("a")
        assert desk.held() == {"a": "ready"}


def test_a_server_that_is_gone_refuses_every_step(postgres: str, schema: str) -> None:
    """When no new connection can be made the step is refused, as is the one after it."""
    with wired(postgres, "") as address:
        backend = PostgresBackend(address, schema)
        with pytest.raises(BackendError, match=r"refused a step: .*terminating connection"):
            backend.apply(Enqueue(a_job()), terminating(backend, postgres))
    for _ in range(2):
        with pytest.raises(BackendError, match="refused a step: connection"):
            Desk(backend).enqueue("a")
    backend.close()


def test_a_run_s_schema_is_its_own_and_goes_with_it(postgres: str, tmp_path: Path) -> None:
    """Two runs in one database have a schema each and see nothing of each other; at the end nothing of theirs is left,
    and what was there before is as it was."""
    before = schemas(postgres)
    with psycopg.connect(postgres, autocommit=True) as user:
        user.execute("CREATE TABLE public.jobs (mine text)")
        with own_database(tmp_path, postgres) as one, own_database(tmp_path, postgres) as two:
            assert len({one.schema, two.schema, *before}) == 2 + len(before)
            with closing(one.open()) as first, closing(two.open()) as second:
                Desk(first).enqueue("a")
                assert Desk(second).held() == {}
                assert (Desk(first).position(), Desk(second).position()) == (2, 2)
        assert user.execute("SELECT count(*) FROM public.jobs").fetchone() == (0,)
        user.execute("DROP TABLE public.jobs")
    assert schemas(postgres) == before


def test_a_schema_goes_whatever_ended_the_run(postgres: str) -> None:
    """A run that fails or is interrupted leaves no schema behind; its own error is the one that is told, also when the
    schema cannot be dropped."""
    before = schemas(postgres)
    with pytest.raises(KeyboardInterrupt), own_schema(postgres):
        raise KeyboardInterrupt
    assert schemas(postgres) == before
    with pytest.raises(ZeroDivisionError), own_schema(postgres) as schema, psycopg.connect(postgres) as user:
        user.execute(f"DROP SCHEMA {schema} CASCADE")
        user.commit()
        raise ZeroDivisionError


def test_a_schema_that_stays_is_told(postgres: str) -> None:
    """When a run went well but its schema cannot be dropped, one sentence names it."""
    with (
        pytest.raises(BackendError, match="is still in the PostgreSQL database") as caught,
        own_schema(postgres) as schema,
        psycopg.connect(postgres) as user,
    ):
        user.execute(f"DROP SCHEMA {schema} CASCADE")
    assert schema in one_sentence(caught.value)


UNREADABLE = [
    f"postgresql://{GUEST}:{PASSWORD}@localhost/db",
    "postgresql://guest:s3cret@w0rd@localhost/db",
    "postgresql://guest:s3cret/w0rd@localhost/db",
    "postgresql://guest:s3cret%w0rd@localhost/db",
    "postgresql://guest@localhost:s3cret/db",
    "host=localhost password=s3cret w0rd",
    "s3cret",
]


@pytest.mark.parametrize("address", UNREADABLE)
def test_a_connection_string_that_cannot_be_read_is_not_quoted(address: str) -> None:
    """What is no connection string, or has a password whose signs were not written as %40 and the like, is refused in
    one sentence with nothing of it: what passes for a host or a port may be a piece of the password."""
    with pytest.raises(BackendError, match="write it like postgresql://user@host:5432/database") as caught:
        has_password(address)
    assert not [piece for piece in ("s3cret", "w0rd", "w@rd") if piece in one_sentence(caught.value)]


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("postgresql://u:p%40ss@h/db", True),
        ("postgresql://h/db?user=u&password=p", True),
        ("host=h user=u password='p w'", True),
        ("postgresql://h/db?sslpassword=p", True),
        ("postgresql://u@h:5432,other:5433/db", False),
        ("postgresql://u:@h/db?passfile=/home/u/.pgpass", False),
        ("postgresql://", False),
        ("host=h user=u@realm", False),
    ],
)
def test_a_password_is_recognised(address: str, secret: bool) -> None:
    """A connection string has a password in it, in whichever form it is written, or has none."""
    assert has_password(address) == secret


def refusal(address: str) -> str:
    with pytest.raises(BackendError) as caught, own_schema(address):
        pass
    return one_sentence(caught.value)


def test_a_database_that_cannot_be_used_is_one_sentence_without_secrets(postgres: str, tmp_path: Path) -> None:
    """No server, no such database, a wrong password, no right to make a schema: one sentence each, what to do where
    that can be said, and never the password."""
    nowhere = as_role(f"postgresql://fencepost@/db?host={tmp_path}", GUEST, PASSWORD)
    assert "No such file or directory" in refusal(nowhere)
    assert "does not exist" in refusal(postgres.replace("/postgres?", "/elsewhere?"))
    wrong = as_role(postgres, GUEST, f"{PASSWORD}2")
    assert "password authentication failed" in refusal(wrong)
    assert 'GRANT CREATE ON DATABASE "postgres" TO "visitor"' in refusal(as_role(postgres, VISITOR))
    assert PASSWORD not in refusal(nowhere) + refusal(wrong)


def test_a_password_is_used_but_not_shown(postgres: str) -> None:
    """A role with a password, and the right to make schemas but no other, can run; the database's repr hides the
    password."""
    address = as_role(postgres, GUEST, PASSWORD)
    with own_schema(address) as schema:
        database = Database("postgresql", address, schema)
        with closing(database.open()) as backend:
            Desk(backend).enqueue("a")
    assert "s3cret" not in repr(database)
    assert "s3cret" in str(database.to_dict())


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where psycopg is not installed one sentence says how to get it."""
    monkeypatch.delitem(sys.modules, "fencepost_runtime.postgres")
    monkeypatch.delattr("fencepost_runtime.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(BackendError, match=r"pip install 'fencepost\[postgres\]'") as caught,
        own_database(tmp_path, "postgresql://"),
    ):
        pass
    one_sentence(caught.value)


def test_an_unknown_system_is_refused() -> None:
    """There is no backend but those that are there."""
    with pytest.raises(ValueError, match="no database system 'oracle'"):
        Database("oracle", "")
