"""The write-ahead log: checksummed frames that survive the death of the process that wrote them.

A producer's log is one file or several, its segments: `<producer>.wal`, then `<producer>.1.wal`, `<producer>.2.wal` …
Each is whole in itself: no frame refers to a frame of another segment. It holds at most 64 MiB; then the next one is
begun and this one ends with a NEXT frame, is unlocked, and never changes again.

A segment is a header and then frames, all little-endian:

    header  magic 8s "FPWAL\\r\\n\\x1a" · version u16 · size of the JSON u16 · crc32 u32 (of both and the JSON) · JSON
    loss    lost u64 · first u64 · last u64 · since u64 · until u64 · errno u32 · crc32 u32   (all zero: nothing lost)
    frame   crc32 u32 (of all after it) · payload size u32 · type u8 · sequence u64 · time u64 · ref u64 · payload

`sequence` counts a producer's frames from 0 without a break, from segment to segment (the header's `first_seq` is
where a segment begins), so that a missing segment shows; a frame that could not be written still uses its number. A
frame may come a little late: a signal handler recorded while it was on its way. A NEXT frame takes no number, it says
which one comes next. Numbers that come again in the next segment are those of frames which nobody was promised.
`time` is when the frame was written (unix ns). `ref` is the sequence of the frame this one belongs to: a span's SCOPE
frame, a scope's RESOURCE frame. Payloads are OTLP protobuf bytes (`Span`; `ScopeSpans` without spans;
`ResourceSpans` without scopes) or, for NOTE, CLOSE and NEXT, JSON.

A REQUEST frame is what a receiver was sent: a whole `ExportTraceServiceRequest`. Its `ref` is the ordinal of its first
span among all spans that this receiver ever logged.

The loss record lives in the header because its bytes are allocated already: a full disk can still be told there. One
whose range is UNRECORDED_FORK says that a forked child could not begin a log.

Reading is total: whatever the bytes are, the result is the good frames up to the first bad one, then a typed end.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import BinaryIO

from fencepost_recorder.plainfile import open_plain

MAGIC = b"FPWAL\r\n\x1a"
VERSION = 2
# Version 1 had no segments and no requests; what it has means the same.
_READABLE = (1, 2)
SEGMENT_BYTES = 64 * 1024 * 1024
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
MAX_SEQUENCE = 2**63 - 1
NO_REF = 2**64 - 1
"""The `ref` of a frame whose own frame of reference could not be written; no frame has this number."""
UNRECORDED_FORK = (1, 0)
"""The first and last number in the loss record of a log whose process was forked: the child could not begin a log of
its own, and what it did is in none. No loss of the process's own has such a range."""
# How much of a file is looked at at a time; a frame may need more.
WINDOW_BYTES = 4 * 1024 * 1024

_PREAMBLE = struct.Struct("<8sHHI")
_LOSS = struct.Struct("<QQQQQII")
FRAME_HEAD = struct.Struct("<IBQQQ")
_CRC_BYTES = 4
_LATE_BREAKS = 8
LOSS_BYTES = _LOSS.size
FRAME_OVERHEAD_BYTES = _CRC_BYTES + FRAME_HEAD.size


class FrameType(IntEnum):
    """What a frame's payload is."""

    RESOURCE = 1
    SCOPE = 2
    START = 3
    END = 4
    WHOLE = 5
    NOTE = 6
    CLOSE = 7
    REQUEST = 8
    NEXT = 9


_TYPES = {int(member): member for member in FrameType}


