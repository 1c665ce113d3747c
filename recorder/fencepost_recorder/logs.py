"""The log files of one recording: which there are, who wrote them, and whether their writers still live."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from fencepost_recorder.durable import storage_error
from fencepost_recorder.errors import RecorderError, printable
from fencepost_recorder.wal import MAX_SEQUENCE, Header, LogReader, open_log

_NAME = re.compile(r"([A-Za-z0-9_-]{1,128})(?:\.([1-9][0-9]{0,8}))?\.wal\Z")


@dataclass(frozen=True, slots=True)
class Log:
    """One segment of a log as it stood when it was listed: `bytes` of it belong to the recording.

    `producer` and `segment` are what its name says; `header` is None where it cannot be read or says otherwise.
    """

    path: Path
    producer: str
    segment: int
    bytes: int
    header: Header | None
    locked_now: bool

    def open(self) -> LogReader:
        """A reader over the bytes that belong to the recording; the caller closes its stream."""
        try:
            reader = open_log(self.path)
        except OSError as error:
            raise storage_error("read", self.path, error) from error
        reader.limit = min(reader.limit, self.bytes)
        return reader


def list_logs(folder: Path) -> list[Log]:
    """The segments of a folder's logs, in the order in which their producers started, each producer's in their order.

    Raises RecorderError for anything in it that is no log of ours, StorageError when it cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise storage_error("read", folder, error) from error
    found = [_look(path) for path in paths]
    started: dict[str, int] = {}
    for log in found:
        if log.header is not None:
            started[log.producer] = min(log.header.started_unix_nano, started.get(log.producer, MAX_SEQUENCE))
    return sorted(found, key=lambda log: (started.get(log.producer, 0), log.producer, log.segment))


def _look(path: Path) -> Log:
    try:
        plain = stat.S_ISREG(path.lstat().st_mode)
        name = _NAME.match(path.name)
        if not plain or name is None:
            raise RecorderError(f"{printable(path)} is no log of a recording: move it away, then seal again")
        locked = _is_locked(path)
        # The size is taken after the lock was found free: then nobody can have written since.
        reader = open_log(path)
    except OSError as error:
        raise storage_error("read", path, error) from error
    with reader.stream:
        header, producer, segment = reader.header, name[1], int(name[2] or 0)
        if header is not None and (header.producer, header.segment) != (producer, segment):
            header = None  # a copy, or renamed: its sequence numbers are another file's
        return Log(path, producer, segment, reader.limit, header, locked)


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
