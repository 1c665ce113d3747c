"""Every operation that must survive a crash goes through here: nothing counts as written before it is synced.

Callers use these as `durable.name(...)`, so that a test can kill the process at each one of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from fencepost_recorder.errors import StorageError, printable

Buffer = bytes | bytearray | memoryview
MAX_PIECES = 1024
TEMPORARY = ".tmp"
_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f) and try again",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission is denied: choose another folder or change its mode",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another folder",
    errno.EEXIST: "it is a file, not a folder: choose another folder",
    errno.EPERM: "permission is denied: choose another folder or change its mode",
}


def storage_error(doing: str, path: Path | str, error: OSError) -> StorageError:
    """One sentence for an operating-system error, with the way out."""
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}: check the disk and try again")
    return StorageError(f"cannot {doing} {printable(path)}: {reason}")


class DurableFile:
    """A file written under a temporary name, hashed on its way, that appears under `path` only once it is on disk.

    Is a binary file object for pyarrow. A failed write stays failed: `commit` refuses, because writers of formats
    with footers may close without a word on a full disk. After a failed fsync nothing is retried (a second fsync
    would report success though the pages are gone). Raises StorageError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self.closed = False
        self._hash = hashlib.sha256()
        self._error: StorageError | None = None
        self._temporary = path.with_name(path.name + TEMPORARY)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            self.closed = True
            raise storage_error("create", path, error) from error

    @property
    def sha256(self) -> str:
        """Of everything written so far, in hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Write all of `data`; what a discarded file is still told goes nowhere.

        A Parquet writer that was given up tells its footer when it is collected, when our number may be another's.
        """
        if self.closed:
            return len(memoryview(data).cast("B"))
        self.check()
        view = memoryview(data).cast("B")
        try:
            self._write_all(view)
        except OSError as error:
            self._error = storage_error("write", self.path, error)
            raise self._error from error
        self._hash.update(view)
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """Nothing: pyarrow closes what it writes to, but only `commit` makes it count."""

    def readable(self) -> bool:
        """No."""
        return False

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """No."""
        return False

    def check(self) -> None:
        """Raise the StorageError of the first write that failed, if one did."""
        if self._error is not None:
            raise self._error

    def commit(self) -> None:
        """Sync the file and give it its name; the caller syncs the directory."""
        self.check()
        try:
            sync(self._fd)
        except OSError as error:
            self._error = storage_error("sync", self.path, error)
            raise self._error from error
        finally:
            self.discard()
        rename(self._temporary, self.path)

    def discard(self) -> None:
        """Close the temporary file; what was not committed stays under its temporary name."""
        if not self.closed:
            self.closed = True
            descriptor, self._fd = self._fd, -1
            os.close(descriptor)

    def _write_all(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            written = write(self._fd, view[done:])
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += written


def write(descriptor: int, data: memoryview) -> int:
    """write(2)."""
    return os.write(descriptor, data)


def write_pieces(descriptor: int, pieces: Sequence[Buffer]) -> int:
    """writev(2), of at most `MAX_PIECES` pieces."""
    return os.writev(descriptor, pieces)


def sync(descriptor: int) -> None:
    """fsync(2)."""
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """fdatasync(2): the bytes, and the size of the file."""
    os.fdatasync(descriptor)


def truncate(descriptor: int, size: int) -> None:
    """ftruncate(2)."""
    os.ftruncate(descriptor, size)


def create(path: Path) -> int:
    """open(2) of a new file of the owner alone, to append to; raises OSError when there is one already."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def rename(source: Path, target: Path) -> None:
    """rename(2); raises StorageError."""
    try:
        source.rename(target)
    except OSError as error:
        raise storage_error("rename to", target, error) from error


def remove(path: Path) -> None:
    """unlink(2), or nothing when it is gone already; raises StorageError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from error


def remove_directory(path: Path) -> None:
    """rmdir(2), or nothing when it is gone already; raises StorageError."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error("remove", path, error) from error


def make_directory(path: Path) -> None:
    """mkdir(2) for the owner alone, or nothing when it exists; raises StorageError."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error("create", path, error) from error


def make_directories(path: Path) -> None:
    """mkdir(2), for the owner alone, of what is missing of a path, each name durable; raises StorageError."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        make_directory(one)
        sync_directory(one.parent)
    if not path.is_dir():
        raise storage_error("create", path, OSError(errno.EEXIST, os.strerror(errno.EEXIST)))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; raises StorageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("sync", path, error) from error
