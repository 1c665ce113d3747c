"""SIGKILL at random moments, thousands of times: to a process that records, to a receiver, to whoever seals.

What was acknowledged is known outside: of a process by counters in shared memory, which it raises after each append;
of a receiver by the answers that its clients have read. A recording takes many kills before it is sealed and judged.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns import spans
from campaigns.client import Client
from campaigns.everywhere import memory
from campaigns.judging import Found, judged
from campaigns.scale import Figure, figure, scaled

from fencepost_recorder import begin, recover
from fencepost_recorder.processor import RecordingSpanProcessor
from fencepost_recorder.receiver import Receiver
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

ROUNDS_A_RECORDING = 100
OPEN_SPANS = 4
REQUEST_SPANS = 256


@dataclass
class Books:
    """What one recording owes: ranges of spans whose start, and whose end, was acknowledged; and what was sent."""

    kills: int = 0
    started: list[range] = field(default_factory=list)
    ended: list[range] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """Spans, by their start or whole."""
        return sum(map(len, self.started))


def random_kills() -> Iterator[Figure]:
    """The whole campaign."""
    begun, draw = time.monotonic(), random.Random(5)
    kills, due = scaled(10_000, 20), scaled(10_000_000)
    yield from _campaign("processes", _record, kills * 4 // 5, due // 2, draw)
    yield from _campaign("receivers", _receive, kills // 5, due // 2, draw)
    yield figure("SIGKILLs at random moments", round(time.monotonic() - begun, 1), "seconds")


Round = Callable[[Path, Books, int, random.Random], int]


def _campaign(name: str, one: Round, kills: int, due: int, draw: random.Random) -> Iterator[Figure]:
    """Kill so often, and until so many spans were acknowledged."""
    total = Found()
    done = acknowledged = sealers = 0
    number = 1
    while done < kills or acknowledged < due:
        with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
            directory, books = begin(Path(scratch), "r"), Books()
            for _ in range(ROUNDS_A_RECORDING):
                number = one(directory, books, number, draw)
                if done + books.kills >= kills and acknowledged + books.acknowledged >= due:
                    break
            if books.unanswered:
                number = _receive(directory, books, number, draw, to_the_end=True)
            sealers += _kill_sealers(directory, 0.1 + books.acknowledged / 150_000, draw)
            total.add(judged(directory, books.started, books.ended))
            done, acknowledged = done + books.kills, acknowledged + books.acknowledged
    yield figure(
        f"SIGKILLs of {name}",
        done,
        "kills",
        acknowledged_spans=acknowledged,
        kills_while_sealing=sealers,
        **total.figures(),
    )


def _forked(work: Callable[[], Any]) -> int:
    """A child that does its work, until it is killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def _killed(pid: int) -> bool:
    """Kill a child; whether it was still at work."""
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _record(directory: Path, books: Books, number: int, draw: random.Random) -> int:
    """One process records until it is killed."""
    # Each is written by one store: a kill leaves the old number or the new one.
    counts = memoryview(mmap.mmap(-1, 16)).cast("Q")
    hear, say = os.pipe()
    how = draw.choices((_by_writer, _by_processor), (9, 1))[0]
    pid = _forked(lambda: how(directory / "wal", number, counts, say, draw))
    os.close(say)
    # It is ready: the moment is drawn within its work, not within its start.
    ready = os.read(hear, 4)
    os.close(hear)
    assert ready, "a process could not record"
    time.sleep(draw.random() * 0.04)
    os.kill(struct.unpack("<I", ready)[0], signal.SIGKILL)
    books.kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    started, ended = counts
    books.started.append(range(number, number + started))
    books.ended.append(range(number, number + ended))
    return number + started + OPEN_SPANS + 1


def _by_writer(wal: Path, first: int, counts: memoryview, say: int, draw: random.Random) -> None:
    """Frames that were encoded before, as fast as they can be written; some logs in many segments."""
    writer = LogWriter(wal, segment_bytes=draw.choice((64 * 1024 * 1024, 32 * 1024)))
    resource = writer.append(FrameType.RESOURCE, spans.resource(writer.producer))
    scope = writer.append(FrameType.SCOPE, spans.scope(), resource)
    os.write(say, struct.pack("<I", os.getpid()))
    number = first
    while True:
        writer.append(FrameType.START, spans.started(number), scope)
        counts[0] = number - first + 1
        if number - first >= OPEN_SPANS:
            writer.append(FrameType.END, spans.ended(number - OPEN_SPANS), scope)
            counts[1] = number - first - OPEN_SPANS + 1
        number += 1


def _by_processor(wal: Path, first: int, counts: memoryview, say: int, _: random.Random) -> None:
    """Spans of the SDK, by a child of the process that set it up, as in a prefork pool."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    from opentelemetry.trace import SpanKind

    numbers = _Numbers(first)
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({"service.name": "campaign"}),
        shutdown_on_exit=False,
        id_generator=numbers,
    )
    provider.add_span_processor(RecordingSpanProcessor(wal))
    tracer = provider.get_tracer(spans.SCOPE)
    tracer.start_span("write pay-1/debit", kind=SpanKind.CLIENT, attributes=spans.ATTRIBUTES).end()
    counts[0] = counts[1] = 1
    child = os.fork()
    if child:
        os.write(say, struct.pack("<I", child))
        os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGKILL)
    done = 1
    while True:
        span = tracer.start_span("write pay-1/debit", kind=SpanKind.CLIENT, attributes=spans.ATTRIBUTES)
        counts[0] = done + 1
        span.end()
        done += 1
        counts[1] = done


class _Numbers:
    """Ids that count."""

    def __init__(self, first: int) -> None:
        self._next = first

    def generate_span_id(self) -> int:
        self._next += 1
        return self._next - 1

    def generate_trace_id(self) -> int:
        return int.from_bytes(spans.TRACE_ID, "big")

    def is_trace_id_random(self) -> bool:
        return False


def _receive(directory: Path, books: Books, number: int, draw: random.Random, *, to_the_end: bool = False) -> int:
    """A receiver takes requests over a few connections until it is killed; what it did not answer is sent again."""
    hear, say = os.pipe()
    pid = _forked(lambda: _serve(directory / "wal", say))
    os.close(say)
    port = struct.unpack("<H", os.read(hear, 2))[0]
    client = Client(port, _REQUESTS, books.unanswered, number)
    deadline = time.monotonic() + draw.random() * 0.1
    while time.monotonic() < deadline or (to_the_end and client.again):
        client.turn(0.002)
    client.sending = False
    if to_the_end:
        while client.pending:
            client.turn(0.1)
    books.kills += _killed(pid)
    os.close(hear)
    while client.pending and client.turn(1.0):
        """What it answered before it was killed may still be on its way."""
    client.close()
    books.started += client.answered
    books.ended += client.answered
    books.unanswered = client.again + client.pending
    return client.number


_REQUESTS = spans.Requests("client-1", REQUEST_SPANS)


def _serve(wal: Path, say: int) -> None:
    receiver = Receiver(wal, http=("127.0.0.1", 0))
    receiver.start()
    address = receiver.http_address
    assert address is not None
    os.write(say, struct.pack("<H", address[1]))
    signal.pause()


def _kill_sealers(directory: Path, seconds: float, draw: random.Random) -> int:
    """Kill whoever seals, which takes about so long, a few times; how often it was at work."""
    kills = 0
    for _ in range(draw.randint(1, 4)):
        pid = _forked(lambda: recover(directory, tool_version="0.0.campaign"))
        time.sleep(draw.random() * seconds)
        kills += _killed(pid)
    return kills
