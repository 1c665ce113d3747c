"""The writing end of a log: one frame, one write(2), and an honest account of what could not be written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time_ns

from fencepost_recorder.errors import StorageError, printable
from fencepost_recorder.wal import (
    FRAME_HEAD,
    LOSS_BYTES,
    MAX_PAYLOAD_BYTES,
    FrameType,
    Header,
    Loss,
    encode_header,
    encode_loss,
    loss_offset,
)

# Descriptors this high are not handed out by open(2) until that many are in use, so a program that closes
# every descriptor and opens its own does not find its file under our number.
_HIGH_DESCRIPTOR = 512
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_pack = FRAME_HEAD.pack
_write = os.write
_crc32 = zlib.crc32


def new_producer_id() -> str:
    """A name for this process no other producer has: host, pid and 8 random hex digits."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:32] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


class LogWriter:
    """Appends frames to one new log file in `folder`. Thread-safe; re-entrant from signal handlers.

    Holds a lock on its file for as long as the process lives: whoever seals the recording can tell a producer
    that is still alive from one that was killed. Raises StorageError when the file cannot be created;
    afterwards nothing raises: frames that cannot be written are counted, and told as soon as something can be.
    """

    def __init__(self, folder: Path, *, kind: str = "process", producer: str | None = None) -> None:
        self.pid = os.getpid()
        self.producer = producer or new_producer_id()
        self.path = folder / f"{self.producer}.wal"
        self.lost = 0
        self.lock = threading.RLock()
        self._next = 0
        self._untold: Loss | None = None
        self._fd = -1
        try:
            self._create(kind)
        except OSError as error:
            self._abandon()
            raise StorageError(
                f"cannot write the log {printable(self.path)}: {error.strerror}; give a folder made by "
                "fencepost_recorder.begin(), on a disk with space"
            ) from error

    def append(self, kind: int, payload: bytes, ref: int = 0) -> int:
        """Write one frame; its sequence number, or -1 when it could not be written."""
        with self.lock:
            # The lock keeps threads apart, not the signal handlers of this very thread: such a one may write its
            # frame between our taking a number and our writing it. The reader puts the two back in order.
            if self._untold is not None:
                self._tell()
            return self._append(kind, payload, ref)

    def lose(self) -> None:
        """Count a frame that could not even be made; the gap in the numbers tells of it, as of one not written."""
        with self.lock:
            sequence = self._next
            self._next = sequence + 1
            self._count_loss(sequence, time_ns(), errno.EINVAL)

    def close(self) -> None:
        """Write the CLOSE frame and let go of the file. A later append opens it again."""
        with self.lock:
            if self._fd >= 0:
                self.append(FrameType.CLOSE, b"{}")
                self._abandon()

    def forget(self) -> None:
        """In a forked child: let go of the parent's file without a trace; the parent's lock stays."""
        self._abandon()

    def _create(self, kind: str) -> None:
        low = os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._adopt(low)
        header = Header(
            producer=self.producer,
            kind=kind,
            pid=self.pid,
            host=socket.gethostname(),
            started_unix_nano=time_ns(),
            locked=self._take_lock(),
        )
        data = encode_header(header)
        self._loss_offset = loss_offset(data)
        self._size = len(data)
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _adopt(self, low: int) -> None:
        try:
            self._fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR)
        except OSError:
            self._fd = low
        else:
            os.close(low)

    def _take_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _abandon(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _append(self, kind: int, payload: bytes, ref: int) -> int:
        now = time_ns()
        sequence = self._next
        self._next = sequence + 1
        if len(payload) > MAX_PAYLOAD_BYTES:
            self._count_loss(sequence, now, errno.EMSGSIZE)
            return -1
        body = _pack(len(payload), kind, sequence, now, ref) + payload
        frame = _crc32(body).to_bytes(4, "little") + body
        try:
            written = _write(self._fd, frame)
        except OSError as error:
            written = self._retry(frame, error)
        except BaseException:
            # A signal handler raised: whether the frame reached the file decides whether it counts as lost.
            self._settle(sequence, now, len(frame))
            raise
        if written == len(frame):
            self._size += written
            return sequence
        self._withdraw(written)
        self._count_loss(sequence, now, -written if written < 0 else errno.ENOSPC)
        return -1

    def _retry(self, frame: bytes, error: OSError) -> int:
        """Write again when only our descriptor was taken away; bytes written or a negated errno."""
        if error.errno != errno.EBADF:
            return -(error.errno or errno.EIO)
        try:
            descriptor = os.open(self.path, _APPEND)
            # The number may not be ours to close: it was closed behind our back.
            self._adopt(descriptor)
            self._take_lock()
            self._size = os.fstat(self._fd).st_size
            return os.write(self._fd, frame)
        except OSError as again:
            return -(again.errno or errno.EIO)

    def _withdraw(self, written: int) -> None:
        """Cut the part of a frame that a full disk let through, or every later frame would be unreadable."""
        if written > 0:
            try:
                if os.fstat(self._fd).st_size == self._size + written:
                    os.ftruncate(self._fd, self._size)
                    return
            except OSError:
                pass
            self._size += written

    def _settle(self, sequence: int, now: int, size: int) -> None:
        try:
            grown = os.fstat(self._fd).st_size > self._size
        except OSError:
            grown = False
        if grown:
            self._size += size
        else:
            self._count_loss(sequence, now, errno.EINTR)

    def _count_loss(self, sequence: int, now: int, code: int) -> None:
        self.lost += 1
        before = self._untold
        self._untold = Loss(
            lost=1 if before is None else before.lost + 1,
            first_seq=sequence if before is None else before.first_seq,
            last_seq=sequence,
            since_unix_nano=now if before is None else before.since_unix_nano,
            until_unix_nano=now,
            errno=code,
        )
        self._write_loss(encode_loss(self._untold))

    def _tell(self) -> None:
        """Put the untold loss into a NOTE frame, so that it is a gap with exact bounds; then clear the record."""
        loss = self._untold
        if loss is None:
            return
        note = json.dumps(
            {
                "cause": "write_failed",
                "lost": loss.lost,
                "first_seq": loss.first_seq,
                "last_seq": loss.last_seq,
                "since_unix_nano": loss.since_unix_nano,
                "until_unix_nano": loss.until_unix_nano,
                "detail": os.strerror(loss.errno),
            }
        ).encode()
        known = self.lost
        if self._append(FrameType.NOTE, note, 0) >= 0:
            self._untold = None
            self._write_loss(bytes(LOSS_BYTES))
            return
        # The note itself is no span: its number stays in the untold range, but it does not count.
        self.lost = known
        self._untold = grown = replace(self._untold or loss, lost=loss.lost)
        self._write_loss(encode_loss(grown))

    def _write_loss(self, data: bytes) -> None:
        # A second descriptor, because pwrite(2) on an O_APPEND one appends.
        with suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(descriptor, data, self._loss_offset)
            finally:
                os.close(descriptor)
