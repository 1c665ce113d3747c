"""A process that works on a SQLite queue until it is empty or killed, and says what it was answered.

`contender.py DATABASE WORDS`: leases jobs, writes their effects and settles each in one transaction; gives every
third attempt back instead. What was answered goes to the file descriptor WORDS, one line an answer, in one write.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fencepost_runtime.operations import Batch, Lease, Leased, Retry, WriteAll
from fencepost_runtime.sqlite import SqliteBackend


def work(database: Path, say: int) -> None:
    backend = SqliteBackend(database)
    os.write(say, b"ready\n")
    while isinstance(leased := backend.apply(Lease("q", str(os.getpid()), 10**12), time.time_ns), Leased):
        os.write(say, f"leased {leased.job.id} {leased.token} {leased.position}\n".encode())
        if leased.token % 3 == 0 and leased.attempt < 3:
            backend.apply(Retry(leased.job.id, leased.token, 0, 9, True), time.time_ns)
            os.write(say, f"retried {leased.job.id} {leased.token}\n".encode())
            continue
        operation = WriteAll(leased.job.id, leased.job.effects, leased.token, True, True, True)
        batch = backend.apply(operation, time.time_ns)
        assert isinstance(batch, Batch)
        assert batch.settled is not None
        assert batch.settled.accepted
        os.write(say, f"done {leased.job.id} {leased.token}\n".encode())
    os.write(say, b"empty\n")
    backend.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
