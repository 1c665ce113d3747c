"""The kernel's own news of processes: who forked whom, and who ended how and when (Linux's proc connector).

To be had by root, and since Linux 6.6 by everybody, but not inside containers: the news names processes by their ids
outside. Whoever cannot have it reads /proc instead, learns of ends a moment later, and may miss processes that lived
for a moment only.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# linux/netlink.h, linux/connector.h, linux/cn_proc.h
_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_NLMSG_DONE = 3
_LISTEN, _IGNORE = 1, 2
_NONE, _FORK, _EXIT = 0, 1, 0x80000000
_NETLINK = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_FORKED = struct.Struct("=IIII")
_EXITED = struct.Struct("=IIi")
_BODY = _NETLINK.size + _MESSAGE.size
_DATA = _BODY + _EVENT.size
# The inode of the first pid namespace, linux/proc_ns.h: elsewhere the ids are not those that we know.
_INIT_PID_NAMESPACE = 0xEFFFFFFC
_BUFFER_BYTES = 4 * 1024 * 1024
_ANSWER_S = 0.1


@dataclass(frozen=True, slots=True)
class Forked:
    """A process was forked."""

    parent: int
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A process ended; `status` as of waitpid(2)."""

    pid: int
    status: int
    at_unix_nano: int


class Connector:
    """Tells of all forks and exits of this machine from now on. Raises OSError where that cannot be had."""

    def __init__(self) -> None:
        self.overrun = False
        self._check_namespace()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_CONNECTOR
        )
        try:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _CN_IDX_PROC))
            # Since Linux 6.6 one may ask for some kinds of news only; earlier kernels do not answer to that.
            if not (self._asked(struct.pack("=II", _LISTEN, _FORK | _EXIT)) or self._asked(struct.pack("=I", _LISTEN))):
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._socket.fileno()

    def news(self) -> list[Forked | Exited]:
        """What has happened since the last call, in order; `overrun` is set when the kernel had to drop some."""
        found: list[Forked | Exited] = []
        offset = time.time_ns() - time.monotonic_ns()
        while True:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return found
            except OSError:
                self.overrun = True  # ENOBUFS: more at once than the buffer holds
                return found
            event = _parsed(data, offset)
            if event is not None:
                found.append(event)

    def close(self) -> None:
        """Hear no more."""
        with suppress(OSError):
            self._send(struct.pack("=I", _IGNORE))
        self._socket.close()

    def _check_namespace(self) -> None:
        if Path("/proc/self/ns/pid").stat().st_ino != _INIT_PID_NAMESPACE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _asked(self, operation: bytes) -> bool:
        """Whether the kernel agreed."""
        self._send(operation)
        deadline = time.monotonic() + _ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return False
            data = self._socket.recv(4096)
            what, _, _ = _EVENT.unpack_from(data, _BODY)
            if what == _NONE:
                (refusal,) = struct.unpack_from("=I", data, _DATA)
                return not refusal
        return False

    def _send(self, operation: bytes) -> None:
        message = _MESSAGE.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(operation), 0) + operation
        self._socket.send(_NETLINK.pack(_NETLINK.size + len(message), _NLMSG_DONE, 0, 0, 0) + message)


def _parsed(data: bytes, offset: int) -> Forked | Exited | None:
    """The news in one message; None for news of threads and other things."""
    try:
        what, _, moment = _EVENT.unpack_from(data, _BODY)
        if what == _FORK:
            _, parent, thread, pid = _FORKED.unpack_from(data, _DATA)
            return Forked(parent, pid) if thread == pid else None
        if what == _EXIT:
            thread, pid, status = _EXITED.unpack_from(data, _DATA)
            return Exited(pid, status & 0xFFFF, moment + offset) if thread == pid else None
    except struct.error:
        return None
    return None
