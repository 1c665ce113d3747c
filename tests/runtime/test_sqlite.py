"""What SQLite promises beyond the conformance suite: processes side by side, and death in the middle of a step."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from runtime.contender import contend
from runtime.support import Desk, ManualClock, a_job, kill

from fencepost_runtime.backends import Database
from fencepost_runtime.errors import BackendError
from fencepost_runtime.operations import Effect, Enqueue, Write
from fencepost_runtime.sqlite import SqliteBackend


def test_two_processes_never_lease_the_same_job_at_once(tmp_path: Path) -> None:
    """Processes that lease side by side are granted each lease once, and finish every job once between them."""
    database = tmp_path / "queue.sqlite"
    desk = Desk(SqliteBackend(database))
    desk.enqueue(*(f"job-{number}" for number in range(150)))
    told = [lines.split() for lines in contend(Database("sqlite", str(database)), processes=3)]
    leases = sorted(int(words[2]) for words in told if words[0] == "leased")
    done = [words[1] for words in told if words[0] == "done"]
    assert leases == list(range(1, len(leases) + 1))
    assert sorted(done) == sorted(f"job-{number}" for number in range(150))
    assert desk.held() == {}
    assert desk.backend.balances() == {"debit": 1_500, "credit": 3_000}
    desk.backend.close()


def test_processes_that_open_a_new_database_together_all_get_it(tmp_path: Path) -> None:
    """Whoever comes first makes the schema; the others wait for it instead of failing."""
    assert contend(Database("sqlite", str(tmp_path / "new.sqlite")), processes=4) == []


def test_a_new_database_that_another_is_just_writing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There SQLite itself does not wait: see `_switch_to_wal`."""
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("fencepost_runtime.sqlite.time.sleep", lambda _seconds: other.execute("COMMIT"))
    SqliteBackend(tmp_path / "new.sqlite").close()
    other.close()


def test_nothing_told_is_lost_and_nothing_is_applied_by_half() -> None:
    """Processes killed at random moments of their transactions leave all that was answered, and nothing by half."""
    _kill(60, seconds=30, seed=1)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_in_a_minute_of_killing(seed: int) -> None:
    """The same for a minute and other seeds."""
    _kill(1_000_000, seconds=60, seed=seed)


def _kill(kills: int, seconds: float, seed: int) -> None:
    # The death of a process is the same on every disk: in memory there are more of them in the time.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        kill(Database("sqlite", str(Path(directory, "queue.sqlite"))), kills, seconds, seed)


def test_a_refused_step_leaves_nothing_behind(tmp_path: Path) -> None:
    """An error in the middle of a transaction rolls all of it back, and the next step goes on as if it never began."""
    desk = Desk(SqliteBackend(tmp_path / "queue.sqlite"))
    desk.enqueue("a")
    poison = Effect("k", "acc", 2**63)
    with pytest.raises(BackendError, match="refused a step"):
        desk.do(Write("a", poison, 1, False, False))
    assert desk.backend.balances() == {}
    assert desk.position() == 2
    desk.backend.close()


def test_a_name_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    """A text that is not Unicode is refused as a BackendError, like anything else that the database will not take."""
    desk = Desk(SqliteBackend(tmp_path / "queue.sqlite"))
    with pytest.raises(BackendError, match="refused a step"):
        desk.do(Enqueue(a_job("half \ud800 a character")))
    assert desk.position() == 1
    desk.backend.close()


def test_an_interrupted_step_is_rolled_back(tmp_path: Path) -> None:
    """Ctrl-C inside a transaction leaves neither a change nor a lock."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    backend = SqliteBackend(tmp_path / "queue.sqlite")
    with pytest.raises(KeyboardInterrupt):
        backend.apply(Enqueue(a_job()), interrupted)
    other = Desk(SqliteBackend(tmp_path / "queue.sqlite"))
    other.enqueue("a")
    assert Desk(backend).held() == {"a": "ready"}
    backend.close()
    other.backend.close()


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    """Closing and opening the file again changes nothing: jobs, tokens, positions and balances go on."""
    desk = Desk(SqliteBackend(tmp_path / "queue.sqlite"))
    desk.enqueue("a", "b")
    desk.write_all(desk.lease(), settle=True)
    desk.backend.close()
    again = Desk(SqliteBackend(tmp_path / "queue.sqlite"))
    assert again.backend.balances() == {"debit": 10, "credit": 20}
    leased = again.lease()
    assert (leased.job.id, leased.token, leased.position) == ("b", 2, 7)
    again.backend.close()


def test_a_closed_backend_refuses(tmp_path: Path) -> None:
    """After close every step and every look is refused as a BackendError."""
    backend = SqliteBackend(tmp_path / "queue.sqlite")
    backend.close()
    with pytest.raises(BackendError, match="refused a step"):
        backend.apply(Enqueue(a_job()), ManualClock())
    with pytest.raises(BackendError, match="refused to be read"):
        backend.balances()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file of something else, and a folder, are refused in one sentence that names the path, and left as they are."""
    stranger = tmp_path / "notes.txt"
    stranger.write_text("not a database, but long enough to be taken for one" * 100)
    for path in (stranger, tmp_path):
        with pytest.raises(BackendError, match="cannot be used") as caught:
            SqliteBackend(path)
        assert str(path) in str(caught.value)
    assert stranger.read_text().startswith("not a database")


def test_the_clock_is_read_while_the_database_is_locked(tmp_path: Path) -> None:
    """Decisions fall in the order of their times: nobody else can commit between the clock's reading and the commit."""
    database = tmp_path / "queue.sqlite"
    backend = SqliteBackend(database)
    other = sqlite3.connect(database, isolation_level=None, timeout=0)

    def clock() -> int:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return 1

    backend.apply(Enqueue(a_job()), clock)
    other.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
    other.close()
    backend.close()