@dataclass(frozen=True, slots=True)
class Header:
    """Who writes a segment; `locked` tells whether it holds a lock on the file for as long as it lives.

    `kind` is process, receiver or import. The producer started at `started_unix_nano` and this segment at
    `begun_unix_nano`, whose first frame is to have the number `first_seq`. `kept` are the attribute keys to which
    its spans were reduced before they were written; None: not at all.
    """

    producer: str
    kind: str = "process"
    pid: int = 0
    host: str = ""
    started_unix_nano: int = 0
    locked: bool = False
    segment: int = 0
    first_seq: int = 0
    begun_unix_nano: int = 0
    kept: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Frames that could not be written: how many, their sequence range (closed) and time range (unix ns)."""

    lost: int
    first_seq: int
    last_seq: int
    since_unix_nano: int
    until_unix_nano: int
    errno: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of the log."""

    type: FrameType
    sequence: int
    time_unix_nano: int
    ref: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """Sequence numbers (closed range) missing between two good frames, and the times of those two."""

    first_seq: int
    last_seq: int
    since_unix_nano: int
    until_unix_nano: int


class Ending(Enum):
    """How a log file ends: after a whole frame, within a frame, or at bytes that are no frame of ours."""

    CLEAN = "clean"
    TORN = "torn"
    CORRUPT = "corrupt"


def segment_name(producer: str, segment: int) -> str:
    """The name of a segment's file."""
    return f"{producer}.{segment}.wal" if segment else f"{producer}.wal"


def encode_header(header: Header) -> bytes:
    """The bytes a log file starts with, loss record included."""
    text = json.dumps(
        {
            "producer": header.producer,
            "kind": header.kind,
            "pid": header.pid,
            "host": header.host,
            "started_unix_nano": header.started_unix_nano,
            "locked": header.locked,
            "segment": header.segment,
            "first_seq": header.first_seq,
            "begun_unix_nano": header.begun_unix_nano or header.started_unix_nano,
            **({} if header.kept is None else {"kept": header.kept}),
        },
        sort_keys=True,
    ).encode()
    if len(text) > 0xFFFF:
        raise ValueError("a log header holds at most 65,535 bytes")
    checksum = _header_checksum(VERSION, text)
    return _PREAMBLE.pack(MAGIC, VERSION, len(text), checksum) + text + bytes(LOSS_BYTES)


def encode_loss(loss: Loss) -> bytes:
    """The bytes of a header's loss record."""
    values = (
        loss.lost,
        loss.first_seq,
        loss.last_seq,
        loss.since_unix_nano,
        loss.until_unix_nano,
        loss.errno & 0xFFFFFFFF,
    )
    without_crc = _LOSS.pack(*values, 0)[:-_CRC_BYTES]
    return _LOSS.pack(*values, zlib.crc32(without_crc))


def tells_of_fork(loss: bytes) -> bool:
    """Whether a header's loss record is that of a fork without a log."""
    return len(loss) == LOSS_BYTES and _LOSS.unpack(loss)[1:3] == UNRECORDED_FORK


def encode_frame(kind: int, sequence: int, time_unix_nano: int, ref: int, payload: bytes) -> bytes:
    """The bytes of one frame; `payload` holds at most `MAX_PAYLOAD_BYTES`."""
    body = FRAME_HEAD.pack(len(payload), kind, sequence, time_unix_nano, ref) + payload
    return zlib.crc32(body).to_bytes(4, "little") + body


def loss_offset(header: bytes) -> int:
    """Where in a file that starts with `header` its loss record lies."""
    return len(header) - LOSS_BYTES


