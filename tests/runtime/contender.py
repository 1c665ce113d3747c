"""A process that works on a queue until it is empty or killed, and says what it was answered.

`contender.py DATABASE WORDS`, the database as JSON: leases jobs, writes their effects and settles each in one
transaction; gives every third attempt back instead. What was answered goes to the file descriptor WORDS, one line an
answer, in one write.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from fencepost_runtime.backends import Database
from fencepost_runtime.operations import Batch, Lease, Leased, Retry, WriteAll


def contend(database: Database, processes: int) -> list[str]:
    """What so many contenders, started together, said about jobs."""
    hear, say = os.pipe()
    command = [sys.executable, __file__, json.dumps(database.to_dict()), str(say)]
    started = [subprocess.Popen(command, pass_fds=[say]) for _ in range(processes)]
    os.close(say)
    with os.fdopen(hear) as words:
        lines = words.read().splitlines()
    assert [process.wait() for process in started] == [0] * processes
    assert lines.count("empty") == processes
    return [line for line in lines if " " in line]


def work(database: Database, say: int) -> None:
    backend = database.open()
    os.write(say, b"ready\n")
    while isinstance(leased := backend.apply(Lease("q", str(os.getpid()), 10**12), time.time_ns), Leased):
        os.write(say, f"leased {leased.job.id} {leased.token} {leased.position} {leased.at}\n".encode())
        if leased.token % 3 == 0 and leased.attempt < 3:
            backend.apply(Retry(leased.job.id, leased.token, 0, 9, True), time.time_ns)
            os.write(say, f"retried {leased.job.id} {leased.token}\n".encode())
            continue
        operation = WriteAll(leased.job.id, leased.job.effects, leased.token, True, True, True)
        batch = backend.apply(operation, time.time_ns)
        assert isinstance(batch, Batch)
        assert batch.settled is not None
        assert batch.settled.accepted
        os.write(say, f"done {leased.job.id} {leased.token} {batch.settled.position} {batch.settled.at}\n".encode())
    os.write(say, b"empty\n")
    backend.close()


if __name__ == "__main__":
    work(Database(**json.loads(sys.argv[1])), int(sys.argv[2]))
