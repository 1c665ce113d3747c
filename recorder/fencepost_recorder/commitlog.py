"""A log that is on disk before it is acknowledged: many threads append, one write and one fdatasync serve them all.

Whoever comes first writes what everybody has brought by then, syncs it, and tells them; who came in the meantime is
next. So a disk that syncs four hundred times a second can acknowledge thousands of requests. Nothing is acknowledged
from memory: `append` returns when its frame is on disk, or raises.

A segment at which a write or a sync failed is given up: what the kernel still holds of it may be gone, and a second
fsync would report success all the same. The next one begins with the first frame that nobody was promised.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import time_ns

from fencepost_recorder import durable
from fencepost_recorder.accounts import RECEIVER_KIND
from fencepost_recorder.errors import Overloaded, StorageError
from fencepost_recorder.wal import (
    FRAME_HEAD,
    FRAME_OVERHEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_BYTES,
    FrameType,
    Header,
    encode_header,
    segment_name,
)
from fencepost_recorder.wire import Buffer
from fencepost_recorder.writer import new_producer_id

GROUP_BYTES = 4 * 1024 * 1024
_NEXT_BYTES = FRAME_OVERHEAD_BYTES + 2
QUEUE_BYTES = 64 * 1024 * 1024
_CLOSED = "the log is closed: start the receiver again"


@dataclass(slots=True)
class _Ticket:
    """One append: what it brings, and how it is told. `wake` is held until it is done, or has to lead."""

    payload: Sequence[Buffer]
    spans: int
    notes: Sequence[bytes]
    bytes: int
    wake: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    error: OSError | None = None

    def frames(self) -> list[tuple[FrameType, Sequence[Buffer]]]:
        """What it writes."""
        request = [(FrameType.REQUEST, self.payload)] if self.spans else []
        return [*request, *((FrameType.NOTE, (note,)) for note in self.notes)]


class CommitLog:
    """A receiver's log in the folder `wal`. Thread-safe. Raises StorageError when it cannot be begun."""

    def __init__(
        self,
        wal: Path,
        *,
        producer: str | None = None,
        kept: tuple[str, ...] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self.producer = producer or new_producer_id()
        self._queue_bytes = queue_bytes
        self._group_bytes = group_bytes
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[_Ticket] = deque()
        self._waiting_bytes = 0
        self._leading = False
        self._closed = False
        self._next = self._ordinal = 0
        self._segments = _Segments(Path(wal), self.producer, kept, segment_bytes)
        try:
            self._segments.write([], 0, time_ns())
        except OSError as error:
            self._segments.give_up()
            raise durable.storage_error("write a log into", wal, error) from error

    def append(self, payload: Sequence[Buffer], spans: int, notes: Sequence[bytes] = ()) -> None:
        """Keep a request in pieces, if it has spans, and notes; returns once all of it is on disk.

        Raises StorageError when it could not be written (it is not in the log then, and can be sent again),
        Overloaded when too much is waiting already, ValueError for a request larger than a frame.
        """
        size = sum(map(len, payload)) if spans else 0
        if size > MAX_PAYLOAD_BYTES:
            raise ValueError("a frame of the log holds at most 16 MiB")
        ticket = _Ticket(payload, spans, notes, size + sum(map(len, notes)))
        if not self._joins(ticket):
            ticket.wake.acquire()
            if ticket.leads:
                self._lead()
        else:
            self._lead()
        if ticket.error is not None:
            raise durable.storage_error("write the log", self._segments.folder, ticket.error) from ticket.error

    def close(self) -> None:
        """Wait for what is under way, then end the log. Raises StorageError when its end cannot be written."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while self._leading:
                self._idle.wait()
        try:
            self._segments.close(_frame(FrameType.CLOSE, self._next, time_ns(), 0, (b"{}",)))
        except OSError as error:
            raise durable.storage_error("write the log", self._segments.folder, error) from error

    def discard(self) -> None:
        """Remove a log into which nothing was written."""
        self._closed = True
        self._segments.discard()

    def _joins(self, ticket: _Ticket) -> bool:
        """Put a ticket into the queue; whether it has to lead."""
        with self._lock:
            if self._closed:
                raise StorageError(_CLOSED)
            if self._waiting and self._waiting_bytes + ticket.bytes > self._queue_bytes:
                raise Overloaded("the disk does not keep up: send the request again")
            self._waiting.append(ticket)
            self._waiting_bytes += ticket.bytes
            if self._leading:
                ticket.wake.acquire()
                return False
            self._leading = True
            return True

    def _lead(self) -> None:
        """Write the group whose first ticket is one's own, tell the others, and have the next in the queue lead."""
        with self._lock:
            group = self._group()
        error: OSError | None = OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            error = self._commit(group)
        finally:
            for ticket in group:
                ticket.error = error
            for ticket in group[1:]:
                ticket.wake.release()
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].wake.release()
            else:
                self._leading = False
                self._idle.notify_all()

    def _group(self) -> list[_Ticket]:
        """The tickets that are written together: at least one, in their order."""
        group: list[_Ticket] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0].bytes <= self._group_bytes):
            ticket = self._waiting.popleft()
            size += ticket.bytes
            group.append(ticket)
        self._waiting_bytes -= size
        return group

    def _commit(self, group: list[_Ticket]) -> OSError | None:
        """Put a group on disk; why not, if not. Its numbers are then those of the next group."""
        now, sequence, ordinal = time_ns(), self._next, self._ordinal
        pieces: list[Buffer] = []
        for ticket in group:
            for kind, payload in ticket.frames():
                pieces += _frame(kind, sequence, now, ordinal if kind is FrameType.REQUEST else 0, payload)
                sequence += 1
            ordinal += ticket.spans
        try:
            self._segments.write(pieces, self._next, now)
        except OSError as error:
            self._segments.give_up()
            return error
        self._next, self._ordinal = sequence, ordinal
        return None


