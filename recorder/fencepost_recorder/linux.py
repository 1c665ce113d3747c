"""What Linux offers and Python's standard library does not: subreaper, parent's death, inotify, a stranger's end."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
# struct pidfd_info of include/uapi/linux/pidfd.h, its first version: mask, then 13 fields, then exit_code.
_PIDFD_INFO = struct.Struct("<Q52xi")
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11
_INOTIFY_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Let orphans among this process's descendants become its children, as they would become init's.

    Raises OSError where the kernel does not know of this."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Have this process sent a signal when the thread that forked it ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def name_process(name: str) -> None:
    """What `ps` shows of this process, at most 15 bytes. Raises OSError."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))


def status_of_reaped(pidfd: int) -> int | None:
    """How a process ended that somebody else has reaped, as waitpid(2) would tell it.

    None while nobody has, and on kernels before 6.15, which do not keep it.
    """
    info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = _PIDFD_INFO.unpack(info)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


class FolderWatch:
    """Tells of new files in a folder as they appear. Raises OSError where inotify cannot be had."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there is a new file."""
        return self._descriptor

    def names(self) -> list[str]:
        """The names that appeared since the last call; some may be missing when very many did at once."""
        found: list[str] = []
        with suppress(BlockingIOError):
            while data := os.read(self._descriptor, 65536):
                found.extend(_names(data))
        return found

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)


def _names(data: bytes) -> list[str]:
    found, at = [], 0
    while at + _INOTIFY_EVENT.size <= len(data):
        _, _, _, size = _INOTIFY_EVENT.unpack_from(data, at)
        at += _INOTIFY_EVENT.size
        found.append(os.fsdecode(data[at : at + size].rstrip(b"\0")))
        at += size
    return [name for name in found if name]


def _prctl(option: int, argument: object) -> None:
    _checked(_libc.prctl(option, argument, 0, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
