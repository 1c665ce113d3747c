"""Kill processes at random moments of their work on a queue, and compare what they were told with what is there.

`killing.py DATABASE KILLS SECONDS SEED`, the database as JSON, prints one JSON object: rounds, kills, answers, and
every contradiction found; it ends after so many kills and as many answers, or after so many seconds. It has no
threads, so that it can fork: a round costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any

import psycopg
from contender import work

from fencepost_runtime.backends import Database
from fencepost_runtime.operations import Effect, Enqueue, Job

JOBS_A_ROUND = 40


def supply(database: Database, number: int) -> None:
    backend = database.open()
    for count in range(JOBS_A_ROUND):
        name = f"{number}-{count}"
        effects = (Effect(f"{name}/debit", "customer", -1), Effect(f"{name}/credit", "merchant", 1))
        backend.apply(Enqueue(Job(name, "q", "work", effects)), time.time_ns)
    backend.close()


def killed_at_random(database: Database, draw: random.Random) -> tuple[list[str], bool]:
    """Let one process work and kill it; answers the lines that it said, and whether it was still at work."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        work(database, say)
        os._exit(0)
    os.close(say)
    heard = os.read(hear, 65_536)  # It is ready: the moment is drawn within its work, not its start.
    time.sleep(draw.random() * 0.01)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while more := os.read(hear, 65_536):
        heard += more
    os.close(hear)
    return heard.decode().splitlines(), os.WIFSIGNALED(status)


def looking(database: Database) -> Any:
    """A connection that sees one moment of the database, whatever the dead left its server to do."""
    if database.system == "sqlite":
        return sqlite3.connect(database.address)
    connection = psycopg.connect(database.address, options=f"-c search_path={database.schema}")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection


def contradictions(database: Database, lines: list[str]) -> list[str]:
    """What a killed process was told but is not there, and what is there by half."""
    with closing(looking(database)) as connection:
        wrong = [] if database.system != "sqlite" else damages(connection)
        return wrong + differences(connection, lines)


def damages(connection: Any) -> list[str]:
    (damage,) = connection.execute("PRAGMA integrity_check").fetchone()
    return [] if damage == "ok" else [damage]


def differences(connection: Any, lines: list[str]) -> list[str]:
    rows = {row[0]: row[1:] for row in connection.execute("SELECT id, state, token, attempts FROM jobs")}
    written = dict(connection.execute("SELECT job_id, count(*) FROM effects GROUP BY job_id"))
    (positions,) = connection.execute("SELECT value FROM counters WHERE name = 'position'").fetchone()
    (tokens,) = connection.execute("SELECT coalesce(max(value), 0) FROM counters WHERE name = 'token/q'").fetchone()
    (newest,) = connection.execute("SELECT max(token) FROM jobs").fetchone()
    (attempts,) = connection.execute("SELECT sum(attempts) FROM jobs").fetchone()
    wrong = []
    for line in lines:
        match line.split():
            case ["leased", job, token, position, _]:
                if rows[job][1] < int(token) or positions < int(position):
                    wrong.append(f"forgotten: {line}")
            case ["retried", job, token]:
                if rows[job][:2] == ("leased", int(token)):
                    wrong.append(f"forgotten: {line}")
            case ["done", job, *_]:
                if rows[job][0] != "done":
                    wrong.append(f"forgotten: {line}")
    for job, (state, _, _) in rows.items():
        if written.get(job, 0) != (2 if state == "done" else 0):
            wrong.append(f"half applied: {job} is {state} with {written.get(job, 0)} effects")
    if not newest <= tokens == attempts:
        wrong.append(f"tokens {tokens}, newest {newest}, attempts {attempts}")
    return wrong


def main(database: Database, most: int, seconds: float, seed: int) -> None:
    draw = random.Random(seed)
    deadline = time.monotonic() + seconds
    rounds = kills = answers = 0
    wrong: list[str] = []
    while min(kills, answers) < most and time.monotonic() < deadline and not wrong:
        supply(database, rounds)
        lines, killed = killed_at_random(database, draw)
        rounds, kills, answers = rounds + 1, kills + killed, answers + len(lines) - 1
        wrong = contradictions(database, lines)
    sys.stdout.write(json.dumps({"rounds": rounds, "kills": kills, "answers": answers, "wrong": wrong}))


if __name__ == "__main__":
    main(Database(**json.loads(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
