"""`fencepost run --backend postgres`: a run like any other, refusals in one sentence, a password that nobody sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from analyzer.lab import fencepost, one_line, spawn
from postgres_server import GUEST, PASSWORD, VISITOR, as_role
from runtime.real_run import until

from fencepost_analyzer import run
from fencepost_recorder import open_recording

SECRET = "s3cret"
QUEUE = '[[queues]]\nname = "q"\nworkload = "background"\njobs = 1\nworkers = 1\n'
SLOW = '[[faults]]\nkind = "slow"\njob = "mail-1"\nstep = "work"\nindex = 0\nat_most_ms = 600000\n'
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "record-a-run.md"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fencepost'"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leased(here: Path) -> bool:
    """Whether a worker of the run has told of a lease."""
    return any(b"receive q" in log.read_bytes() for log in here.rglob("wal/*"))


def systems(recording: str) -> dict[str, str]:
    """The database systems that the spans of a recording name, by the first word of their names."""
    spans = open_recording(Path("recordings", recording)).spans()
    named = zip(spans["name"].to_pylist(), map(json.loads, spans["span_attributes"].to_pylist()), strict=True)
    return {name.split()[0]: said["db.system.name"] for name, said in named if "db.system.name" in said}


def schemas(address: str) -> list[Any]:
    with psycopg.connect(address) as connection:
        return connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fencepost%'").fetchall()


def test_a_run_on_postgresql_is_recorded_and_leaves_nothing_in_it(postgres: str) -> None:
    """The run says where it ran, its recording is judged like any other, and the database is as it was."""
    before = schemas(postgres)
    done = fencepost("run", "FM-004", "--backend", "postgres", "--database", postgres, "--id", "mine")
    assert (done.code, done.err) == (0, "")
    assert "scenario FM-004 on real processes over PostgreSQL, queue reports under early-ack" in done.out
    assert fencepost("check", "mine").code == 1
    assert systems("mine") == {"scenario": "postgresql", "write": "postgresql"}
    assert fencepost("replay", "mine", "--policy", "deduped").code == 0
    assert schemas(postgres) == before


def test_the_environment_names_the_database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """$FENCEPOST_POSTGRES is the database where --database names none, and means nothing without --backend postgres."""
    monkeypatch.setenv("FENCEPOST_POSTGRES", postgres)
    made = fencepost("run", "FM-003", "--near-miss", "--backend", "postgres", "--json")
    assert (made.code, made.json["backend"]) == (0, "postgres")
    other = fencepost("run", "FM-003", "--near-miss", "--json")
    assert (other.code, other.json["backend"]) == (0, "sqlite")
    assert systems(other.json["recording"]) == {"scenario": "sqlite", "write": "sqlite"}
    simulated = fencepost("run", "FM-003", "--near-miss", "--simulate", "--json")
    assert (simulated.code, simulated.json["backend"]) == (0, None)
    assert systems(simulated.json["recording"]) == {}


def test_a_password_is_nowhere_to_be_seen(postgres: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a password in $FENCEPOST_POSTGRES the run works, and it is neither shown, nor recorded, nor an argument of
    a process; the one file that it is in while the run lasts is its owner's alone, in a folder of its owner's."""
    seen: list[tuple[list[str], str, int, int]] = []
    start = subprocess.Popen

    def watched(command: list[str], **options: Any) -> Any:
        if command[0] != "git":
            spec = Path(command[-1])
            seen.append((command, spec.read_text(), spec.stat().st_mode & 0o777, spec.parent.stat().st_mode & 0o777))
        return start(command, **options)

    monkeypatch.setattr(run.subprocess, "Popen", watched)
    monkeypatch.setenv("FENCEPOST_POSTGRES", as_role(postgres, GUEST, PASSWORD))
    done = fencepost("run", "FM-003", "--backend", "postgres", "--id", "mine")
    assert done.code == 0
    ((command, spec, mode, folder),) = seen
    assert (SECRET in spec, mode, folder) == (True, 0o600, 0o700)
    assert SECRET not in " ".join(command) + done.out + done.err
    assert SECRET not in str(open_recording(Path("recordings", "mine")).spans().to_pylist())
    assert not [path for path in here.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not Path(command[-1]).exists()


@pytest.mark.parametrize(
    ("words", "database", "said"),
    [
        (("--backend", "oracle"), None, "--backend"),
        (("--backend", "postgres"), None, "--database postgresql://user@host:5432/database, or in $FENCEPOST_POSTGRES"),
        (("--backend", "postgres", "--simulate"), "{owner}", "leave out --simulate, or --backend postgres"),
        (("--database", "postgresql://"), None, "add --backend postgres"),
        (
            ("--backend", "postgres", "--database", "{guest}"),
            None,
            "$FENCEPOST_POSTGRES, or the password into $PGPASSW",
        ),
        (("--backend", "postgres", "--database", "nonsense"), None, "write it like postgresql://user@host:5432/datab"),
        (("--backend", "postgres"), "{nowhere}", "No such file or directory"),
        (("--backend", "postgres"), "{visitor}", 'GRANT CREATE ON DATABASE "postgres" TO "visitor"'),
        (("--backend", "postgres"), "{wrong}", "password authentication failed"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_and_leaves_no_recording(
    postgres: str, here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], database: str | None, said: str
) -> None:
    """An unknown backend, no database or one too many, no server, no right, a password in the wrong place: exit code 2
    and one sentence with the way out, before anything is recorded, and without the password."""
    known = {
        "owner": postgres,
        "guest": as_role(postgres, GUEST, PASSWORD),
        "visitor": as_role(postgres, VISITOR),
        "wrong": as_role(postgres, GUEST, f"{PASSWORD}2"),
        "nowhere": as_role(f"postgresql://fencepost@/db?host={here}", GUEST, PASSWORD),
    }
    if database is not None:
        monkeypatch.setenv("FENCEPOST_POSTGRES", database.format(**known))
    done = fencepost("run", "FM-003", *(word.format(**known) for word in words))
    assert (done.code, done.out, one_line(done.err)) == (2, "", True)
    assert said in done.err
    assert SECRET not in done.err
    assert list(here.iterdir()) == []


def test_a_run_whose_database_is_lost_keeps_what_it_recorded(postgres: str, here: Path) -> None:
    """When the server ends all connections of a run, the run fails in one sentence, what was recorded until then is
    sealed, and no schema stays."""
    before = schemas(postgres)
    Path("slow.toml").write_text(f'id = "slow"\n{QUEUE}{SLOW}', "utf-8")
    env = {**os.environ, "FENCEPOST_POSTGRES": postgres}
    process = spawn("run", "slow.toml", "--backend", "postgres", "--id", "mine", env=env)
    with psycopg.connect(postgres, autocommit=True) as administrator:
        # The supervisor's, the worker's and the reclaimer's: the producer is done.
        until(lambda: leased(here) and administrator.execute(SESSIONS).fetchone() == (3,), "the run at its work")
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fencepost'"
        )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, one_line(err)) == (2, "", True)
    # The server's last words, or that there were none: whichever came first.
    assert "The run failed (The queue's database refused to be read: " in err
    assert "terminating connection" in err or "closed the connection" in err
    assert "what it did until then is in recording mine" in err
    assert open_recording(Path("recordings", "mine")).manifest.spans > 3
    assert schemas(postgres) == before


def test_what_a_killed_run_leaves_in_the_database_is_found_as_the_page_says(postgres: str, here: Path) -> None:
    """SIGKILL of fencepost leaves the run's schema; the how-to page's one line of SQL names it once nobody is in it,
    not before, and what the line answers drops it."""
    before = schemas(postgres)
    (line,) = re.findall(r"```sql\n(SELECT .*)\n```", HOW_TO.read_text("utf-8"))
    with psycopg.connect(postgres, autocommit=True) as administrator:
        process = under_way(postgres, here)
        assert administrator.execute(line).fetchall() == []
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        until(lambda: administrator.execute(SESSIONS).fetchone() == (0,), "the end of the run's sessions")
        ((left,),) = [one for one in schemas(postgres) if one not in before]
        ((drop,),) = administrator.execute(line).fetchall()
        assert drop == f"DROP SCHEMA {left} CASCADE;"
        administrator.execute(drop)
    assert schemas(postgres) == before


@pytest.mark.parametrize("whom", [os.kill, os.killpg])
def test_a_run_that_is_ended_drops_its_schema(postgres: str, here: Path, whom: Callable[[int, int], None]) -> None:
    """By SIGTERM, whether fencepost alone is told or all its processes are; what it recorded is kept."""
    before = schemas(postgres)
    process = under_way(postgres, here)
    whom(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert (process.returncode, schemas(postgres)) == (143, before)
    assert open_recording(here / "recordings" / "mine").manifest.spans > 3


def under_way(postgres: str, here: Path) -> subprocess.Popen[str]:
    """A run of many seconds, called mine, at its work."""
    Path("slow.toml").write_text(f'id = "slow"\n{QUEUE}{SLOW}', "utf-8")
    env = {**os.environ, "FENCEPOST_POSTGRES": postgres}
    process = spawn("run", "slow.toml", "--backend", "postgres", "--id", "mine", env=env)
    until(lambda: leased(here), "the run at its work")
    return process


def test_a_live_replay_runs_where_the_recording_ran(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`replay --live` of a run on PostgreSQL runs on PostgreSQL, by what --database or the environment names, leaves
    nothing there, and says on which database it was; so says its own recording."""
    before = schemas(postgres)
    fencepost("run", "FM-002", "--backend", "postgres", "--database", postgres, "--id", "pg")
    done = fencepost("replay", "pg", "--live", "--database", postgres, "--id", "again")
    assert (done.code, done.err) == (0, "")
    assert "the live run was on PostgreSQL, as the recording was" in done.out
    assert systems("again") == {"scenario": "postgresql", "write": "postgresql"}
    monkeypatch.setenv("FENCEPOST_POSTGRES", postgres)
    made = fencepost("replay", "pg", "--live", "--policy", "fenced", "--json").json
    assert (made["recorded_on"], made["ran_on"]) == ("postgresql", "postgresql")
    assert systems(made["live"])["scenario"] == "postgresql"
    assert schemas(postgres) == before


def test_a_live_replay_runs_on_another_database_when_told_to(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--backend decides against the recording, and a simulated one or one on SQLite runs on SQLite by itself, whatever
    the environment names."""
    monkeypatch.setenv("FENCEPOST_POSTGRES", postgres)
    fencepost("run", "FM-002", "--backend", "postgres", "--id", "pg")
    fencepost("run", "FM-002", "--simulate", "--id", "virtual")
    for recording, words, said, system in (
        ("pg", ("--backend", "sqlite"), "on SQLite, the recording on PostgreSQL", "sqlite"),
        ("virtual", (), "on SQLite, the recording in the simulator", "sqlite"),
        ("virtual", ("--backend", "postgres"), "on PostgreSQL, the recording in the simulator", "postgresql"),
    ):
        name = f"{recording}-on-{system}"
        done = fencepost("replay", recording, "--live", *words, "--id", name)
        assert (done.code, done.err) == (0, "")
        assert f"the live run was {said}" in done.out
        assert systems(name)["scenario"] == system


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--live",), "recording pg ran on PostgreSQL: name a database by --database postgresql://user@host"),
        (("--live",), "or in $FENCEPOST_POSTGRES, or add --backend sqlite"),
        (("--live", "--backend", "sqlite", "--database", "{owner}"), "add --backend postgres"),
        (("--live", "--database", "{guest}"), "the password into $PGPASSWORD"),
        (("--live", "--database", "{visitor}"), "GRANT CREATE ON DATABASE"),
        (("--backend", "postgres"), "--backend says on which database a live replay runs: use it with --live"),
        (("--policy", "safe", "--database", "{owner}"), "--database says on which database a live replay runs"),
    ],
)
def test_a_live_replay_that_cannot_be_is_one_sentence(postgres: str, words: tuple[str, ...], said: str) -> None:
    """No server for a recording of PostgreSQL, one too many, one that cannot be used, or a database for the simulator:
    exit code 2, one sentence with the way out, and nothing is recorded."""
    fencepost("run", "FM-003", "--backend", "postgres", "--database", postgres, "--id", "pg")
    known = {"owner": postgres, "guest": as_role(postgres, GUEST, PASSWORD), "visitor": as_role(postgres, VISITOR)}
    done = fencepost("replay", "pg", *(word.format(**known) for word in words))
    assert (done.code, done.out, one_line(done.err)) == (2, "", True)
    assert said in done.err
    assert SECRET not in done.err
    assert [one.name for one in Path("recordings").iterdir()] == ["pg"]
