"""OTLP over HTTP: what was acknowledged is in the recording, and whatever is wrong gets the right answer."""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from recorder.receiving import (
    JSON,
    PROTOBUF,
    Lab,
    body_of,
    json_body,
    numbers,
    receiving,
)

from fencepost_recorder import begin
from fencepost_recorder.receiver import Limits

LIMITS = Limits(body_bytes=64 * 1024, in_flight_bytes=1024 * 1024)


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "received")


@pytest.fixture
def lab(directory: Path) -> Iterator[Lab]:
    with receiving(directory, limits=LIMITS) as made:
        yield made


def test_what_is_acknowledged_is_in_the_recording(lab: Lab) -> None:
    """Protobuf and JSON, plain and compressed, whole and chunked: every acknowledged span is there, once."""
    client = lab.client()
    answers = [
        client.post(body_of(range(3))),
        client.post(gzip.compress(body_of(range(3, 6))), Content_Encoding="gzip"),
        client.post(zlib.compress(body_of(range(6, 9))), Content_Encoding="deflate"),
        client.post(json_body(range(9, 12)), kind=JSON),
        client.post(gzip.compress(json_body(range(12, 15))), kind=JSON, Content_Encoding="gzip"),
        client.post(bytes([byte]) for byte in body_of(range(15, 18))),
    ]
    assert [answer.status for answer in answers] == [200] * 6
    assert [answer.kind for answer in answers] == [PROTOBUF] * 3 + [JSON] * 2 + [PROTOBUF]
    assert [answer.body for answer in answers] == [b"", b"", b"", b"{}", b"{}", b""]
    assert lab.receiver.counts().spans == 18
    assert numbers(lab.seal()) == list(range(18))


@pytest.mark.parametrize("compression", Compression)
def test_the_sdk_exports_to_it(lab: Lab, compression: Compression) -> None:
    """The exporter of the OpenTelemetry SDK is understood, whatever compression it is set to."""
    host, port = lab.http
    exporter = OTLPSpanExporter(f"http://{host}:{port}/v1/traces", compression=compression)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for number in range(5):
        provider.get_tracer("lab").start_span("work", attributes={"number": number}).end()
    provider.shutdown()
    assert numbers(lab.seal()) == list(range(5))


def test_the_files_are_the_owners_alone(lab: Lab) -> None:
    """Logs hold whatever the spans hold: nobody else may read them."""
    lab.client().post(body_of(range(3)))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (lab.directory / "wal").iterdir()}
    assert modes == {0o600}
