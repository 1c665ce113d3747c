"""OTLP over gRPC: the same promises as over HTTP, in gRPC's own words."""

from __future__ import annotations

import errno
import gzip
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from recorder.receiving import Lab, body_of, gaps, numbers, receiving, request_of

from fencepost_recorder import ReceiverError, begin, durable
from fencepost_recorder.receiver import Limits, Receiver

SERVICE = "/opentelemetry.proto.collector.trace.v1.TraceService"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService"
LIMITS = Limits(body_bytes=256 * 1024, grpc_message_bytes=64 * 1024, in_flight_bytes=1024 * 1024)


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "received")


@pytest.fixture
def lab(directory: Path) -> Iterator[Lab]:
    with receiving(directory, http=None, grpc=("127.0.0.1", 0), limits=LIMITS) as made:
        yield made


@pytest.fixture
def channel(lab: Lab) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target(lab)) as made:
        yield made


def target(lab: Lab) -> str:
    address = lab.receiver.grpc_address
    assert address is not None
    return f"{address[0]}:{address[1]}"


def export(channel: grpc.Channel, body: bytes, method: str = f"{SERVICE}/Export", **options: Any) -> bytes:
    answer: bytes = channel.unary_unary(method)(body, timeout=20, **options)
    return answer


def refused(channel: grpc.Channel, body: bytes, method: str = f"{SERVICE}/Export", **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        export(channel, body, method, **options)
    code: grpc.StatusCode = error.value.code()
    return code


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_sdk_exports_to_it(lab: Lab, compression: grpc.Compression) -> None:
    """The exporter of the OpenTelemetry SDK is understood, plain and compressed."""
    exporter = OTLPSpanExporter(target(lab), insecure=True, compression=compression)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for number in range(5):
        provider.get_tracer("lab").start_span("work", attributes={"number": number}).end()
    provider.shutdown()
    assert lab.receiver.counts().spans == 5
    assert numbers(lab.seal()) == list(range(5))


def test_a_poison_span_costs_itself_alone(lab: Lab, channel: grpc.Channel) -> None:
    """It is told in partial_success, and the rest of its batch is kept."""
    request = request_of(range(3))
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"x"
    answer = ExportTraceServiceResponse.FromString(export(channel, request.SerializeToString()))
    assert answer.partial_success.rejected_spans == 1
    assert export(channel, body_of(range(3, 5))) == b""
    recording = lab.seal()
    assert numbers(recording) == [0, 2, 3, 4]
    assert [gap["lost"] for gap in gaps(recording, "poison_span")] == [1]


def test_logs_are_answered_honestly(channel: grpc.Channel) -> None:
    """Nothing of them is kept, and partial_success says so."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_text="INFO")
    answer = ExportLogsServiceResponse.FromString(export(channel, request.SerializeToString(), f"{LOGS}/Export"))
    assert answer.partial_success.rejected_log_records == 1


def test_what_is_wrong_gets_the_right_code(lab: Lab, channel: grpc.Channel) -> None:
    """None of these is repeated by a client of OTLP, and what it lost thereby becomes a gap."""
    assert refused(channel, b"hello") is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(channel, b"\x1f\x8bgarbage") is grpc.StatusCode.INVALID_ARGUMENT
    assert refused(channel, bytes(65 * 1024)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused(channel, b"", f"{SERVICE}/Import") is grpc.StatusCode.UNIMPLEMENTED
    assert refused(channel, body_of(range(2)), compression=grpc.Compression.Deflate) is grpc.StatusCode.UNIMPLEMENTED
    assert export(channel, body_of(range(3))) == b""
    recording = lab.seal()
    assert numbers(recording) == [0, 1, 2]
    assert len(gaps(recording, "refused")) == 4


@pytest.mark.parametrize("size", [300 * 1024, 200 * 1024**2])
def test_a_bomb_is_refused_before_it_is_unpacked(channel: grpc.Channel, size: int) -> None:
    """gRPC leaves it packed, whichever of the two packed it."""
    packed = gzip.compress(bytes(min(size, 40 * 1024**2)), 9)
    assert refused(channel, packed) is grpc.StatusCode.RESOURCE_EXHAUSTED
    if size < 1024**2:
        assert refused(channel, bytes(size), compression=grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_slow_client_is_not_waited_for(directory: Path) -> None:
    """A call whose message does not come is cancelled, so that it holds no thread; clients may repeat it."""
    limits = Limits(request_seconds=0.2, grpc_threads=1)
    silence = threading.Event()

    def nothing() -> Iterator[bytes]:
        silence.wait(20)
        yield from ()

    with (
        receiving(directory, http=None, grpc=("127.0.0.1", 0), limits=limits) as lab,
        grpc.insecure_channel(target(lab)) as channel,
    ):
        slow = channel.stream_unary(f"{SERVICE}/Export").future(nothing(), timeout=20)
        assert slow.exception(20).code() is grpc.StatusCode.CANCELLED
        silence.set()
        assert export(channel, body_of(range(3))) == b""
        assert numbers(lab.seal()) == [0, 1, 2]


def test_a_call_without_a_message_is_refused(channel: grpc.Channel) -> None:
    """As one that holds no request."""
    with pytest.raises(grpc.RpcError) as error:
        channel.stream_unary(f"{SERVICE}/Export")(iter(()), timeout=20)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_receiver_that_is_full_says_unavailable_and_when_to_come_again(directory: Path) -> None:
    """UNAVAILABLE with a RetryInfo is what OTLP's clients repeat."""
    limits = Limits(body_bytes=1024, in_flight_bytes=1024)
    with (
        receiving(directory, http=None, grpc=("127.0.0.1", 0), limits=limits) as lab,
        grpc.insecure_channel(target(lab)) as channel,
    ):
        with pytest.raises(grpc.RpcError) as error:
            export(channel, body_of(range(3)))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        details = dict(error.value.trailing_metadata())["grpc-status-details-bin"]
        assert b"google.rpc.RetryInfo" in details
        assert lab.receiver.counts().busy == 1


def test_a_disk_that_fails_makes_clients_come_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and UNAVAILABLE: what comes again is kept, once. Only whoever runs it is told where."""
    loopback = ("127.0.0.1", 0)
    with receiving(directory, http=loopback, grpc=loopback) as lab, grpc.insecure_channel(target(lab)) as channel:
        client = lab.client()
        with monkeypatch.context() as broken:
            broken.setattr(durable, "sync_data", failing)
            answer = client.post(body_of(range(3)))
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert b"wal" not in answer.body
            assert refused(channel, body_of(range(3, 6))) is grpc.StatusCode.UNAVAILABLE
            assert client.post(b"hello").status == 503  # not even that it is missing could be noted
        assert str(directory) in lab.receiver.counts().trouble
        assert client.post(body_of(range(3))).status == 200
        assert export(channel, body_of(range(3, 6))) == b""
        assert lab.receiver.counts().busy == 3
        recording = lab.seal()
    assert numbers(recording) == list(range(6))
    assert {gap["cause"] for gap in recording.gaps().to_pylist()} == {"unsequenced"}


def failing(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_stopping_refuses_new_calls_and_closes_the_log(lab: Lab, channel: grpc.Channel) -> None:
    """A client is told that nobody is there; what was acknowledged is kept."""
    assert export(channel, body_of(range(3))) == b""
    lab.receiver.stop()
    assert refused(channel, body_of(range(3, 6))) is grpc.StatusCode.UNAVAILABLE
    assert numbers(lab.seal()) == [0, 1, 2]


def test_a_port_in_use_is_one_sentence(lab: Lab, recordings: Path) -> None:
    """Also where the other face could have been had: all or nothing, and no log is left behind."""
    other = begin(recordings, "other")
    with pytest.raises(ReceiverError, match="the port is in use, choose another"):
        Receiver(other / "wal", http=("127.0.0.1", 0), grpc=lab.receiver.grpc_address).start()
    assert list((other / "wal").iterdir()) == []


def test_without_grpcio_the_way_out_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpcio is an extra; OTLP over HTTP needs nothing more."""
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ReceiverError, match=r"pip install 'fencepost\[grpc\]'"):
        Receiver(directory / "wal", http=None, grpc=("127.0.0.1", 0)).start()
    assert list((directory / "wal").iterdir()) == []
