"""Recordings that end in the middle: runs whose processes are all killed at once, while a scenario is under way."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fencepost_analyzer.run import TELEMETRY
from fencepost_recorder import Recording, begin, recover
from fencepost_recorder.wal import FrameType, open_log
from fencepost_runtime.backends import Database
from fencepost_runtime.processes import Spec
from fencepost_runtime.scenario import Scenario


def logged(directory: Path, word: str, times: int = 1) -> bool:
    """Whether the logs tell of something so often by now: what they hold survives whoever wrote it."""
    return sum(path.read_bytes().count(word.encode()) for path in (directory / "wal").glob("*")) >= times


def over(directory: Path, word: str) -> bool:
    """Whether a span that speaks of something has been told to its end by now."""
    for path in (directory / "wal").glob("*"):
        log = open_log(path)
        with log.stream:
            if any(frame.type == FrameType.END and word.encode() in frame.payload for frame in log.frames()):
                return True
    return False


def killed(
    scenario: Scenario,
    recordings: Path,
    name: str,
    when: Callable[[Path], bool],
    *,
    end: signal.Signals = signal.SIGKILL,
    limit: int | None = None,
) -> Recording:
    """Run a scenario on real processes; once `when(directory)`, kill the supervisor, with whom its actors die, and seal
    what is there. `limit`: bytes that no log can grow beyond, as on a full disk."""
    directory = begin(recordings, name)
    database = Database("sqlite", str(directory.parent / f"{name}.sqlite"))
    Spec(scenario, database, 0, TELEMETRY).write(directory.parent / f"{name}.json")
    limited = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash"] if limit is not None else []
    command = [*limited, sys.executable, "-P", "-m", "fencepost_runtime", str(directory.parent / f"{name}.json")]
    environment = {**os.environ, "FENCEPOST_WAL": str(directory / "wal"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        while not when(directory):
            assert process.poll() is None, "the run ended by itself"
            select.select([], [], [], 0.002)
        if end is signal.SIGKILL:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(end)
        process.wait()
        while _alive(process.pid):
            select.select([], [], [], 0.002)
    return recover(directory, tool_version="test")


def _alive(group: int) -> bool:
    """Whether any process of a group is left: the actors die with their supervisor, but not in the same moment.

    They are ours to bury if this process takes in orphans (a test of `record` may have made it a subreaper): the dead
    whom nobody waits for would stay in the group for ever.
    """
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
