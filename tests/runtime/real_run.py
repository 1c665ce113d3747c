"""One run of real processes, started, watched and ended by a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fencepost_runtime.backends import Database
from fencepost_runtime.operations import Held, Inventory
from fencepost_runtime.processes import Spec
from fencepost_runtime.scenario import Scenario

HERE = Path(__file__).parent
# Longer than anything takes on a busy machine; no test waits so long unless it fails.
DEADLINE_S = 30.0
T = TypeVar("T")


@dataclass
class Told:
    """A span as far as it was told: `end` None if it never ended. Times are Unix nanoseconds."""

    actor: str
    name: str
    start: int
    end: int | None
    error: str | None
    attributes: dict[str, Any]


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {DEADLINE_S} s")


def state(pid: int) -> str:
    """A process's state as Linux says it: R, S, T (stopped), Z …; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclass
class Run:
    process: subprocess.Popen[str]
    directory: Path
    spec: Spec

    def spans(self) -> list[Told]:
        """What was told so far, in each actor's own order."""
        spans: list[Told] = []
        for path in sorted(self.directory.glob("*.jsonl")):
            actor = bytes.fromhex(path.stem).decode()
            open_spans: dict[int, Told] = {}
            for text in path.read_text().splitlines():
                line = json.loads(text)
                if line["what"] == "shutdown":
                    continue
                told = Told(actor, line["name"], line["start"], line["end"], line["error"], line["attributes"])
                if line["what"] == "start":
                    open_spans[line["id"]] = told
                    spans.append(told)
                else:
                    open_spans[line["id"]].__dict__.update(told.__dict__)
        return spans

    def told(self, name: str, **attributes: Any) -> list[Told]:
        """The spans of a name, or beginning with its first word, with these attributes (`job_attempt` etc.)."""
        wanted = {f"job.{key}": value for key, value in attributes.items()}
        return [
            span for span in self.spans() if span.name.split()[0] == name and wanted.items() <= span.attributes.items()
        ]

    def await_told(self, name: str, **attributes: Any) -> Told:
        return until(lambda: self.told(name, **attributes), f"{name} {attributes}")[0]

    def orderly(self) -> set[str]:
        """The actors that came to their own end."""
        paths = self.directory.glob("*.jsonl")
        return {bytes.fromhex(path.stem).decode() for path in paths if '{"what": "shutdown"}' in path.read_text()}

    def children(self) -> list[int]:
        """The process ids of the actors that live."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def ended(self) -> tuple[int, str]:
        """Wait for the end; answers the exit code and what was said on standard error."""
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, errors

    def held(self) -> dict[str, str]:
        """What the queues hold, by the database itself."""
        backend = self.spec.database.open()
        held: dict[str, str] = {}
        for queue in self.spec.scenario.queues:
            inventory = backend.apply(Inventory(queue.name), time.time_ns)
            assert isinstance(inventory, Held)
            held |= dict(inventory.jobs)
        backend.close()
        return held

    def balances(self) -> dict[str, int]:
        backend = self.spec.database.open()
        balances = backend.balances()
        backend.close()
        return balances


@contextmanager
def running(
    directory: Path,
    scenario: Scenario,
    telemetry: str = "telemetry:to_files",
    simulated: bool = False,
    database: Database | None = None,
) -> Iterator[Run]:
    """Start a run in a process group of its own; whatever is left of it afterwards is killed."""
    spec = Spec(scenario, database or Database("sqlite", str(directory / "queue.sqlite")), 0, telemetry, simulated)
    spec.write(directory / "spec.json")
    path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "fencepost_runtime", str(directory / "spec.json")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "RUNTIME_SPANS": str(directory)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Run(process, directory, spec)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stderr is not None
        process.stderr.close()
