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
from fencepost_recorder.wal import Header, LogReader, open_log

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}\.wal\Z")


@dataclass(frozen=True, slots=True)
class Log:
    """One log file as it stood when it was listed: `bytes` of it belong to the recording.

    `alive` is None when it cannot be told: its producer had no lock and did not close.
    """

    path: Path
    bytes: int
    header: Header | None
    locked_now: bool

    @property
    def producer(self) -> str:
        """The producer's name; a file without a readable header keeps its own."""
        return self.header.producer if self.header is not None else self.path.stem

    def open(self) -> LogReader:
        """A reader over the bytes that belong to the recording; the caller closes its stream."""
        try:
            reader = open_log(self.path)
        except OSError as error:
            raise storage_error("read", self.path, error) from error
        reader.limit = min(reader.limit, self.bytes)
        return reader


def list_logs(folder: Path) -> list[Log]:
    """The logs of a folder, in the order in which their producers started.

    Raises RecorderError for anything in it that is no log of ours, StorageError when it cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise storage_error("read", folder, error) from error
    found = [_look(path) for path in paths]
    return sorted(found, key=lambda log: (log.header.started_unix_nano if log.header else 0, log.path.name))


def _look(path: Path) -> Log:
    try:
        plain = stat.S_ISREG(path.lstat().st_mode)
        if not plain or not _NAME.match(path.name):
            raise RecorderError(f"{printable(path)} is no log of a recording: move it away, then seal again")
        locked = _is_locked(path)
        # The size is taken after the lock was found free: then nobody can have written since.
        reader = open_log(path)
    except OSError as error:
        raise storage_error("read", path, error) from error
    with reader.stream:
        header = reader.header
        if header is not None and header.producer != path.stem:
            header = None  # a copy, or renamed: its sequence numbers are another file's
        return Log(path, reader.limit, header, locked)


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
