"""Several units converted at once, each by a process of its own.

The processes are started anew, not forked: this one may have threads. They hold the recording's lock with it, so that
nobody seals the recording while one of them still writes, and die with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fencepost_recorder import units
from fencepost_recorder.errors import RecorderError, RecordingDamaged, StorageError, printable
from fencepost_recorder.logs import Log, list_logs

MAX_PROCESSES = 8
_MAIN = "from fencepost_recorder.workers import main; main()"
_ERRORS = {one.__name__: one for one in (StorageError, RecordingDamaged, RecorderError)}
_PR_SET_PDEATHSIG = 1


def convert(directory: Path, groups: Sequence[Sequence[Log]], first: int, lock: int) -> None:
    """Make a unit of each group, numbered from `first`; `lock` is the descriptor that holds the recording's lock.

    Raises StorageError, RecordingDamaged.
    """
    processes = min(len(groups), len(os.sched_getaffinity(0)), MAX_PROCESSES)
    if processes < 2 or not sys.executable:
        for number, group in enumerate(groups):
            units.make(directory, first + number, group)
        return
    folder = str(groups[0][0].path.parent)
    tasks = [(first + number, [log.path.name for log in group]) for number, group in enumerate(groups)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for share in range(processes):
            started.append(_start(directory, folder, tasks[share::processes], lock))
        for process in started:
            _await(process, directory)
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _start(directory: Path, folder: str, tasks: Sequence[object], lock: int) -> subprocess.Popen[bytes]:
    """A process that does the tasks. Nothing is imported from the folder that it happens to stand in (-P)."""
    command = [sys.executable, "-P", "-c", _MAIN]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        # In a session of its own, for Ctrl-C is meant for us: we end it.
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=null, pass_fds=(lock,), start_new_session=True
        )
    except OSError as error:
        raise StorageError(f"cannot start a process to convert the log: {error.strerror}; seal again") from error
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps([os.getpid(), str(directory), folder, tasks]).encode())
    return process


def _await(process: subprocess.Popen[bytes], directory: Path) -> None:
    assert process.stdout is not None
    said = process.stdout.read()
    code = process.wait()
    try:
        kind, sentence = json.loads(said if code == 0 else b"")
    except ValueError:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise StorageError(
            f"a process that converted the log of {printable(directory)} ended before it was done ({how}): see that "
            "there is enough memory, then seal again"
        ) from None
    if kind:
        raise _ERRORS.get(kind, RecorderError)(sentence)


def main() -> None:
    """What such a process does: the tasks that its standard input names. It answers with an error's kind and words."""
    parent, directory, folder, tasks = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it was gone before it could be told
    said = ["", ""]
    try:
        logs = {log.path.name: log for log in list_logs(Path(folder))}
        for number, names in tasks:
            units.make(Path(directory), number, [logs[name] for name in names])
    except RecorderError as error:
        said = [type(error).__name__, str(error)]
    sys.stdout.write(json.dumps(said))
