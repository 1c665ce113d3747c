"""One file of a log: open for appending, locked, and known again should its descriptor become another file's."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time_ns

from fencepost_recorder.wal import (
    FRAME_OVERHEAD_BYTES,
    LOSS_BYTES,
    Header,
    encode_header,
    loss_offset,
    segment_name,
    tells_of_fork,
)

NEXT_BYTES = FRAME_OVERHEAD_BYTES + 2
# Descriptors this high are not handed out by open(2) until that many are in use, so a program that closes
# every descriptor and opens its own seldom gets our number; should it, we see that the file is another.
_HIGH_DESCRIPTOR = 512
# Not O_APPEND, with which pwrite(2) appends: the loss record is written through the descriptor that is open, when its
# file's name leads nowhere any more or no number is left to open it by. Nobody else writes through it, forks included.
_OPEN = os.O_RDWR | os.O_CLOEXEC
# A file that has no name yet; Linux alone has such.
_UNNAMED: int | None = _OPEN | os.O_TMPFILE if hasattr(os, "O_TMPFILE") else None
_fstat = os.fstat


class Segment:
    """One file of the log, open for appending and locked."""

    def __init__(self, path: Path, number: int, first_seq: int) -> None:
        self.path = path
        self.number = number
        self.first_seq = first_seq
        self.fd = -1
        self._inode = (0, 0)
        self.size = self.empty_size = 0
        self.full_at = 0
        self.failures = 0
        self._loss_offset = 0

    @classmethod
    def begin(cls, folder: Path, header: Header, size: int) -> Segment:
        """A new file of at most about that size, with its header. Raises OSError, and leaves none then."""
        segment = cls(folder / segment_name(header.producer, header.segment), header.segment, header.first_seq)
        if not segment._appear_whole(header):
            segment._appear(header)
        segment.full_at = size - NEXT_BYTES - FRAME_OVERHEAD_BYTES
        return segment

    def _appear_whole(self, header: Header) -> bool:
        """Make the file with its header and its lock before it has a name; False where the system cannot do that.

        Or else a process killed meanwhile leaves a file of which nobody can tell whether anything was written to it.
        """
        if _UNNAMED is None:
            return False
        try:
            low = os.open(self.path.parent, _UNNAMED, 0o600)
        except OSError:
            return False
        try:
            self._adopt(low)
            self._write_header(header)
            # The descriptor is followed only where a directory is given, too, which an absolute path ignores.
            os.link(f"/proc/self/fd/{self.fd}", self.path, src_dir_fd=self.fd, follow_symlinks=True)
        except OSError as error:
            self.let_go()
            # Only the link has two files: no right to /proc, as in a process that became another user.
            if error.filename2 is not None and not isinstance(error, FileExistsError):
                return False
            raise
        return True

    def _appear(self, header: Header) -> None:
        low = os.open(self.path, _OPEN | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._adopt(low)
            self._write_header(header)
        except OSError:
            self.let_go()
            with suppress(OSError):
                self.path.unlink()
            raise

    def _write_header(self, header: Header) -> None:
        data = encode_header(replace(header, locked=self._take_lock(), begun_unix_nano=time_ns()))
        self._loss_offset = loss_offset(data)
        self.size = self.empty_size = len(data)
        if os.write(self.fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def check_own(self) -> None:
        """Raises OSError (EBADF) when our number was closed behind our back, though it may be another file's now."""
        if not self._is_own(self.fd):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def let_go(self) -> None:
        """Close the file, and so unlock it."""
        descriptor, self.fd = self.fd, -1
        if descriptor >= 0:
            with suppress(OSError):
                if self._is_own(descriptor):
                    os.close(descriptor)

    def write_anew(self, frame: bytes, error: OSError) -> int:
        """Write again when only our descriptor was taken away; bytes written or a negated errno."""
        if error.errno != errno.EBADF:
            return -(error.errno or errno.EIO)
        try:
            descriptor = os.open(self.path, _OPEN | os.O_NOFOLLOW)
            # The number may not be ours to close: it was closed behind our back.
            self._adopt(descriptor)
            self._take_lock()
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            return os.write(self.fd, frame)
        except OSError as again:
            return -(again.errno or errno.EIO)

    def withdraw(self, written: int) -> None:
        """Cut the part of a frame that a full disk let through, or every later frame would be unreadable."""
        if written > 0:
            try:
                if os.fstat(self.fd).st_size == self.size + written:
                    # In this order: what a signal handler writes between the two stays.
                    os.lseek(self.fd, self.size, os.SEEK_SET)
                    os.ftruncate(self.fd, self.size)
                    return
            except OSError:
                pass
            self.size += written

    def settle(self, size: int) -> bool:
        """Whether a frame of that size, whose write was interrupted, reached the file."""
        try:
            grown = os.fstat(self.fd).st_size > self.size
        except OSError:
            return False
        self.size += size if grown else 0
        return grown

    def write_loss(self, data: bytes) -> None:
        """Put the loss record into the header, unless a fork has said there that it goes unrecorded."""
        try:
            self.check_own()
            self._put_loss(self.fd, data)
        except OSError:
            with suppress(OSError):
                descriptor = os.open(self.path, _OPEN | os.O_NOFOLLOW)
                try:
                    self._put_loss(descriptor, data)
                finally:
                    os.close(descriptor)

    def frees_a_number(self) -> bool:
        """Whether a process that may open nothing more may do so once this is let go."""
        return 0 <= self.fd < resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _put_loss(self, descriptor: int, data: bytes) -> None:
        if not tells_of_fork(os.pread(descriptor, LOSS_BYTES, self._loss_offset)):
            os.pwrite(descriptor, data, self._loss_offset)

    def _is_own(self, descriptor: int) -> bool:
        found = _fstat(descriptor)
        return (found.st_dev, found.st_ino) == self._inode

    def _adopt(self, low: int) -> None:
        try:
            self.fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR)
        except OSError:
            self.fd = low
        else:
            os.close(low)
        found = _fstat(self.fd)
        self._inode = (found.st_dev, found.st_ino)

    def _take_lock(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
