"""What the receiver takes at most, how it proves who it is, and the counts it keeps."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from fencepost_recorder.errors import Overloaded

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Each bound of the receiver; sizes in bytes, times in seconds.

    `body_bytes` bounds one request once decompressed; `in_flight_bytes` all bodies together, from their first byte
    until they are on disk; `grpc_message_bytes` a message of gRPC on its way, compressed or not (4 MiB is what every
    gRPC server takes by default). `connections` bounds the threads that serve HTTP, `grpc_threads` those for gRPC.
    What may be in memory at once is thus `in_flight_bytes`, and `grpc_message_bytes` for each thread of gRPC; the
    receiver's resident memory grows by less than twice that, whatever it is sent.

    A request has `request_seconds` from its first byte to its last, a kept-alive connection `idle_seconds` between
    requests. `spans` and `groups` (resources and scopes) bound a request, `elements` (attributes, values, events,
    links) one span or resource, and `depth` the nesting of its JSON.
    """

    body_bytes: int = 16 * MIB
    in_flight_bytes: int = 64 * MIB
    grpc_message_bytes: int = 4 * MIB
    connections: int = 128
    grpc_threads: int = 8
    request_seconds: float = 15.0
    idle_seconds: float = 60.0
    spans: int = 131_072
    groups: int = 16_384
    elements: int = 65_536
    depth: int = 64


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate chain and private key, PEM files; with `clients`, theirs must be signed by that CA."""

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a receiver has answered so far.

    `requests` were answered, whatever the answer; `spans` are acknowledged and on disk, `bytes` of them; `rejected`
    spans were refused within requests that were otherwise kept; `refused` requests were turned away for good, by
    reason; `busy` ones were asked to come again. `trouble` is the last sentence about the disk, if there was one.
    """

    requests: int = 0
    spans: int = 0
    bytes: int = 0
    rejected: int = 0
    busy: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    trouble: str = ""


class Tally:
    """Counts, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._spans = self._bytes = self._rejected = self._busy = 0
        self._refused: dict[str, int] = {}
        self._trouble = ""

    def kept(self, spans: int, size: int, rejected: int) -> None:
        """A request was taken: `spans` of it are on disk, in `size` bytes."""
        with self._lock:
            self._requests += 1
            self._spans += spans
            self._bytes += size
            self._rejected += rejected

    def busy(self) -> None:
        """A request has to come again."""
        with self._lock:
            self._requests += 1
            self._busy += 1

    def refused(self, reason: str) -> None:
        """A request was turned away for good."""
        with self._lock:
            self._requests += 1
            self._refused[reason] = self._refused.get(reason, 0) + 1

    def trouble(self, sentence: str) -> None:
        """The disk did not take a request."""
        self._trouble = sentence

    def counts(self) -> Counts:
        """The counts as they stand."""
        with self._lock:
            refused = dict(sorted(self._refused.items()))
            made = (self._requests, self._spans, self._bytes, self._rejected, self._busy, refused, self._trouble)
            return Counts(*made)


class Budget:
    """Bytes that may be in memory at once; whoever comes when they are used up has to come again."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._left = limit

    @property
    def left(self) -> int:
        """Bytes that are not reserved."""
        return self._left

    def take(self, size: int) -> None:
        """Reserve bytes; raises Overloaded when there are not so many left."""
        with self._lock:
            if size > self._left:
                raise Overloaded("the receiver holds as many requests as it can: send this one again")
            self._left -= size

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        with self._lock:
            self._left += size
