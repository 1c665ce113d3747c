"""How fast a log is sealed and how small it gets, beside what else could have been chosen.

The spans are those of a job queue: a trace a job, of six spans with eight attributes each. They are logged twice, by
the span processor (starts and ends) and as a receiver logs them (requests of 512 spans). The peers: one process instead
of several; protobuf's classes and `Table.from_pylist`; DuckDB's COPY; pyarrow's own choice of encodings; and for the
size, the very same spans as OTLP requests, gzipped as one stream, which is kinder to gzip than one by one.
"""

from __future__ import annotations

import gzip
import math
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from fencepost_recorder import Recording, RecordingSpanProcessor, begin, seal
from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.parts import ID_BYTES, PART_ROWS, SpanParts
from fencepost_recorder.rows import Place, origin_of, row_of
from fencepost_recorder.schema import SPANS as SCHEMA

JOBS = 160_000
SAMPLE_JOBS = 10_000
BATCH = 512
WORKERS = 4
ROUNDS = 3
STEPS = ("send payments", "receive payments", "process payments", "write debit", "write receipt", "settle payments")
KINDS = (4, 5, 5, 3, 3, 5)
LONGEST_PAUSE_NS, LONGEST_SPAN_NS = 50_000, 5_000_000
# What nobody can take from a span: its ids (a trace's are those of six spans), when it began, and how long it took.
RANDOM_BYTES = 16 / len(STEPS) + 8 + (math.log2(LONGEST_PAUSE_NS) + math.log2(LONGEST_SPAN_NS)) / 8
Step = tuple[str, int, dict[str, Any]]


def job(number: int) -> list[Step]:
    """Name, kind and attributes of the six spans of a job; the third holds the writes."""
    worker = number % 7
    same = {
        "messaging.system": "fencepost",
        "messaging.destination.name": "payments",
        "messaging.message.id": f"pay-{number}",
        "job.worker.id": f"payments-worker-{worker}",
        "job.attempt": 1,
        "job.lease.token": number + 1,
    }
    own: Sequence[dict[str, Any]] = (
        {"job.enqueue.accepted": True, "job.enqueue.effects": 2},
        {"job.lease.granted": True, "job.lease.expires_unix_nano": 1_790_000_000_000_000_000 + number * 1_000_003},
        {"job.outcome": "ok", "job.result.bytes": 100 + number % 900},
        {"job.effect.key": f"pay-{number}/debit", "job.effect.applied": True},
        {"job.effect.key": f"pay-{number}/receipt", "job.effect.applied": True},
        {"job.outcome": "ok", "job.settle.accepted": True},
    )
    return [(name, kind, same | more) for name, kind, more in zip(STEPS, KINDS, own, strict=True)]


def requests(jobs: int) -> Iterator[bytes]:
    """The spans of so many jobs as encoded OTLP requests."""
    rng, now = random.Random(1), 1_790_000_000_000_000_000
    spans: list[Span] = []
    for number in range(jobs):
        trace, ids = rng.randbytes(16), [rng.randbytes(8) for _ in STEPS]
        parents = (b"", ids[0], ids[0], ids[2], ids[2], ids[2])
        for (name, kind, attributes), own, parent in zip(job(number), ids, parents, strict=True):
            now += rng.randrange(LONGEST_PAUSE_NS)
            end = now + rng.randrange(LONGEST_SPAN_NS)
            span = Span(trace_id=trace, span_id=own, parent_span_id=parent, name=name, kind=kind)  # type: ignore[arg-type]
            span.start_time_unix_nano, span.end_time_unix_nano, span.flags = now, end, 257
            for key, value in attributes.items():
                into = span.attributes.add(key=key).value
                if isinstance(value, bool):
                    into.bool_value = value
                elif isinstance(value, int):
                    into.int_value = value
                else:
                    into.string_value = value
            spans.append(span)
        while len(spans) >= BATCH or (spans and number == jobs - 1):
            yield _request(spans[:BATCH])
            del spans[:BATCH]


def _request(spans: list[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "payments"
    scope = resource.scope_spans.add()
    scope.scope.name = "bench"
    scope.spans.extend(spans)
    return bytes(request.SerializeToString())


def received(folder: Path, jobs: int) -> Path:
    """A log as a receiver writes it."""
    directory = begin(folder, "received")
    log = CommitLog(directory / "wal")
    left = jobs * len(STEPS)
    for body in requests(jobs):
        log.append([body], min(BATCH, left))
        left -= BATCH
    log.close()
    return directory


def recorded(folder: Path, jobs: int) -> Path:
    """Logs as the span processors of a few workers write them."""
    directory = begin(folder, "recorded")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(directory / "wal", jobs, first)) for first in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return directory


def _work(wal: Path, jobs: int, first: int) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "payments"}), shutdown_on_exit=False)
    provider.add_span_processor(RecordingSpanProcessor(wal))
    tracer = provider.get_tracer("bench")
    for number in range(first, jobs, WORKERS):
        send, receive, process, debit, receipt, settle = job(number)
        sent = tracer.start_span(send[0], attributes=send[2])
        sent.end()
        of_job = set_span_in_context(sent)
        tracer.start_span(receive[0], of_job, attributes=receive[2]).end()
        run = tracer.start_span(process[0], of_job, attributes=process[2])
        inside = set_span_in_context(run)
        for name, _, attributes in (debit, receipt, settle):
            tracer.start_span(name, inside, attributes=attributes).end()
        run.end()
    provider.shutdown()


