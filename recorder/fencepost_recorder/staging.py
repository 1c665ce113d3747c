"""Staging: closed segments become Parquet while recording goes on, so that little is left to do when it is sealed."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from fencepost_recorder import durable, folder, manifest, units
from fencepost_recorder.errors import RecorderError, RecordingNotFound, printable
from fencepost_recorder.logs import Log, list_logs
from fencepost_recorder.units import Unit

# A unit is so much of the log, or a single segment: what is converted at a time, and done again after a crash.
UNIT_BYTES = 64 * 1024 * 1024
# The processes of a killed sealer hold its lock until they are up and see that it is gone: that long at most.
PATIENCE_S, _LOOK_S = 5.0, 0.02


def stage(directory: Path) -> int:
    """Convert the segments of a recording's log that will never change again; how many spans they held.

    May be called at any time: while processes record, after a crash, and when there is nothing to do (then it is 0).
    A segment is removed once what became of it is on disk. Raises RecordingNotFound, RecordingDamaged, StorageError
    (nothing is lost: stage again, or seal), or RecorderError while somebody else stages or seals the recording.
    """
    directory = Path(directory).absolute()
    with alone(directory):
        wal = directory / folder.WAL
        if (directory / manifest.NAME).exists() or wal.is_symlink() or not wal.is_dir():
            return 0
        known = units.load(directory)
        units.clear(directory, known)
        logs = list_logs(wal)
        staged = {name for unit in known for name in unit.segments}
        _remove(wal, [log for log in logs if log.path.name in staged])
        number = next_number(known)
        spans = 0
        for group in grouped(log for log in closed(logs) if log.path.name not in staged):
            spans += units.make(directory, number, group)
            _remove(wal, group)
            number += 1
        return spans


@contextmanager
def alone(directory: Path) -> Iterator[int]:
    """Hold the directory's lock, of which this is a descriptor; it is released with the process, however that ends.

    Raises RecorderError when somebody else holds it for long: what a killed sealer had started notices in a moment.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RecordingNotFound(f"there is no recording in {printable(directory)}") from error
    try:
        _lock(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                sentence = f"{printable(directory)} is being sealed by another process: wait for it"
                raise RecorderError(sentence) from error
        except OSError as error:
            raise durable.storage_error("lock", directory, error) from error
        time.sleep(_LOOK_S)


def closed(logs: Iterable[Log]) -> Iterator[Log]:
    """The segments that will never change again though their process may live: all but the last of each.

    Whoever begins the next segment lets go of the lock on this one, after the last frame in it.
    """
    for _, group in groupby(logs, key=lambda log: log.producer):
        *others, _ = group
        for log in others:
            if log.header is not None and log.header.locked and not log.locked_now:
                yield log


def grouped(logs: Iterable[Log]) -> Iterator[list[Log]]:
    """Segments in units of bounded size."""
    group: list[Log] = []
    size = 0
    for log in logs:
        if group and size + log.bytes > UNIT_BYTES:
            yield group
            group, size = [], 0
        group.append(log)
        size += log.bytes
    if group:
        yield group


def next_number(known: Sequence[Unit]) -> int:
    """The number of the next unit."""
    return known[-1].number + 1 if known else 0


def _remove(wal: Path, logs: Sequence[Log]) -> None:
    for log in logs:
        durable.remove(log.path)
    if logs:
        durable.sync_directory(wal)
