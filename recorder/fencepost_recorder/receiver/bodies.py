"""The body of a request: read within limits of time and size, and decompressed as it comes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol

from fencepost_recorder.receiver.answers import Problem, Refusal
from fencepost_recorder.receiver.limits import MIB, Budget, Limits

_CHUNK = 256 * 1024
_STEP = 256 * 1024
_LINE_BYTES = 256
_TRAILER_LINES = 64
_MAX_MEMBERS = 64
_GZIP_OR_ZLIB = 47  # what zlib calls: either, told apart by the first bytes
ENCODINGS = ("gzip", "x-gzip", "deflate")


class Stream(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""

    def readline(self, limit: int, /) -> bytes:
        """A line, with its newline unless it is too long or the stream ends."""


class Gone(Exception):
    """The client went away amid its request: nobody is there to be answered."""


class Reservation:
    """A body's share of the memory for bodies: grows with it, and is given back on leaving the `with`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.give(self._held)
        self._held = 0

    def cover(self, size: int) -> None:
        """Hold at least so many bytes; raises Overloaded."""
        while self._held < size:
            self._budget.take(_STEP)
            self._held += _STEP


def read_body(stream: Stream, length: int | None, encoding: str, limits: Limits, reservation: Reservation) -> bytearray:
    """A body of `length` bytes, or chunked where that is None, decompressed. Raises Refusal, Gone, Overloaded.

    `length` is at most the limit.
    """
    chunks = _plain(stream, length) if length is not None else _chunked(stream)
    if encoding:
        reservation.cover(_CHUNK)
        return inflate(chunks, limits, reservation)
    body = bytearray()
    while True:
        # Before they are read: many clients may be slow to send a little each.
        reservation.cover(min(len(body) + _CHUNK, length or limits.body_bytes))
        chunk = next(chunks, b"")
        if not chunk:
            return body
        _extend(body, chunk, limits, reservation)


def inflate(chunks: Iterable[bytes], limits: Limits, reservation: Reservation) -> bytearray:
    """Decompress gzip or zlib, a little at a time. Raises Refusal when it is damaged or too much, Overloaded."""
    body = bytearray()
    inflating = _Inflating()
    read = 0
    try:
        for chunk in chunks:
            read += len(chunk)
            if read > limits.body_bytes:
                raise too_large(limits)
            for piece in inflating.pieces(chunk):
                _extend(body, piece, limits, reservation)
    except zlib.error:
        raise Refusal(Problem.UNREADABLE, "the compressed body is damaged") from None
    if not inflating.ended:
        raise Refusal(Problem.UNREADABLE, "the compressed body is cut off")
    return body


class _Inflating:
    """A compressed stream: one or several members, each in full."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 1

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What more bytes give, never much at once. Raises zlib.error."""
        if self._stream.eof and data:
            self._next()
        while True:
            piece = self._stream.decompress(data, _CHUNK)
            yield piece
            if self._stream.eof:
                data = self._stream.unused_data
                if not data:
                    return
                self._next()
                continue
            data = self._stream.unconsumed_tail
            # A full piece may not be all of it, though every byte was taken in.
            if not data and len(piece) < _CHUNK:
                return

    def _next(self) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise Refusal(Problem.TOO_LARGE, "the compressed body has too many parts")
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)


def too_large(limits: Limits) -> Refusal:
    """What the sender of too much is told."""
    size = f"{limits.body_bytes / MIB:,g} MiB"
    return Refusal(Problem.TOO_LARGE, f"the body is larger than {size} once decompressed: send smaller batches")


def _extend(body: bytearray, chunk: bytes, limits: Limits, reservation: Reservation) -> None:
    size = len(body) + len(chunk)
    if size > limits.body_bytes:
        raise too_large(limits)
    reservation.cover(size)
    body += chunk


def _plain(stream: Stream, length: int) -> Iterator[bytes]:
    """So many bytes, in chunks of which none is empty."""
    while length:
        chunk = stream.read(min(length, _CHUNK))
        if not chunk:
            raise Gone
        length -= len(chunk)
        yield chunk


def _chunked(stream: Stream) -> Iterator[bytes]:
    """The body behind HTTP/1.1's chunked transfer coding."""
    while size := _chunk_size(stream):
        yield from _plain(stream, size)
        if _line(stream):
            raise Refusal(Problem.UNREADABLE, "a chunk of the body does not end where it should")
    for _ in range(_TRAILER_LINES):
        if not _line(stream):
            return
    raise Refusal(Problem.UNREADABLE, "the body has too many trailers")


def _chunk_size(stream: Stream) -> int:
    digits = _line(stream).split(b";", 1)[0].strip()
    if not 0 < len(digits) <= 8 or not all(digit in b"0123456789abcdefABCDEF" for digit in digits):
        raise Refusal(Problem.UNREADABLE, "a chunk of the body has no size")
    return int(digits, 16)


def _line(stream: Stream) -> bytes:
    line = stream.readline(_LINE_BYTES)
    if not line:
        raise Gone
    if not line.endswith(b"\n"):
        raise Refusal(Problem.UNREADABLE, "a chunk of the body has no size")
    return line.rstrip(b"\r\n")
