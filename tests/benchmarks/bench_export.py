"""What an export costs, beside the SDK's own encoders on the same spans: to OTLP JSON in a file, and to protobuf."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fencepost_recorder import Recording, RecordingSpanProcessor, begin, export_recording, seal

SPANS = 20_000
ROUNDS = 3
BATCH = 512
OPERATIONS = ("send", "receive", "process", "settle")


def attributes(number: int) -> dict[str, Any]:
    """Eight, two of which differ from span to span."""
    return {
        "messaging.system": "fencepost",
        "messaging.destination.name": "payments",
        "messaging.message.id": f"pay-{number // 4}",
        "job.worker.id": f"payments-worker-{number % 7}",
        "job.attempt": 1 + number % 3,
        "job.lease.token": number,
        "job.outcome": "ok",
        "job.settle.accepted": True,
    }


def recorded(folder: Path) -> tuple[Recording, list[ReadableSpan]]:
    """The same spans as a recording, and as the SDK has them."""
    memory = InMemorySpanExporter()
    directory = begin(folder, "bench")
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(RecordingSpanProcessor(directory / "wal"))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("bench", "1")
    for number in range(SPANS):
        name = f"{OPERATIONS[number % 4]} payments"
        with tracer.start_as_current_span(name, attributes=attributes(number)):
            pass
    provider.shutdown()
    return seal(directory, tool_version="bench"), list(memory.get_finished_spans())


def rate(work: Callable[[], object]) -> float:
    """Spans a second of processor time."""
    before = time.process_time()
    work()
    return SPANS / (time.process_time() - before)


def sdk_json(spans: list[ReadableSpan], file: Path) -> None:
    exporter = FileSpanExporter(file)
    for start in range(0, len(spans), BATCH):
        exporter.export(spans[start : start + BATCH])
    exporter.shutdown()


def sdk_protobuf(spans: list[ReadableSpan]) -> None:
    for start in range(0, len(spans), BATCH):
        encode_spans(spans[start : start + BATCH]).SerializeToString()


def figures() -> Iterator[dict[str, Any]]:
    """The medians of interleaved rounds, so that a slow moment of the machine strikes all alike."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording, spans = recorded(folder)
        works: dict[str, Callable[[], object]] = {
            "otlp_json": lambda: export_recording(recording, folder / "a", "otlp-json", force=True),
            "otlp_json_gzip": lambda: export_recording(recording, folder / "b", "otlp-json", gzip=True, force=True),
            "otlp_protobuf": lambda: export_recording(recording, folder / "c", "otlp", force=True),
            "perfetto": lambda: export_recording(recording, folder / "d", "perfetto", force=True),
            "sdk_otlp_json": lambda: sdk_json(spans, folder / "e"),
            "sdk_otlp_protobuf": lambda: sdk_protobuf(spans),
        }
        rates: dict[str, list[float]] = {what: [] for what in works}
        for _ in range(ROUNDS):
            for what, work in works.items():
                rates[what].append(rate(work))
        sizes = {what: (folder / file).stat().st_size for what, file in (("otlp_json", "a"), ("otlp_json_gzip", "b"))}
    median = {what: sorted(values)[len(values) // 2] for what, values in rates.items()}
    for what, value in median.items():
        yield {"figure": f"export_{what}", "unit": "spans/s of processor time", what: round(value)}
    for what, other in (("otlp_json", "sdk_otlp_json"), ("otlp_protobuf", "sdk_otlp_protobuf")):
        yield {
            "figure": f"export_{what}_ratio",
            "unit": f"{what} / {other}",
            "ratio": round(median[what] / median[other], 2),
        }
    for what, size in sizes.items():
        yield {"figure": f"export_{what}_size", "unit": "bytes/span", what: round(size / SPANS, 1)}
