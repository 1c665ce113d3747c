"""The writing end of a log: one frame, one write(2), and an honest account of what could not be written."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import threading
import zlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from time import time_ns

from fencepost_recorder.clock import WatchedClock
from fencepost_recorder.errors import StorageError, printable
from fencepost_recorder.segment import Segment
from fencepost_recorder.wal import (
    FRAME_HEAD,
    LOSS_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_BYTES,
    UNRECORDED_FORK,
    FrameType,
    Header,
    Loss,
    encode_frame,
    encode_loss,
    segment_name,
)

# After a failure to begin the next segment: how much more the present one takes before that is tried again.
_PATIENCE_BYTES = 1024 * 1024
# What later frames may refer to, kept to be written again where a segment begins.
_MAX_CONTEXTS = 20_000
_MAX_CONTEXT_BYTES = 64 * 1024 * 1024
_MAX_DETAIL = 500
_SCOPE, _WHOLE = int(FrameType.SCOPE), int(FrameType.WHOLE)
_pack = FRAME_HEAD.pack
_write = os.write
_crc32 = zlib.crc32


def new_producer_id() -> str:
    """A name for this process no other producer has: host, pid and 8 random hex digits."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:32] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


class LogWriter:
    """Appends frames to one new log in `folder`, segment after segment. Thread-safe; re-entrant from signal handlers.

    Holds a lock on its file for as long as the process lives: whoever seals the recording can tell a producer
    that is still alive from one that was killed. Raises StorageError when the first file cannot be created;
    afterwards nothing raises: frames that cannot be written are counted, and told as soon as something can be.

    A `ref` is the number under which a RESOURCE or SCOPE frame was appended, in whatever segment: it is written
    again, under a new number, where the present segment does not have it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str = "process",
        producer: str | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        kept: tuple[str, ...] | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.producer = producer or new_producer_id()
        self.folder = folder
        self.lost = 0
        self.lock = threading.RLock()
        self._kind = kind
        self._kept = kept
        self._started = time_ns()
        self._clock = WatchedClock()
        self._segment_bytes = segment_bytes
        self._contexts = _Contexts()
        self._next = 0
        self._untold: Loss | None = None
        self._busy = False
        try:
            self._segment = self._begin(0)
        except OSError as error:
            raise StorageError(
                f"cannot write the log {printable(folder / segment_name(self.producer, 0))}: {error.strerror}; give a "
                "folder made by fencepost_recorder.begin(), on a disk with space"
            ) from error

    @property
    def path(self) -> Path:
        """The segment that is written now."""
        return self._segment.path

    def append(self, kind: int, payload: bytes, ref: int = 0) -> int:
        """Write one frame; its sequence number, or -1 when it could not be written."""
        with self.lock:
            # The lock keeps threads apart, not the signal handlers of this very thread: such a one may write its
            # frame between our taking a number and our writing it. The reader puts the two back in order.
            if self._untold is not None:
                self._tell()
            moved = self._clock.was_set()
            if moved is not None:
                self._tell_of_clock(*moved)
            if self._segment.size + len(payload) > self._segment.full_at:
                self._go_on()
            if ref < self._segment.first_seq and _SCOPE <= kind <= _WHOLE:
                ref = max(self._again(ref), 0)
            sequence = self._append(kind, payload, ref)
            if kind <= _SCOPE and sequence >= 0:
                self._contexts.keep(sequence, kind, payload, ref)
            return sequence

    def lose(self) -> None:
        """Count a frame that could not even be made; the gap in the numbers tells of it, as of one not written."""
        with self.lock:
            sequence = self._next
            self._next = sequence + 1
            self._count_loss(sequence, time_ns(), errno.EINVAL)

    def note(self, cause: str, detail: str) -> None:
        """Say in the log that from now on something is missing: a gap of that cause, of unknown extent."""
        with self.lock:
            if self._untold is not None:
                self._tell()
            self._note(cause, time_ns(), None, detail)

    def close(self) -> None:
        """Write the CLOSE frame and let go of the file. A later append opens it again."""
        with self.lock:
            if self._segment.fd >= 0:
                self.append(FrameType.CLOSE, b"{}")
                self._segment.let_go()

    def forget(self) -> None:
        """In a forked child: let go of the parent's file without a trace; the parent's lock stays."""
        self._segment.let_go()

    def gives_way(self, error: Exception) -> bool:
        """In a forked child that had no number left to open a log of its own by: forget, if that frees one."""
        frees = _code(error) == errno.EMFILE and self._segment.frees_a_number()
        if frees:
            self.forget()
        return frees

    def disown(self, error: Exception) -> None:
        """In a forked child that could not begin a log of its own: say so in the parent's, which has room for it."""
        code = _code(error)
        now = time_ns()
        # What the parent has lost and not told yet stood there: this takes its place, and so begins no later.
        since = now if self._untold is None else min(now, self._untold.since_unix_nano)
        self._segment.write_loss(encode_loss(Loss(1, *UNRECORDED_FORK, since, now, code)))

    def missed(self, spans: int, since_unix_nano: int) -> None:
        """Say that so many frames were lost from then until now, before this log was begun."""
        with self.lock:
            detail = "the process recorded before it could begin a log"
            self._note("write_failed", since_unix_nano, time_ns(), detail, spans)

    def _note(self, cause: str, since: int, until: int | None, detail: str, lost: int | None = None) -> None:
        told = {"cause": cause, "since_unix_nano": since, "until_unix_nano": until, "detail": detail[:_MAX_DETAIL]}
        told |= {} if lost is None else {"lost": lost}
        # The note's own number: it is there, so these bounds can hide no break among the others.
        bounds = {"first_seq": self._next, "last_seq": self._next}
        self._append(FrameType.NOTE, json.dumps({**told, **bounds}).encode(), 0)

    def _tell_of_clock(self, due: int, found: int) -> None:
        """Say that the clock was set: nothing is missing, but what happened between these times has no order."""
        way = "forward" if found > due else "back"
        detail = f"the clock was set {way} by {abs(found - due) / 1e9:,.3f} s"
        self._note("clock_set", min(due, found), max(due, found), detail)

    def _begin(self, number: int) -> Segment:
        header = Header(
            producer=self.producer,
            kind=self._kind,
            pid=self.pid,
            host=socket.gethostname(),
            started_unix_nano=self._started,
            segment=number,
            first_seq=self._next,
            kept=self._kept,
        )
        return Segment.begin(self.folder, header, self._segment_bytes)

    def _go_on(self) -> None:
        """Begin the next segment; where that fails the present one just grows."""
        before = self._segment
        if self._busy or before.fd < 0 or before.size <= before.empty_size:
            return  # a signal handler amid a frame; a closed log; a frame larger than a segment
        self._busy = True
        try:
            after = self._begin(before.number + 1 + before.failures)
        except OSError:
            before.failures += 1
            before.full_at = before.size + _PATIENCE_BYTES
            return
        finally:
            self._busy = False
        # From here on signal handlers write to the new segment; until here their frames went to the old one.
        after.first_seq = self._next
        self._segment = after
        if self._untold is not None:
            after.write_loss(encode_loss(self._untold))
            before.write_loss(bytes(LOSS_BYTES))
        # Without this frame the numbers tell the same; half of one must not stay.
        frame = encode_frame(FrameType.NEXT, after.first_seq, time_ns(), 0, b"{}")
        try:
            written = _write(before.fd, frame)
            if written != len(frame):
                before.withdraw(written)
        except OSError:
            pass
        finally:
            before.let_go()

    def _again(self, ref: int) -> int:
        """The number in this segment of a frame that was written in an earlier one: now, if it was not yet.

        Negative where it cannot be written; then the next span tries again, and a scope is not written without its
        resource, or every span of the segment would be without one.
        """
        frame = self._contexts.frame(ref)
        if frame is None:
            return ref
        kind, payload, its_ref, renewed = frame
        if renewed < self._segment.first_seq:
            if kind == _SCOPE and its_ref < self._segment.first_seq:
                its_ref = self._again(its_ref)
                if its_ref < 0:
                    return its_ref
            renewed = self._append(kind, payload, its_ref)
            self._contexts.renew(ref, renewed)
        return renewed

    def _append(self, kind: int, payload: bytes, ref: int) -> int:
        now = time_ns()
        sequence = self._next
        self._next = sequence + 1
        if len(payload) > MAX_PAYLOAD_BYTES:
            self._count_loss(sequence, now, errno.EMSGSIZE)
            return -1
        body = _pack(len(payload), kind, sequence, now, ref) + payload
        frame = _crc32(body).to_bytes(4, "little") + body
        segment, outer = self._segment, self._busy
        self._busy = True
        try:
            segment.check_own()
            written = _write(segment.fd, frame)
        except OSError as error:
            written = segment.write_anew(frame, error)
        except BaseException:
            # A signal handler raised: whether the frame reached the file decides whether it counts as lost.
            if not segment.settle(len(frame)):
                self._count_loss(sequence, now, errno.EINTR)
            raise
        finally:
            self._busy = outer
        if written == len(frame):
            segment.size += written
            return sequence
        segment.withdraw(written)
        self._count_loss(sequence, now, -written if written < 0 else errno.ENOSPC)
        return -1

    def _count_loss(self, sequence: int, now: int, code: int) -> None:
        self.lost += 1
        before = self._untold
        self._untold = Loss(
            lost=1 if before is None else before.lost + 1,
            first_seq=sequence if before is None else before.first_seq,
            last_seq=sequence,
            # Not the first and the last: the clock may have been set meanwhile.
            since_unix_nano=now if before is None else min(now, before.since_unix_nano),
            until_unix_nano=now if before is None else max(now, before.until_unix_nano),
            errno=code,
        )
        self._segment.write_loss(encode_loss(self._untold))

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
            self._segment.write_loss(bytes(LOSS_BYTES))
            return
        # The note itself is no span: its number stays in the untold range, but it does not count.
        self.lost = known
        self._untold = grown = replace(self._untold or loss, lost=loss.lost)
        self._segment.write_loss(encode_loss(grown))


