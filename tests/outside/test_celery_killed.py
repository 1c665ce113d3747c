"""Celery's prefork pool under `opentelemetry-instrument`, its processes killed at random: no attempt is missing.

The application knows nothing of us, nor of tracing. Each attempt that began, as it says itself, has to be in the
recording: with an end, or as started and never ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import redis
from celery import Celery
from outside.servers import HERE, PATIENCE_S, process_group

from fencepost_recorder import Recording, begin, seal

CONCURRENCY = 4
# Tasks that wait at any time; each takes up to so many milliseconds.
WAITING, LONGEST_MS = 40, 60
# In one of so many kills it is the parent that dies, and a new worker is started.
PARENT_EVERY = 5


class Plain:
    """The application of plain.py, recorded into a log without a change to it."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.directory = begin(folder, "killed")
        self.truth, self.log = folder / "truth", folder / "celery.log"

    def env(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FENCEPOST_WAL": str(self.directory / "wal"),
            "OTEL_SERVICE_NAME": "plain",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "SHOP_BROKER": self.broker,
            "PLAIN_TRUTH": str(self.truth),
        }

    @contextmanager
    def worker(self, number: int) -> Iterator[int]:
        """A worker with its pool; yields the parent's process id, and leaves nobody behind."""
        instrument = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        command = [instrument, sys.executable, "-m", "celery", "--app", "plain", "worker"]
        options = ["--pool", "prefork", "--concurrency", str(CONCURRENCY), "--hostname", f"w{number}@one"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with process_group([*command, *options, *quiet], self.log, self.env()) as leader:
            yield leader.pid
        # A killed parent's children go on by themselves.
        until = time.monotonic() + PATIENCE_S
        while left := group_of(leader.pid):
            assert time.monotonic() < until, f"{left} do not die"
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def told(self) -> list[list[str]]:
        return [line.split() for line in self.truth.read_text().splitlines()] if self.truth.exists() else []


def lives(pid: int) -> bool:
    """Whether a process runs: one that was killed and not yet waited for does not."""
    return Path(f"/proc/{pid}/exe").exists()


def children_of(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children")
    return [child for child in map(int, told.read_text().split()) if lives(child)] if told.exists() else []


def group_of(leader: int) -> list[int]:
    """The processes of a group that run, its leader's death notwithstanding."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(group) == leader and state != "Z":
                members.append(int(stat.parent.name))
    return members


def campaign(plain: Plain, kills: int, random: Random) -> Counter[str]:
    """Kills so many processes, at random moments of work that never ends; says how many of which."""
    killed, number = Counter[str](), 0
    with redis.Redis.from_url(plain.broker) as broker:
        while killed.total() < kills:
            number += 1
            with plain.worker(number) as parent:
                while killed.total() < kills and lives(parent):
                    refill(plain, broker, random)
                    await_progress(plain, random)
                    if killed.total() % PARENT_EVERY == PARENT_EVERY - 1:
                        os.kill(parent, signal.SIGKILL)
                        killed["parents"] += 1
                        break
                    if children := children_of(parent):
                        os.kill(random.choice(children), signal.SIGKILL)
                        killed["children"] += 1
    return killed


def refill(plain: Plain, broker: redis.Redis, random: Random) -> None:
    lacking = WAITING - int(broker.llen("celery"))  # type: ignore[arg-type]
    if lacking > WAITING // 2:
        with Celery(broker=plain.broker) as producer:
            for _ in range(lacking):
                producer.send_task("plain.work", [random.randint(0, LONGEST_MS)], ignore_result=True)


def await_progress(plain: Plain, random: Random) -> None:
    """Wait until some more lines were told, and a random moment longer."""
    wanted, until = len(plain.told()) + random.randint(2, 12), time.monotonic() + PATIENCE_S
    while len(plain.told()) < wanted:
        assert time.monotonic() < until, f"no task was worked on for {PATIENCE_S} s: {plain.log.read_text()[-2_000:]}"
        time.sleep(0.005)
    time.sleep(random.random() * LONGEST_MS / 1_000)


@dataclass(frozen=True)
class Compared:
    """What the tasks said of themselves beside what the recording has; `missing` counts attempts by process."""

    said: int
    ended: int
    never_ended: int
    missing: dict[str, int]


def compared(plain: Plain, recording: Recording) -> Compared:
    """Every attempt that said that it began, looked for in its process.

    Celery's instrumentation names a span's job when the span ends. Of a process killed before that the span says no
    more than that an attempt began, and it can stand for one attempt alone.
    """
    ended, never_ended = Counter[tuple[str, str]](), Counter[str]()
    for row in recording.spans().to_pylist():
        if row["name"].startswith("run/"):
            process = str(json.loads(row["resource_attributes"])["process.pid"])
            if row["duration_time_unix_nano"] is None:
                never_ended[process] += 1
            else:
                ended[json.loads(row["span_attributes"])["messaging.message.id"], process] += 1
    said = Counter((job, process) for what, job, process in plain.told() if what == "began")
    without_end = Counter(process for _, process in (said - ended).elements())
    return Compared(said.total(), ended.total(), never_ended.total(), dict(without_end - never_ended))


def test_no_attempt_of_a_killed_pool_is_missing(redis_address: str, tmp_path: Path) -> None:
    """Five kills, the parent's among them."""
    plain = Plain(f"{redis_address}/2", tmp_path)
    assert campaign(plain, 5, Random(1)) == {"children": 4, "parents": 1}
    recording = seal(plain.directory, tool_version="test")
    found = compared(plain, recording)
    assert found.missing == {}
    assert found.ended > 10
    assert found.never_ended > 0
    assert recording.gaps().num_rows == 0


@pytest.mark.campaign
def test_no_attempt_is_missing_after_a_hundred_kills(
    redis_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Plain(f"{redis_address}/3", tmp_path)
    killed = campaign(plain, 100, Random(2))
    recording = seal(plain.directory, tool_version="test")
    found, gaps = compared(plain, recording), recording.gaps().num_rows
    with capsys.disabled():
        told = {"figure": "celery_attempts_missing_after_kills", "value": sum(found.missing.values()), "of": found.said}
        more = {"ended": found.ended, "never_ended": found.never_ended, "gaps": gaps}
        sys.stdout.write(json.dumps({**told, **killed, **more}) + "\n")
    assert (found.missing, gaps) == ({}, 0)
