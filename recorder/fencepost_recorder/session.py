"""Making a recording while something runs: a receiver, the command or a wait, staging beside it."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fencepost_recorder import folder
from fencepost_recorder.bystander import Bystander
from fencepost_recorder.heeding import ENDING, Heeded
from fencepost_recorder.receiver import Counts, Receiver
from fencepost_recorder.supervise import Ended, Rules, Supervisor
from fencepost_recorder.surroundings import surroundings

_LOOPBACK = "127.0.0.1"
# A process that works through a backlog is started when there is this much, and looked for this often.
_BACKLOG_BYTES = 32 * 1024 * 1024
_LOOK_S = 2.0
_STAGE = """
import os, sys
from pathlib import Path
from fencepost_recorder import stage
os.nice(10)
stage(Path(sys.argv[1]))
"""
_SEGMENT = re.compile(r"([A-Za-z0-9_-]+)(?:\.([0-9]+))?\.wal")


@dataclass(frozen=True, slots=True)
class Ran:
    """How the command ended, and what the receiver took meanwhile."""

    ended: Ended
    received: Counts


class Staging:
    """Turns closed parts of the log into Parquet while recording goes on, in a process of its own, one at a time.

    What it leaves undone sealing does; so nothing depends on it but the time that sealing takes. Its process ids are
    put into `own`.
    """

    def __init__(self, directory: Path, own: set[int] | None = None) -> None:
        self._directory = directory
        self._own = own if own is not None else set()
        self._child: subprocess.Popen[bytes] | None = None
        self._look_at = 0.0

    def tick(self) -> None:
        """To be called now and then."""
        if self._child is not None and self._child.poll() is not None:
            self._own.discard(self._child.pid)
            self._child = None
        if self._child is None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            if _closed_bytes(self._directory / folder.WAL) >= _BACKLOG_BYTES:
                self._start()

    def stop(self, patience_seconds: float = 30.0) -> None:
        """Let what is under way come to its end, or cut it off: sealing does it again."""
        if self._child is not None:
            try:
                self._child.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", _STAGE, str(self._directory)]
        null = subprocess.DEVNULL
        with suppress(OSError):
            # In a session of its own, for Ctrl-C is not meant for it.
            self._child = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
            self._own.add(self._child.pid)


def _closed_bytes(wal: Path) -> int:
    """The bytes of the segments that their processes have done with: all but the last of each."""
    segments: dict[str, list[tuple[int, int]]] = {}
    with suppress(OSError), os.scandir(wal) as entries:
        for entry in entries:
            if (match := _SEGMENT.fullmatch(entry.name)) is not None:
                segments.setdefault(match[1], []).append((int(match[2] or 0), entry.stat().st_size))
    return sum(size for found in segments.values() for _, size in sorted(found)[:-1])


def record_command(
    directory: Path,
    command: Sequence[str],
    heeded: Heeded,
    *,
    environment: Mapping[str, str],
    grace_seconds: float,
    end_rest: bool,
    say: Callable[[str], None],
) -> Ran:
    """Run a command and record all of its processes into the recording that was begun in `directory`.

    Raises CommandNotStarted, ReceiverError, StorageError; where the command was not started the empty recording is
    taken away.
    """
    own: set[int] = set()
    supervisor: Supervisor | None = None
    try:
        bystander = Bystander()  # before there are threads
        staging = Staging(directory, own)
        receiver = Receiver(directory / folder.WAL, http=(_LOOPBACK, 0))
        rules = Rules(grace_seconds, end_rest, say, staging.tick, own)
        try:
            receiver.start()
            assert receiver.http_address is not None
            around = surroundings(environment, directory / folder.WAL, http=receiver.http_address)
            try:
                supervisor = Supervisor(directory / folder.WAL, bystander, heeded, rules)
                ended = supervisor.run(command, around)
            finally:
                receiver.stop()
                staging.stop()
            return Ran(ended, receiver.counts())
        finally:
            bystander.dismiss()
    except BaseException:
        if supervisor is None or not supervisor.started:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def listen(directory: Path, receiver: Receiver, heeded: Heeded, tick: Callable[[Counts], None]) -> Counts:
    """Receive until Ctrl-C or a signal to end; `tick` is called each second with what was answered so far.

    `receiver` has been started, and is stopped then.
    """
    staging = Staging(directory)
    try:
        while not ENDING.intersection(heeded.numbers()):
            tick(receiver.counts())
            staging.tick()
            select.select([heeded.fileno()], [], [], 1.0)
    finally:
        receiver.stop()
        staging.stop()
    return receiver.counts()