def _code(error: Exception) -> int:
    """The errno for which a log could not be begun."""
    cause: object = error.__cause__
    return cause.errno if isinstance(cause, OSError) and cause.errno else errno.EIO


class _Contexts:
    """The RESOURCE and SCOPE frames that were written, as (kind, payload, ref, number where written last).

    Bounded: those least lately used are forgotten, and what refers to them later has an unknown resource.
    """

    def __init__(self) -> None:
        self._frames: OrderedDict[int, tuple[int, bytes, int, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, sequence: int, kind: int, payload: bytes, ref: int) -> None:
        """Remember a frame under its number."""
        self._frames[sequence] = (kind, payload, ref, sequence)
        self._bytes += len(payload)
        while len(self._frames) > 2 and (len(self._frames) > _MAX_CONTEXTS or self._bytes > _MAX_CONTEXT_BYTES):
            _, (_, forgotten, _, _) = self._frames.popitem(last=False)
            self._bytes -= len(forgotten)

    def frame(self, sequence: int) -> tuple[int, bytes, int, int] | None:
        """The frame first written under that number."""
        found = self._frames.get(sequence)
        if found is not None:
            self._frames.move_to_end(sequence)
        return found

    def renew(self, sequence: int, renewed: int) -> None:
        """Note under which number it was written again; -1 where it could not be."""
        kind, payload, ref, _ = self._frames[sequence]
        self._frames[sequence] = (kind, payload, ref, renewed)
