"""Where an export goes: a file that appears whole or not at all, or a stream."""

from __future__ import annotations

import os
import secrets
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fencepost_recorder import durable
from fencepost_recorder.errors import ExportExists, ExportFailed, printable

_BUFFER_BYTES = 1024 * 1024
_LEVEL = 6
# zlib's number for its largest window, with a gzip header: which has no name and no time, so the bytes are the same.
_GZIP = 31
_Write = Callable[[bytes], object]


class Output:
    """Takes bytes, through gzip if asked to, and counts those that come out."""

    def __init__(self, write: _Write, *, gzip: bool) -> None:
        self.bytes = 0
        self._write = write
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if gzip else None
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write all of `data`, sooner or later."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _BUFFER_BYTES:
            self._drain()

    def finish(self) -> None:
        """Write what waits."""
        self._drain()
        if self._zip is not None:
            self._out(self._zip.flush())

    def _drain(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        self._out(data if self._zip is None else self._zip.compress(data))

    def _out(self, data: bytes) -> None:
        if data:
            self._write(data)
            self.bytes += len(data)


@contextmanager
def to_stream(stream: BinaryIO, *, gzip: bool) -> Iterator[Output]:
    """An output to a stream, which is not closed. Raises what the stream raises."""
    output = Output(stream.write, gzip=gzip)
    yield output
    output.finish()
    stream.flush()


@contextmanager
def to_file(path: Path, *, gzip: bool, overwrite: bool) -> Iterator[Output]:
    """An output to a file of its owner alone (0600), which appears under its name once everything is on disk.

    Until then it has another name beside it; when anything goes wrong it is removed. Raises ExportFailed when there
    is such a file already (unless it may be overwritten) or something that is no file, StorageError.
    """
    check(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise durable.storage_error("create", path, error) from error
    try:
        try:
            output = Output(_writer(descriptor, path), gzip=gzip)
            yield output
            output.finish()
            _sync(descriptor, path)
        finally:
            os.close(descriptor)
        _publish(temporary, path, overwrite=overwrite)
        durable.sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that cannot be written to. Raises ExportFailed, StorageError."""
    if not path.parent.is_dir():
        raise ExportFailed(f"there is no folder {printable(path.parent)}: make it first, or name another")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise ExportFailed(f"{printable(path)} is no file name") from error
        raise durable.storage_error("write", path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ExportFailed(f"{printable(path)} is no plain file: name one that is, or write to stdout")
    if not overwrite:
        raise ExportExists(f"{printable(path)} exists already: choose another name, or have it overwritten")


def _writer(descriptor: int, path: Path) -> _Write:
    def write(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[durable.write(descriptor, view) :]
        except OSError as error:
            raise durable.storage_error("write", path, error) from error

    return write


def _sync(descriptor: int, path: Path) -> None:
    try:
        durable.sync(descriptor)
    except OSError as error:
        raise durable.storage_error("sync", path, error) from error


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        durable.rename(temporary, path)
        return
    try:
        # Unlike a rename, a link never replaces what somebody else has put there meanwhile.
        path.hardlink_to(temporary)
    except OSError:
        # It is there by now; or the file system has no links.
        check(path, overwrite=False)
        durable.rename(temporary, path)
