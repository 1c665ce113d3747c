"""The bytes of a file to import: decompressed as they are read, within limits."""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from fencepost_recorder.errors import ImportFailed, printable

_CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {
    _ZSTD: "zstd: decompress it first (zstd -d)",
    b"\xfd7zX": "xz: decompress it first (xz -d)",
    b"BZh": "bzip2: decompress it first (bzip2 -d)",
    b"PK\x03\x04": "zip: take the files out of it first (unzip)",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an import takes at most, in bytes: of a file once decompressed, of one line or message, of one document."""

    file_bytes: int = 16 * 1024**3
    message_bytes: int = 64 * 1024**2
    document_bytes: int = 256 * 1024**2


DEFAULT_LIMITS = Limits()


class Source:
    """Reads a file, through gzip when its first bytes say so (its name does not matter).

    Damage does not raise: reading ends at the last good byte, and `damage` says why. Raises ImportFailed when the
    file cannot be read at all, or holds more than the limits allow.
    """

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.name = printable(path)
        self.damage = ""
        self._limits = limits
        self._buffer = bytearray()
        self._read = 0
        self._stream = _open(path, self.name)
        head = self._stream.read(4)
        self._stream.seek(0)
        self.compression = "gzip" if head.startswith(_GZIP) else "none"
        self._zip = zlib.decompressobj(31) if self.compression == "gzip" else None
        self._pending = b""
        other = next((how for magic, how in _OTHERS.items() if head.startswith(magic)), None)
        if other is not None:
            self.close()
            raise ImportFailed(f"{self.name} is compressed with {other}, then import it")

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, without taking them."""
        while len(self._buffer) < size:
            chunk = self._more()
            if not chunk:
                break
            self._buffer += chunk
        return bytes(self._buffer[:size])

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        data = self.peek(size)
        del self._buffer[: len(data)]
        return data

    def line(self) -> bytes | None:
        """The next line, its newline included unless the file ends without one; None at the end.

        Raises ImportFailed for a line beyond any limit.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limits.message_bytes:
                raise ImportFailed(f"{self.name} has a line of more than {_mib(self._limits.message_bytes)}")
            chunk = self._more()
            if not chunk:
                return self.take(searched) or None
            self._buffer += chunk
        return self.take(end + 1)

    def _more(self) -> bytes:
        chunk = self._raw() if self._zip is None else self._unzip()
        self._read += len(chunk)
        if self._read > self._limits.file_bytes:
            raise ImportFailed(f"{self.name} holds more than {_mib(self._limits.file_bytes)} once decompressed")
        return chunk

    def _raw(self) -> bytes:
        try:
            return self._stream.read(_CHUNK)
        except OSError as error:
            self.damage = f"it cannot be read: {error.strerror}"
            return b""

    def _unzip(self) -> bytes:
        while not self.damage:
            assert self._zip is not None
            if self._zip.eof:
                self._pending = self._zip.unused_data or self._pending or self._raw()
                if not self._pending.strip(b"\0"):
                    return b""
                self._zip = zlib.decompressobj(31)  # the next member of the file
            data = self._pending or self._raw()
            if not data:
                self.damage = self.damage or "its gzip stream is cut off"
                return b""
            before = self._zip.copy()
            try:
                chunk = self._zip.decompress(data, _CHUNK)
            except zlib.error:
                self.damage = "its gzip stream is damaged"
                return _up_to_damage(before, data)
            self._pending = self._zip.unconsumed_tail
            if chunk:
                return chunk
        return b""


def _up_to_damage(stream: Any, data: bytes) -> bytes:
    """What a gzip stream holds before the byte at which it fails: zlib itself throws that away."""
    found = bytearray()
    try:
        for at in range(len(data)):
            found += stream.decompress(data[at : at + 1])
    except zlib.error:
        return bytes(found)
    return bytes(found)


def unzstd(data: bytes, limit: int) -> bytes:
    """The bytes behind a zstd frame, or `data` itself when it is none. Raises ValueError when damaged or too large."""
    if not data.startswith(_ZSTD):
        return data
    try:
        plain = bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(limit + 1))
    except (pa.ArrowException, OSError) as error:
        raise ValueError("a zstd message is damaged") from error
    if len(plain) > limit:
        raise ValueError("a zstd message is too large")
    return plain


def _open(path: Path, name: str) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "; standard input is not read, write it to a file first" if name == "-" else ""
        raise ImportFailed(f"{name} cannot be read: {error.strerror}{hint}") from error
    except ValueError as error:
        raise ImportFailed(f"{name} is no file name") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImportFailed(f"{name} is no file: give files, not folders or pipes")
    return os.fdopen(descriptor, "rb", buffering=0)


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB"
