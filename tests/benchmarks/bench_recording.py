"""What recording costs a program, beside what it pays already: the SDK's batch processor exporting OTLP over HTTP."""

from __future__ import annotations

import http.server
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from fencepost_recorder import RecordingSpanProcessor

SPANS = 20_000
ROUNDS = 3
ATTRIBUTES = {
    "messaging.system": "fencepost",
    "messaging.destination.name": "payments",
    "messaging.message.id": "pay-1",
    "job.worker.id": "payments-worker-1",
    "job.attempt": 1,
    "job.lease.token": 17,
    "job.effect.key": "pay-1/debit",
    "job.effect.applied": True,
}


class _Collector(http.server.BaseHTTPRequestHandler):
    """Accepts whatever is sent: the peer's own cost is not what is measured."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 the base class names it
        """Silent."""


def _collect(address: Connection) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        address.send(server.server_address[1])
        server.serve_forever()


@contextmanager
def _collector() -> Iterator[str]:
    """A collector in a process of its own, so that its cost is not counted."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1/traces"
    finally:
        process.kill()
        process.join()


def _cost(processor: SpanProcessor | None) -> float:
    """Microseconds of processor time a span, all threads of this process, until everything has left it."""
    provider = TracerProvider(shutdown_on_exit=False)
    if processor is not None:
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    before = time.process_time()
    for _ in range(SPANS):
        tracer.start_span("write pay-1/debit", attributes=ATTRIBUTES).end()
    provider.force_flush()
    cost = time.process_time() - before
    provider.shutdown()
    return cost / SPANS * 1e6


def figures() -> Iterator[dict[str, Any]]:
    """The medians of interleaved rounds, so that a slow moment of the machine strikes all alike."""
    costs: dict[str, list[float]] = {"sdk_alone": [], "fencepost": [], "batch_otlp": []}
    with _collector() as endpoint, tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            wal = Path(folder, str(number))
            wal.mkdir()
            # A queue that holds everything: a processor that drops spans would look cheap.
            batch = BatchSpanProcessor(OTLPSpanExporter(endpoint), max_queue_size=2 * SPANS)
            costs["sdk_alone"].append(_cost(None))
            costs["fencepost"].append(_cost(RecordingSpanProcessor(wal)))
            costs["batch_otlp"].append(_cost(batch))
    median = {name: sorted(values)[len(values) // 2] for name, values in costs.items()}
    ours, theirs = (median[name] - median["sdk_alone"] for name in ("fencepost", "batch_otlp"))
    yield {"figure": "recording_cost", "unit": "us/span beyond the SDK alone", "fencepost": round(ours, 2)}
    yield {"figure": "batch_otlp_cost", "unit": "us/span beyond the SDK alone", "batch_otlp": round(theirs, 2)}
    yield {"figure": "recording_cost_ratio", "unit": "fencepost / batch_otlp", "ratio": round(ours / theirs, 3)}
