"""What the tests of the receiver send: requests of OTLP, and bytes that are none."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fencepost_recorder import Recording, open_recording, seal
from fencepost_recorder.receiver import Receiver

PROTOBUF, JSON = "application/x-protobuf", "application/json"
VERSION = "0.0.test"
START = 1_700_000_000_000_000_000


def request_of(spans: range, service: str = "shop", **changes: Any) -> ExportTraceServiceRequest:
    """A request with a span for each number; `changes` are set on every one."""
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    scope.scope.name = "lab"
    for number in spans:
        span = scope.spans.add(**{**span_fields(number), **changes})
        span.attributes.add(key="number").value.int_value = number
    return made


def span_fields(number: int) -> dict[str, Any]:
    return {
        "trace_id": (number + 1).to_bytes(16, "big"),
        "span_id": (number + 1).to_bytes(8, "big"),
        "name": f"span {number}",
        "start_time_unix_nano": START + number,
        "end_time_unix_nano": START + number + 5,
    }


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]


def body_of(spans: range, service: str = "shop", **changes: Any) -> bytes:
    return bytes(request_of(spans, service, **changes).SerializeToString())


def json_of(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """OTLP/JSON: ids in hex, where protobuf's own JSON has base64."""
    document = MessageToDict(request)
    spans = (
        span
        for resource in document.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    )
    for span, original in zip(spans, spans_of(request), strict=True):
        span.update(traceId=original.trace_id.hex(), spanId=original.span_id.hex(), kind=original.kind)
    return dict(document)


def json_body(spans: range, service: str = "shop") -> bytes:
    return json.dumps(json_of(request_of(spans, service))).encode()


class Client:
    """One connection to the receiver over HTTP, or HTTPS with a context."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None = None, seconds: float = 20) -> None:
        self.connection = (
            http.client.HTTPConnection(*address, timeout=seconds)
            if context is None
            else http.client.HTTPSConnection(*address, context=context, timeout=seconds)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def post(self, body: Any, path: str = "/v1/traces", kind: str = PROTOBUF, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, body, {"Content-Type": kind, **named})
        return Answer(self.connection.getresponse())

    def send(self, method: str, path: str, **headers: str) -> Answer:
        self.connection.request(method, path, headers=headers)
        return Answer(self.connection.getresponse())


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.kind = response.headers.get("Content-Type")

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def rejected(self) -> int:
        """Of an export response in either encoding; -1 where it has no partial_success."""
        if self.kind == JSON:
            return int(self.document.get("partialSuccess", {}).get("rejectedSpans", -1))
        response = ExportTraceServiceResponse.FromString(self.body)
        return response.partial_success.rejected_spans if response.HasField("partial_success") else -1


def raw(address: tuple[str, int], data: bytes, *, end: bool = True) -> bytes:
    """Everything that comes back after some bytes."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def everything(connection: socket.socket) -> bytes:
    found = bytearray()
    while chunk := connection.recv(65536):
        found += chunk
    return bytes(found)


class Lab:
    """A receiver under test, over a recording of its own."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        options.setdefault("http", ("127.0.0.1", 0))
        self.receiver = Receiver(directory / "wal", **options)
        self._clients: list[Client] = []

    @property
    def http(self) -> tuple[str, int]:
        address = self.receiver.http_address
        assert address is not None
        return address

    def client(self) -> Client:
        """One more client, whose connection is closed with the lab."""
        self._clients.append(Client(self.http))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.connection.close()
        self.receiver.stop(0)

    def seal(self) -> Recording:
        """The recording of what was received."""
        self.receiver.stop()
        seal(self.directory, tool_version=VERSION)
        return open_recording(self.directory)


def numbers(recording: Recording) -> list[int]:
    """The numbers of the spans of a recording, sorted."""
    return sorted(json.loads(row)["number"] for row in recording.spans()["span_attributes"].to_pylist())


def gaps(recording: Recording, cause: str) -> list[dict[str, Any]]:
    return [gap for gap in recording.gaps().to_pylist() if gap["cause"] == cause]


@contextmanager
def receiving(directory: Path, **options: Any) -> Iterator[Lab]:
    lab = Lab(directory, **options)
    lab.receiver.start()
    try:
        yield lab
    finally:
        lab.close()
