"""Sorting more than fits into memory: sorted runs go to a temporary file and are merged from there."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from fencepost_recorder import durable

RUN_BYTES = 64 * 1024 * 1024
# What an entry costs beside its data.
_ENTRY_BYTES = 200
_READ_BYTES = 256 * 1024
_HEAD = struct.Struct("<qqqI")

Key = tuple[int, int, int]
_Entry = tuple[Key, bytes]


class Ordered:
    """Takes entries in any order, and gives their data in the order of their keys (which are 64-bit integers).

    The temporary file has no name, so that nothing is left of it however this process ends; it is in `folder`, or
    where temporary files are. Raises StorageError.
    """

    def __init__(self, folder: Path | None = None, run_bytes: int = RUN_BYTES) -> None:
        self._folder = folder
        self._limit = run_bytes
        self._entries: list[_Entry] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []

    def __enter__(self) -> Ordered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, key: Key, data: bytes) -> None:
        """Take one entry."""
        self._entries.append((key, data))
        self._bytes += len(data) + _ENTRY_BYTES
        if self._bytes >= self._limit:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        self._entries.sort()
        runs = [self._run(start, end) for start, end in self._runs]
        return (data for _, data in heapq.merge(*runs, self._entries))

    def _spill(self) -> None:
        self._entries.sort()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".fencepost-")  # noqa: SIM115
            start = self._file.tell()
            for key, data in self._entries:
                self._file.write(_HEAD.pack(*key, len(data)))
                self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise durable.storage_error("sort in", self._folder or tempfile.gettempdir(), error) from error
        self._runs.append((start, self._file.tell()))
        self._entries, self._bytes = [], 0

    def _run(self, start: int, end: int) -> Iterator[_Entry]:
        buffer, at = b"", 0
        while start < end or at < len(buffer):
            if len(buffer) - at < _HEAD.size:
                buffer, at, start = buffer[at:] + self._read(start, end, _READ_BYTES), 0, min(start + _READ_BYTES, end)
            first, second, third, size = _HEAD.unpack_from(buffer, at)
            at += _HEAD.size
            if len(buffer) - at < size:
                more = max(size - (len(buffer) - at), _READ_BYTES)
                buffer, at, start = buffer[at:] + self._read(start, end, more), 0, min(start + more, end)
            yield (first, second, third), buffer[at : at + size]
            at += size

    def _read(self, start: int, end: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(start)
        return self._file.read(min(size, end - start))
