"""How many spans a second the receiver makes durable, and how long an acknowledgement takes.

Each way in is measured twice: as fast as the senders can go, and at the rate that is aimed at, for a latency at
saturation says only how many senders there were. Beside them stands the limit of the disk itself, measured in the
same run: the same bytes appended by one write and one fdatasync for each group of a batch from every sender. The
senders run in processes of their own, on the same processors, and send bodies that were encoded before.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fencepost_recorder.receiver import Receiver

SPANS = 512
SENDERS = 6
SECONDS = 6.0
AIM = 150_000
TEXTS = {
    "messaging.system": "fencepost",
    "messaging.destination.name": "payments",
    "messaging.message.id": "pay-1",
    "job.worker.id": "payments-worker-1",
    "job.effect.key": "pay-1/debit",
}
NUMBERS = {"job.attempt": 1, "job.lease.token": 17}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
Send = Callable[[bytes], None]


def batch(seed: int) -> bytes:
    """One request of 512 spans with 8 attributes each."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "benchmark"
    scope = resource.scope_spans.add()
    scope.scope.name = "benchmark"
    now = time.time_ns()
    for number in range(SPANS):
        span = scope.spans.add(
            trace_id=os.urandom(16),
            span_id=(seed * SPANS + number + 1).to_bytes(8, "big"),
            parent_span_id=os.urandom(8),
            name="write pay-1/debit",
            kind=3,
            start_time_unix_nano=now,
            end_time_unix_nano=now + 1000,
        )
        for key, text in TEXTS.items():
            span.attributes.add(key=key).value.string_value = text
        for key, value in NUMBERS.items():
            span.attributes.add(key=key).value.int_value = value
        span.attributes.add(key="job.effect.applied").value.bool_value = True
    return bytes(request.SerializeToString())


def _over_http(address: tuple[str, int]) -> Send:
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(body: bytes) -> None:
        connection.sendall(b"%sContent-Length: %d\r\n\r\n%s" % (HEAD, len(body), body))
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not acknowledged: {answer[:200]!r}")

    return send


def _over_grpc(address: tuple[str, int]) -> Send:
    channel = grpc.insecure_channel(f"{address[0]}:{address[1]}", options=[("grpc.use_local_subchannel_pool", 1)])
    return channel.unary_unary(EXPORT)


def _send(
    connect: Callable[[tuple[str, int]], Send],
    address: tuple[str, int],
    seed: int,
    interval: float,
    barrier: Barrier,
    results: Any,
) -> None:
    bodies = [batch(seed * 4 + number) for number in range(4)]
    send = connect(address)
    send(bodies[0])
    latencies: list[float] = []
    barrier.wait()
    # The senders of a rate take turns: each batch of one has its own moment.
    started = time.perf_counter() + interval * seed / SENDERS
    while (now := time.perf_counter()) < started + SECONDS:
        due = started + interval * len(latencies)
        if now < due:
            time.sleep(due - now)
            now = due
        send(bodies[len(latencies) % len(bodies)])
        latencies.append(time.perf_counter() - (due if interval else now))
    results.put((time.perf_counter() - started, latencies))


def _measure(
    connect: Callable[[tuple[str, int]], Send], address: tuple[str, int], rate: int = 0
) -> tuple[float, list[float]]:
    """Spans a second of all senders, and every latency in seconds, sorted; at `rate` spans a second, if that is set.

    A latency counts from the moment at which its batch was due: a sender that is held up sends late, not less.
    """
    interval = SENDERS * SPANS / rate if rate else 0.0
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(SENDERS), context.Queue()
    senders = [
        context.Process(target=_send, args=(connect, address, seed, interval, barrier, results), daemon=True)
        for seed in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    found = [results.get(timeout=120) for _ in senders]
    for sender in senders:
        sender.join()
    reached = sum(len(latencies) * SPANS / seconds for seconds, latencies in found)
    return reached, sorted(one for _, latencies in found for one in latencies)


def _raw(folder: Path) -> float:
    """Spans a second that the disk itself takes, a group of one batch from each sender at a time."""
    group = batch(0) * SENDERS
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        written, started = 0, time.perf_counter()
        while time.perf_counter() < started + SECONDS / 2:
            os.write(descriptor, group)
            os.fdatasync(descriptor)
            written += SENDERS
        return written * SPANS / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


def figures() -> Iterator[dict[str, Any]]:
    """One line a way in, with the disk's own limit before and after."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("FENCEPOST_BENCH_DIR")) as name:
        folder = Path(name)
        limits = [_raw(folder)]
        for face, connect in (("http", _over_http), ("grpc", _over_grpc)):
            wal = folder / face
            wal.mkdir()
            receiver = Receiver(wal, **{"http": None, face: ("127.0.0.1", 0)})
            receiver.start()
            address = receiver.http_address or receiver.grpc_address
            assert address is not None
            rate, latencies = _measure(connect, address)
            paced, calm = _measure(connect, address, AIM)
            receiver.stop()
            limits.append(_raw(folder))
            yield {
                "figure": f"receiver_{face}",
                "unit": "durable spans/s",
                "rate": round(rate),
                **_percentiles(latencies),
                "raw_append": round((limits[-2] + limits[-1]) / 2),
                "senders": SENDERS,
            }
            yield {
                "figure": f"receiver_{face}_paced",
                "unit": "durable spans/s",
                "rate": round(paced),
                **_percentiles(calm),
                "senders": SENDERS,
            }


def _percentiles(latencies: list[float]) -> dict[str, float]:
    return {
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
    }
