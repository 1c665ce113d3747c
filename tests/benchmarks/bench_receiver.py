"""How many spans a second the receiver makes durable, and how long an acknowledgement takes.

Beside it stands the limit of the disk itself, measured in the same run: the same bytes appended by one write and one
fdatasync for each group of as many batches as there are senders. The senders run in processes of their own, on the
same processors, and send bodies that were encoded before.
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
    barrier: Barrier,
    results: Any,
) -> None:
    bodies = [batch(seed * 4 + number) for number in range(4)]
    send = connect(address)
    send(bodies[0])
    latencies: list[float] = []
    barrier.wait()
    started = time.perf_counter()
    while (now := time.perf_counter()) < started + SECONDS:
        send(bodies[len(latencies) % len(bodies)])
        latencies.append(time.perf_counter() - now)
    results.put((time.perf_counter() - started, latencies))


def _measure(connect: Callable[[tuple[str, int]], Send], address: tuple[str, int]) -> tuple[float, list[float]]:
    """Spans a second of all senders, and every latency in seconds, sorted."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(SENDERS), context.Queue()
    senders = [
        context.Process(target=_send, args=(connect, address, seed, barrier, results), daemon=True)
        for seed in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    found = [results.get(timeout=120) for _ in senders]
    for sender in senders:
        sender.join()
    rate = sum(len(latencies) * SPANS / seconds for seconds, latencies in found)
    return rate, sorted(one for _, latencies in found for one in latencies)


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
            receiver.stop()
            kept = receiver.counts().spans
            limits.append(_raw(folder))
            yield {
                "figure": f"receiver_{face}",
                "unit": "durable spans/s",
                "rate": round(rate),
                "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
                "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
                "raw_append": round((limits[-2] + limits[-1]) / 2),
                "acknowledged": kept,
                "senders": SENDERS,
            }
