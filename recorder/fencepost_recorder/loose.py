"""Halves of spans: starts without an end, and ends without a start, where their own process's log was read.

Most starts that are left never ended: the evidence of a crash. Some ended in another process, as after a fork, or in
another part of a long log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fencepost_recorder.rows import Origin, Place

IDS_BYTES = 28


@dataclass(frozen=True, slots=True)
class Half:
    """A START or END frame, with what its span takes from its resource and scope."""

    producer: str
    sequence: int
    time_unix_nano: int
    payload: bytes
    origin: Origin

    @property
    def key(self) -> bytes:
        """What names its span: the beginning of an encoded span is its ids."""
        return self.payload[:IDS_BYTES]


@dataclass(frozen=True, slots=True)
class Joined:
    """What is known of one span: its last half, and where both were."""

    half: Half
    place: Place


def is_key(data: bytes) -> bool:
    """Whether encoded ids begin there, as the recorder writes them: first of all."""
    return data[:2] == b"\x0a\x10" and data[18:20] == b"\x12\x08" and len(data) >= IDS_BYTES


def join(starts: Iterable[Half], ends: Iterable[Half]) -> Iterator[Joined]:
    """Every end with the start that it has, in the order of the ends; then the starts that never ended.

    An end belongs to a start of its own process that came before it, else to one of any other process.
    """
    opened: dict[bytes, list[Half]] = {}
    for start in starts:
        opened.setdefault(start.key, []).append(start)
    strangers: list[Half] = []
    for end in ends:
        started = _take(opened, end, own=True)
        if started is None:
            strangers.append(end)
        else:
            yield Joined(end, Place(end.producer, started.sequence, end.sequence, end.time_unix_nano))
    for end in strangers:
        started = _take(opened, end, own=False)
        if started is None:
            yield Joined(end, Place(end.producer, None, end.sequence, end.time_unix_nano))
        else:
            yield Joined(end, Place(started.producer, started.sequence, None, end.time_unix_nano))
    for halves in opened.values():
        for start in halves:
            yield Joined(start, Place(start.producer, start.sequence, None, start.time_unix_nano))


def _take(opened: dict[bytes, list[Half]], end: Half, own: bool) -> Half | None:
    halves = opened.get(end.key, ())
    for number, start in enumerate(halves):
        if (
            (start.producer == end.producer and start.sequence < end.sequence)
            if own
            else start.producer != end.producer
        ):
            found = opened[end.key].pop(number)
            if not opened[end.key]:
                del opened[end.key]
            return found
    return None