@dataclass(slots=True)
class LogReader:
    """Reads one log file from `stream`, which is at its start; at most `limit` bytes.

    `header` is None where the file has none that can be trusted; then there are no frames. `ending`, `offset`
    (where the good bytes end) and `reason` hold once `frames()` is exhausted, as do `closed` (the producer said that
    it recorded to its end) and `continued` (the log goes on in another segment). `breaks` fills while reading.
    """

    stream: BinaryIO
    limit: int
    header: Header | None = None
    loss: Loss | None = None
    loss_damaged: bool = False
    ending: Ending = Ending.CLEAN
    reason: str = ""
    offset: int = 0
    next_sequence: int = 0
    last_time_unix_nano: int | None = None
    closed: bool = False
    continued: bool = False
    breaks: list[Break] = field(default_factory=list)
    _window: bytes = b""
    _begins: int = 0

    def __post_init__(self) -> None:
        self._read_header()

    @property
    def unread_bytes(self) -> int:
        """Bytes after the last good one."""
        return self.limit - self.offset

    def frames(self) -> Iterator[Frame]:
        """The good frames in the order of the file, up to the first bad one."""
        while (frame := self.next()) is not None:
            yield frame

    def next(self) -> Frame | None:
        """The next good frame; None at the end of the file and at the first bad one."""
        if self.header is None or self.offset >= self.limit or self.reason:
            return None
        frame = self._next_frame()
        if frame is not None:
            self._follow(frame)
        return frame

    def window(self) -> tuple[bytes, int]:
        """Bytes of the file from its present offset on, after some that lie before it, and where in them it lies.

        There is at least one whole frame in them, if the file holds one. Who takes frames out of the window by
        himself says so by `passed`.
        """
        at = self.offset - self._begins
        left = len(self._window) - at
        if left < FRAME_OVERHEAD_BYTES or left < FRAME_OVERHEAD_BYTES + self._size_at(at):
            self._slide()
            at = 0
        return self._window, at

    def passed(self, at: int, next_sequence: int, last_time_unix_nano: int) -> None:
        """Frames up to the place `at` in the window were taken: good ones, as due, neither CLOSE nor NEXT."""
        self.offset = self._begins + at
        self.next_sequence, self.last_time_unix_nano = next_sequence, last_time_unix_nano
        self.closed = self.continued = False

    def _size_at(self, at: int) -> int:
        size: int = FRAME_HEAD.unpack_from(self._window, at + _CRC_BYTES)[0]
        return min(size, MAX_PAYLOAD_BYTES)

    def _slide(self) -> None:
        """Bring the next part of the file into the window, which starts at `offset` then."""
        kept = self._window[self.offset - self._begins :]
        self._window, self._begins = kept + self._more(WINDOW_BYTES, len(kept)), self.offset
        if len(self._window) >= FRAME_OVERHEAD_BYTES:
            lacking = FRAME_OVERHEAD_BYTES + self._size_at(0) - len(self._window)
            if lacking > 0:
                self._window += self._more(lacking, len(self._window))

    def _more(self, size: int, already: int) -> bytes:
        # Bytes beyond `limit` belong to a producer that is still writing: not ours to read.
        return self.stream.read(max(0, min(size, self.limit - self.offset - already)))

    def _next_frame(self) -> Frame | None:
        data, at = self.window()
        if len(data) - at < FRAME_OVERHEAD_BYTES:
            return self._stop(Ending.TORN, "the file ends within a frame")
        size, kind, sequence, time_unix_nano, ref = FRAME_HEAD.unpack_from(data, at + _CRC_BYTES)
        if size > MAX_PAYLOAD_BYTES:
            return self._stop(Ending.CORRUPT, "a frame claims an impossible size")
        begin = at + FRAME_OVERHEAD_BYTES
        payload = data[begin : begin + size]
        if len(payload) < size:
            return self._stop(Ending.TORN, "the file ends within a frame")
        if zlib.crc32(payload, zlib.crc32(data[at + _CRC_BYTES : begin])) != int.from_bytes(
            data[at : at + 4], "little"
        ):
            return self._stop(Ending.CORRUPT, "a frame's checksum does not match its bytes")
        due = sequence >= self.next_sequence or kind == FrameType.NEXT or self._is_late(sequence)
        if kind not in _TYPES or max(time_unix_nano, sequence) > MAX_SEQUENCE or not due:
            return self._stop(Ending.CORRUPT, "a frame has an impossible type, time or sequence number")
        self.offset += FRAME_OVERHEAD_BYTES + size
        return Frame(_TYPES[kind], sequence, time_unix_nano, ref, payload)

    def _is_late(self, sequence: int) -> bool:
        """Whether a number was found missing a moment ago: a signal handler's frame overtook it."""
        return any(one.first_seq <= sequence <= one.last_seq for one in self.breaks[-_LATE_BREAKS:])

    def _follow(self, frame: Frame) -> None:
        self.continued = frame.type is FrameType.NEXT
        if frame.sequence < self.next_sequence:
            if not self.continued:
                self.breaks = [left for one in self.breaks for left in _less(one, frame.sequence)]
            return
        if frame.sequence > self.next_sequence:
            before = self.last_time_unix_nano
            since = before if before is not None else (self.header.begun_unix_nano if self.header else 0)
            self.breaks.append(Break(self.next_sequence, frame.sequence - 1, since, frame.time_unix_nano))
        self.next_sequence = frame.sequence + (not self.continued)
        self.last_time_unix_nano = frame.time_unix_nano
        self.closed = frame.type is FrameType.CLOSE

    def _stop(self, ending: Ending, reason: str) -> Frame | None:
        self.ending, self.reason = ending, reason
        return None

    def _read_header(self) -> None:
        preamble = self._more(_PREAMBLE.size, 0)
        if len(preamble) < _PREAMBLE.size:
            self._stop(Ending.TORN, "the file ends within its header")
            return
        magic, version, size, checksum = _PREAMBLE.unpack(preamble)
        if magic != MAGIC:
            self._stop(Ending.CORRUPT, "the file does not start as a log does")
            return
        if version not in _READABLE:
            self._stop(Ending.CORRUPT, f"the log has format version {version}, this reads {VERSION}")
            return
        text = self._more(size, len(preamble))
        loss = self._more(LOSS_BYTES, len(preamble) + len(text))
        if len(text) < size or len(loss) < LOSS_BYTES:
            self._stop(Ending.TORN, "the file ends within its header")
            return
        self.header = _decode_header(text) if _header_checksum(version, text) == checksum else None
        if self.header is None:
            self._stop(Ending.CORRUPT, "the header's checksum does not match its bytes")
            return
        self.next_sequence = self.header.first_seq
        self._read_loss(loss)
        self.offset = self._begins = len(preamble) + size + LOSS_BYTES

    def _read_loss(self, data: bytes) -> None:
        if data == bytes(LOSS_BYTES):
            return
        *values, checksum = _LOSS.unpack(data)
        if zlib.crc32(data[:-_CRC_BYTES]) != checksum:
            self.loss_damaged = True
        else:
            self.loss = Loss(*values)


