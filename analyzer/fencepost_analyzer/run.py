"""Run a scenario and record it: real processes, or the simulator, through the same spans into the same recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from fencepost_analyzer.errors import AnalyzerError
from fencepost_analyzer.version import __version__
from fencepost_recorder import Recording, begin, seal
from fencepost_recorder.heeding import undisturbed
from fencepost_recorder.scratch import scratch
from fencepost_runtime.backends import own_database
from fencepost_runtime.processes import Spec
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.supervisor import INTERRUPTED, OVERDUE

TELEMETRY = "fencepost_recorder:install"
# After Ctrl-C the supervisor kills its actors and takes stock; more than this and it is killed itself.
GRACE_S = 10


class RunFailed(AnalyzerError):
    """The run did not come to its end."""


def run_processes(
    scenario: Scenario,
    recordings: Path,
    *,
    recording_id: str | None = None,
    seed: int = 0,
    postgres: str | None = None,
) -> Recording:
    """Run a scenario on real processes over SQLite, or over PostgreSQL, in a schema of its own, if `postgres` is a
    connection string; answers the sealed recording.

    Raises BackendError, before anything is recorded, if that database cannot be used, RunFailed if the supervisor
    failed or the scenario's at_most_ms ran out, RecorderError if the recording cannot be kept, KeyboardInterrupt after
    Ctrl-C. Whatever was recorded until then is sealed first.
    """
    return _run(scenario, recordings, recording_id, seed, postgres)


def run_simulated(scenario: Scenario, recordings: Path, *, recording_id: str | None = None, seed: int = 0) -> Recording:
    """Run a scenario in the simulator; the same spans, in virtual time. Raises as `run_processes` does."""
    return _run(scenario, recordings, recording_id, seed, simulated=True)


def new_id(scenario: Scenario) -> str:
    """A recording's id that sorts by time: `20261123-101530-fm-003-1a2b`."""
    word = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in scenario.id.lower())[:32]
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{word}-{token_hex(2)}"


def _run(
    scenario: Scenario,
    recordings: Path,
    recording_id: str | None,
    seed: int,
    postgres: str | None = None,
    simulated: bool = False,
) -> Recording:
    with (
        scratch(scratch_parent(), f"fencepost-run-{os.getuid()}-") as (folder, lock),
        own_database(folder, postgres) as database,
    ):
        directory = begin(recordings, recording_id or new_id(scenario))
        spec = folder / "spec.json"
        Spec(scenario, database, seed, TELEMETRY, simulated).write(spec)
        environment = {**os.environ, "FENCEPOST_WAL": str(directory / "wal")}
        # -P: nothing is imported from the directory that the user happens to stand in.
        command = [sys.executable, "-P", "-m", "fencepost_runtime", str(spec)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, pass_fds=(lock,)) as process:
            try:
                _, errors = process.communicate()
            except KeyboardInterrupt:
                _end(process)
                raise
            finally:
                # Also after a failure: what was recorded until then is evidence. A moment that nobody cuts short.
                with undisturbed():
                    recording = seal(directory, tool_version=__version__, seed=seed, commit=commit())
    if process.returncode == INTERRUPTED:
        # Also where our own SIGINT is ignored, as a shell does for what it starts in the background.
        raise KeyboardInterrupt
    if process.returncode == OVERDUE:
        raise RunFailed(
            f"The run did not come to its end within at_most_ms = {scenario.at_most_ms:,} ms and was ended; recording "
            f"{recording.id} holds what happened until then. Allow more, or look for what it waits for."
        )
    if process.returncode:
        last = (errors.strip().splitlines() or ["no reason was given"])[-1]
        raise RunFailed(f"The run failed ({last}); what it did until then is in recording {recording.id}.")
    return recording


def scratch_parent() -> Path:
    """Where the run's queue lives: in memory if it can, so that a slow disk does not decide who loses a lease."""
    return Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def commit() -> str | None:
    """The commit that this code was checked out at; None when it was installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
