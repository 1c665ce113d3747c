"""Folders for what is not finished yet: nobody sees them, and what a crash leaves of them is cleared away.

A scratch folder is locked for as long as its process lives, so that whoever comes next can tell what is left over
(no lock) from what somebody is still at (locked), whatever the clocks say. Its content is worth nothing to anybody
but its maker: a finished thing is moved out of it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fencepost_recorder import durable

_ATTEMPTS = 100


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[tuple[Path, int]]:
    """A new, empty folder of this process alone in `parent`, which is made if need be; it is removed at the end.

    Answers the folder and the descriptor of its lock: whoever inherits that keeps the folder from being cleared away.

    `prefix` begins its name, and no recording's name may begin so. Folders of that prefix whose makers are gone are
    removed first. Raises StorageError.
    """
    durable.make_directories(parent)
    try:
        _clear(parent, prefix)
        path, lock = _make(parent, prefix)
    except OSError as error:
        raise durable.storage_error("create", parent, error) from error
    try:
        yield path, lock
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        path = parent / f"{prefix}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        lock = _locked(path)
        if lock is not None:
            return path, lock
        # Between these two calls somebody took it for a leftover.
    raise BlockingIOError("somebody else removes every folder that is made here")


def _locked(path: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if somebody else holds it, or the folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock may be that of a folder which was removed after it was opened.
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _clear(parent: Path, prefix: str) -> None:
    for entry in list(os.scandir(parent)):
        if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