class _Segment:
    """One file of the log, open for appending and locked. `size` bytes of it are on disk; the head goes first."""

    def __init__(self, path: Path, number: int) -> None:
        """Raises OSError."""
        self.path = path
        self.number = number
        self.size = 0
        self._head = b""
        self._fd = durable.create(path)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._locked = True
        except OSError:
            self._locked = False

    def start(self, header: Header) -> None:
        """Make its header; it is written together with the first frames."""
        self._head = encode_header(replace(header, segment=self.number, locked=self._locked))

    def write(self, pieces: list[Buffer]) -> None:
        """Append, and sync. Raises OSError, after which nothing may be written here again."""
        pieces = [self._head, *pieces]
        for at in range(0, len(pieces), durable.MAX_PIECES):
            some = pieces[at : at + durable.MAX_PIECES]
            if durable.write_pieces(self._fd, some) != sum(map(len, some)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        durable.sync_data(self._fd)
        self.size += sum(map(len, pieces))
        self._head = b""

    def end(self, frame: list[Buffer]) -> None:
        """Append a last frame, which nobody was promised, and let go."""
        try:
            if durable.write_pieces(self._fd, frame) != sum(map(len, frame)):
                durable.truncate(self._fd, self.size)
        except OSError:
            pass  # without it the numbers tell the same
        finally:
            self.let_go()

    def give_up(self) -> None:
        """Cut off what nobody was promised, as far as that can be done, and let go."""
        with suppress(OSError):
            if self.size:
                durable.truncate(self._fd, self.size)
            else:
                self.path.unlink()
        self.let_go()

    def let_go(self) -> None:
        """Close the file, and so unlock it."""
        with suppress(OSError):
            os.close(self._fd)


class _Segments:
    """The files of a log: the one that is written, and the one after it, made in time so that nobody waits for it."""

    def __init__(self, folder: Path, producer: str, kept: tuple[str, ...] | None, segment_bytes: int) -> None:
        self.folder = folder
        self._producer = producer
        self._kept = kept
        self._segment_bytes = segment_bytes
        self._started = time_ns()
        self._number = 0
        self._current: _Segment | None = None
        self._prepared: _Segment | None = None
        self._preparing: threading.Thread | None = None

    def write(self, pieces: list[Buffer], first_seq: int, now: int) -> None:
        """Append to the log, and sync. Raises OSError; then `give_up` has to follow."""
        size = sum(map(len, pieces))
        before = self._current
        if before is not None and before.size + size + _NEXT_BYTES <= self._segment_bytes:
            before.write(pieces)
            self._look_ahead(before)
            return
        after = self._begin(first_seq, now)
        self._current = after
        try:
            after.write(pieces)
        except OSError:
            if before is not None:
                before.let_go()
            raise
        if before is not None:
            before.end(_frame(FrameType.NEXT, first_seq, now, 0, (b"{}",)))

    def give_up(self) -> None:
        """Write nothing more to the segment at which something failed."""
        current, self._current = self._current, None
        if current is not None:
            current.give_up()

    def close(self, frame: list[Buffer] | None) -> None:
        """Write the last frame, if any, and remove what was made for later. Raises OSError."""
        prepared = self._take_prepared()
        if prepared is not None:
            prepared.give_up()
        current, self._current = self._current, None
        if current is None:
            return
        try:
            if frame is not None:
                current.write(frame)
        finally:
            current.let_go()

    def discard(self) -> None:
        """Let go of a log without a frame, and remove its file."""
        current, self._current = self._current, None
        if current is not None:
            current.size = 0
            current.give_up()

    def _begin(self, first_seq: int, now: int) -> _Segment:
        segment = self._take_prepared()
        if segment is None:
            segment = self._make()
        segment.start(self._header(first_seq, now))
        return segment

    def _header(self, first_seq: int, now: int) -> Header:
        return Header(
            producer=self._producer,
            kind=RECEIVER_KIND,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_unix_nano=self._started,
            first_seq=first_seq,
            begun_unix_nano=now,
            kept=self._kept,
        )

    def _make(self) -> _Segment:
        """The next file, whose name is on disk. Raises OSError."""
        number = self._number
        segment = _Segment(self.folder / segment_name(self._producer, number), number)
        try:
            durable.sync_directory(self.folder)
        except StorageError as error:
            segment.give_up()
            raise OSError(errno.EIO, str(error)) from error
        self._number += 1
        return segment

    def _look_ahead(self, segment: _Segment) -> None:
        if self._preparing is None and self._prepared is None and segment.size > self._segment_bytes // 2:
            self._preparing = threading.Thread(target=self._prepare, name="fencepost-next-segment", daemon=True)
            self._preparing.start()

    def _prepare(self) -> None:
        with suppress(OSError):  # it will be tried again when it is needed
            self._prepared = self._make()

    def _take_prepared(self) -> _Segment | None:
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None
        segment, self._prepared = self._prepared, None
        return segment


def _frame(kind: FrameType, sequence: int, now: int, ref: int, payload: Sequence[Buffer]) -> list[Buffer]:
    """One frame, in pieces: nothing of the payload is copied."""
    head = FRAME_HEAD.pack(sum(map(len, payload)), kind, sequence, now, ref)
    checksum = zlib.crc32(head)
    for piece in payload:
        checksum = zlib.crc32(piece, checksum)
    return [checksum.to_bytes(4, "little") + head, *payload]
