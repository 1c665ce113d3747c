"""Durability bugs, each put into the running code of a child: the campaigns must notice every one.

None of them is in the product; each is what a hurried hand would write. Most are made where the recorder meets the
operating system, so that they stay what they are however the recorder is rewritten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from campaigns.operations import PACKAGE

from fencepost_recorder import duplicates


@dataclass(frozen=True)
class Bug:
    """What was done wrong, where it must be noticed (campaign and work), and the hand that does it."""

    name: str
    put_in: Callable[[], None]
    noticed: tuple[tuple[str, str], ...]
    pairs: float = 0.0


def _rewire(name: str, make: Callable[[Any], Any], module: Any = os) -> None:
    """Put another function in the place of one, under whatever name the recorder knows it."""
    real = getattr(module, name)
    made = make(real)
    setattr(module, name, made)
    for inner in [found for known, found in sys.modules.items() if known.split(".")[0] == PACKAGE]:
        for attribute, value in list(vars(inner).items()):
            if value is real:
                setattr(inner, attribute, made)


def _name(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _is_folder(descriptor: int) -> bool:
    return os.path.isdir(_name(descriptor))


def data_not_synced() -> None:
    """The log is acknowledged without fdatasync."""
    _rewire("fdatasync", lambda real: lambda descriptor: None)


def files_not_synced() -> None:
    """A new file gets its name without fsync."""
    _rewire("fsync", lambda real: lambda descriptor: real(descriptor) if _is_folder(descriptor) else None)


def folders_not_synced() -> None:
    """A folder is not synced after a name was made in it."""
    _rewire("fsync", lambda real: lambda descriptor: None if _is_folder(descriptor) else real(descriptor))


def renamed_before_synced() -> None:
    """A file gets its name first, and is synced then."""
    waiting: dict[str, int] = {}

    def make_sync(real: Any) -> Any:
        def sync(descriptor: int) -> None:
            if _is_folder(descriptor):
                real(descriptor)
            else:
                waiting[_name(descriptor)] = os.dup(descriptor)

        return sync

    sync = os.fsync
    _rewire("fsync", make_sync)

    def make_rename(real: Any) -> Any:
        def rename(source: Any, target: Any) -> None:
            descriptor = waiting.pop(os.path.abspath(source), None)
            real(source, target)
            if descriptor is not None:
                sync(descriptor)
                os.close(descriptor)

        return rename

    _rewire("rename", make_rename)


def log_removed_early() -> None:
    """The log is removed when the tables are written, before the manifest has its name."""

    def make(real: Any) -> Any:
        def rename(source: Any, target: Any) -> None:
            if os.fspath(target).endswith("/manifest.json"):
                for folder, _, names in os.walk(os.path.dirname(target)):
                    for name in names:
                        if name.endswith(".wal"):
                            os.unlink(os.path.join(folder, name))
            real(source, target)

        return rename

    _rewire("rename", make)


def manifest_before_parts() -> None:
    """The manifest has its name before the tables have theirs."""
    waiting: list[tuple[Any, Any]] = []

    def make(real: Any) -> Any:
        def rename(source: Any, target: Any) -> None:
            if os.fspath(target).endswith(".parquet"):
                waiting.append((source, target))
                return
            real(source, target)
            if os.fspath(target).endswith("/manifest.json"):
                for one in waiting:
                    real(*one)

        return rename

    _rewire("rename", make)


def short_write_ignored() -> None:
    """What write(2) answers is not looked at."""

    def make(real: Any) -> Any:
        def write(descriptor: int, data: Any) -> int:
            real(descriptor, data)
            return len(data)

        return write

    def make_many(real: Any) -> Any:
        def writev(descriptor: int, pieces: Any) -> int:
            real(descriptor, pieces)
            return sum(map(len, pieces))

        return writev

    _rewire("write", make)
    _rewire("writev", make_many)


def log_buffered() -> None:
    """The log is written through a buffer, as Python's own files are."""
    buffers: dict[str, bytes] = {}

    def make(real: Any) -> Any:
        def write(descriptor: int, data: Any) -> int:
            name = _name(descriptor)
            if "/wal/" not in name:
                written: int = real(descriptor, data)
                return written
            buffers[name] = buffers.get(name, b"") + bytes(data)
            if len(buffers[name]) > 512:
                real(descriptor, buffers.pop(name))
            return len(data)

        return write

    _rewire("write", make)


def acknowledged_before_written() -> None:
    """A request is acknowledged while a thread is yet to write it."""
    waiting: dict[str, bytes] = {}

    def make(real: Any) -> Any:
        def writev(descriptor: int, pieces: Any) -> int:
            name = _name(descriptor)
            before, waiting[name] = waiting.get(name, b""), b"".join(pieces)
            if before:
                real(descriptor, [before])
            return len(waiting[name])

        return writev

    _rewire("writev", make)


def log_folder_not_synced() -> None:
    """Only the folder of the log is not synced after a segment was made in it."""
    _rewire("fsync", lambda real: lambda descriptor: None if _name(descriptor).endswith("/wal") else real(descriptor))


def sync_tried_again() -> None:
    """A sync that failed is tried again, and believed when it succeeds then: the kernel has dropped the bytes."""

    def make(real: Any) -> Any:
        def sync(descriptor: int) -> None:
            try:
                real(descriptor)
            except OSError:
                real(descriptor)

        return sync

    _rewire("fdatasync", make)


def sent_again_kept_twice() -> None:
    """Whatever is in the log becomes a row, also what a client sent again."""
    _rewire("find", lambda real: lambda files, gaps: duplicates.Duplicates(), duplicates)


_LOST, _NAMES = "nothing unsynced survives", "names survive"
BUGS = (
    Bug("the log is written through a buffer", log_buffered, (("killed", "record"),)),
    Bug("short write ignored", short_write_ignored, (("failing", "seal"),)),
    Bug("folders not synced", folders_not_synced, (("modelled", "record"),)),
    Bug(
        "new files not synced",
        files_not_synced,
        (("modelled", "seal"), (f"ext4, {_NAMES}", "seal"), (f"xfs, {_NAMES}", "seal")),
    ),
    Bug(
        "renamed before synced",
        renamed_before_synced,
        (("modelled", "seal"), (f"ext4, {_NAMES}", "seal"), (f"xfs, {_NAMES}", "seal")),
    ),
    Bug("the log removed before the manifest is there", log_removed_early, (("killed", "seal"), ("modelled", "seal"))),
    Bug("the manifest before the tables", manifest_before_parts, (("killed", "seal"), ("modelled", "seal"))),
    Bug("the log not synced", data_not_synced, (("modelled", "receive"), (f"ext4, {_LOST}", "receive"))),
    Bug("acknowledged before written", acknowledged_before_written, (("killed", "receive"),)),
    Bug("the log's folder not synced", log_folder_not_synced, (("modelled", "receive"),)),
    Bug("a failed sync tried again", sync_tried_again, (("failing", "take"),)),
    Bug("what was sent again kept twice", sent_again_kept_twice, (("killed", "receive"), ("killed", "seal"))),
)