def seconds_to_seal(log: Path, folder: Path) -> tuple[float, Recording]:
    """The best of a few: what the machine can do. Each seals a copy, whose bytes are on disk before it begins."""
    best, recording = float("inf"), None
    for _ in range(ROUNDS):
        directory = folder / log.name
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(log, directory)
        os.sync()
        began = time.perf_counter()
        recording = seal(directory, tool_version="bench")
        best = min(best, time.perf_counter() - began)
    assert recording is not None
    return best, recording


def by_classes(bodies: Sequence[bytes], folder: Path) -> int:
    """Protobuf's classes, a row a span, and a table of the rows: what a script would do. The number of spans."""
    rows = []
    for body in bodies:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                origin = origin_of(resource, scope)
                place = Place("bench", 1, 1, 1)
                rows += [dict(zip(SCHEMA.names, row_of(span, origin, place), strict=True)) for span in scope.spans]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "classes.parquet", compression="zstd")
    return len(rows)


def by_us(table: pa.Table, folder: Path) -> Path:
    """The Parquet file as sealing writes it: hashed, and on disk. Its path."""
    (folder / "spans").mkdir(parents=True, exist_ok=True)
    parts = SpanParts(folder, lambda number: f"spans/{number}.parquet")
    parts.add(table, bytes(ID_BYTES * table.num_rows))
    [part] = parts.finish()
    return folder / part.entry.path


def by_duckdb(table: pa.Table, file: Path) -> None:
    """The Parquet file as DuckDB writes it."""
    with duckdb.connect() as connection:
        connection.register("spans", table)
        connection.execute(f"COPY spans TO '{file}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 32768)")


def _seconds(work: Callable[[], object]) -> float:
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def figures() -> Iterator[dict[str, Any]]:
    """What ours does, then what the peers do with the same."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("FENCEPOST_BENCH_DIR")) as name:
        folder = Path(name)
        for make in (recorded, received):
            log = make(folder / "logs", JOBS)
            yield from _sealed(make.__name__, log, folder)
        yield from _peers(folder)


def _sealed(name: str, log: Path, folder: Path) -> Iterator[dict[str, Any]]:
    processors = os.sched_getaffinity(0)
    seconds, recording = seconds_to_seal(log, folder / "sealed")
    spans = recording.manifest.spans
    assert spans == JOBS * len(STEPS)
    size = sum(one.bytes for one in recording.manifest.files)
    os.sched_setaffinity(0, {min(processors)})
    alone, _ = seconds_to_seal(log, folder / "alone")
    os.sched_setaffinity(0, processors)
    yield {
        "figure": f"sealing_{name}",
        "unit": "spans/s",
        "rate": round(spans / seconds),
        "one_process": round(spans / alone),
        "processors": len(processors),
        "spans": spans,
    }
    # A stream of the requests that would carry the same spans; a recorded log has other ids, but as many.
    packed = len(gzip.compress(b"".join(requests(SAMPLE_JOBS)), 6)) / (SAMPLE_JOBS * len(STEPS))
    yield {
        "figure": f"sealed_size_{name}",
        "unit": "bytes/span",
        "parquet": round(size / spans, 1),
        "otlp_gzip": round(packed, 1),
        "random": round(RANDOM_BYTES, 1),
        "ratio": round(size / spans / packed, 3),
    }


def _peers(folder: Path) -> Iterator[dict[str, Any]]:
    bodies = list(requests(SAMPLE_JOBS))
    spans = SAMPLE_JOBS * len(STEPS)
    plain = _seconds(lambda: by_classes(bodies, folder))
    yield {"figure": "sealing_by_protobuf_classes", "unit": "spans/s", "rate": round(spans / plain)}
    # As many rows as fit into one file.
    table = pq.read_table(folder / "sealed" / "received" / "spans").slice(0, PART_ROWS)
    default, theirs = folder / "default.parquet", folder / "duckdb.parquet"
    works: dict[str, tuple[Callable[[], object], Path]] = {
        "us": (lambda: by_us(table, folder / "ours"), folder / "ours" / "spans" / "0.parquet"),
        "pyarrow_default": (lambda: pq.write_table(table, default, compression="zstd"), default),
        "duckdb": (lambda: by_duckdb(table, theirs), theirs),
    }
    for name, (work, file) in works.items():
        rate = table.num_rows / _seconds(work)
        size = file.stat().st_size / table.num_rows
        yield {"figure": f"parquet_by_{name}", "unit": "spans/s", "rate": round(rate), "bytes_per_span": round(size, 1)}