def _less(broken: Break, sequence: int) -> list[Break]:
    """A break without one of its numbers, which came late."""
    if not broken.first_seq <= sequence <= broken.last_seq:
        return [broken]
    low, high = replace(broken, last_seq=sequence - 1), replace(broken, first_seq=sequence + 1)
    return [one for one in (low, high) if one.first_seq <= one.last_seq]


def _header_checksum(version: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(struct.pack("<HH", version, len(text))))


def _decode_header(text: bytes) -> Header | None:
    try:
        values = json.loads(text)
        header = Header(
            producer=str(values["producer"]),
            kind=str(values["kind"]),
            pid=int(values["pid"]),
            host=str(values["host"]),
            started_unix_nano=int(values["started_unix_nano"]),
            locked=bool(values["locked"]),
            segment=int(values.get("segment", 0)),
            first_seq=int(values.get("first_seq", 0)),
            begun_unix_nano=int(values.get("begun_unix_nano", values["started_unix_nano"])),
            kept=tuple(map(str, values["kept"])) if "kept" in values else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    numbers = (header.started_unix_nano, header.begun_unix_nano, header.first_seq, header.segment)
    return header if all(0 <= number <= MAX_SEQUENCE for number in numbers) else None


def open_log(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> LogReader:
    """A reader over the bytes the file at `path` holds now; the caller closes `reader.stream`.

    Raises OSError when the file cannot be opened or is no plain file.
    """
    stream = open_plain(path, dir_fd=dir_fd)
    return LogReader(stream, os.fstat(stream.fileno()).st_size)
