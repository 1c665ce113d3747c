"""What the receiver says: google.rpc.Status for what it refuses, the export responses of OTLP for what it took.

Answers come in the encoding of their request. The few messages are encoded by hand: google.rpc.Status would be a
dependency for two fields.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from fencepost_recorder.encode import field, utf8, varint
from fencepost_recorder.errors import printable

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
RETRY_SECONDS = 1
_MAX_MESSAGE = 500


class Problem(Enum):
    """Why a request is turned away: the status over HTTP, the code of google.rpc, and the name it is counted under.

    Clients of OTLP repeat a request after 503 and UNAVAILABLE (and 429, 502, 504) and give up after all others.
    """

    UNREADABLE = (400, 3, "unreadable")
    UNAUTHENTICATED = (401, 16, "unauthenticated")
    FORBIDDEN = (403, 7, "forbidden")
    NO_SUCH_PATH = (404, 5, "no such path")
    METHOD = (405, 12, "method not allowed")
    TOO_SLOW = (408, 4, "too slow")
    NO_LENGTH = (411, 3, "without a length")
    TOO_LARGE = (413, 8, "too large")
    ADDRESS_TOO_LONG = (414, 3, "address too long")
    MEDIA_TYPE = (415, 3, "of another media type")
    HEADERS_TOO_LARGE = (431, 3, "headers too large")
    DEFECT = (500, 13, "defect of the receiver")
    NOT_IMPLEMENTED = (501, 12, "not implemented")
    BUSY = (503, 14, "busy")
    VERSION = (505, 12, "of another HTTP version")

    @property
    def http(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def rpc(self) -> int:
        """The google.rpc code, which is also gRPC's."""
        return self.value[1]

    @property
    def reason(self) -> str:
        """The name it is counted under."""
        return self.value[2]


class Refusal(Exception):
    """A request that is turned away, with the sentence that its sender is told."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


@dataclass(frozen=True, slots=True)
class Signal:
    """One of OTLP's signals: its path over HTTP, its service over gRPC, and how its responses count rejections."""

    name: str
    path: str
    service: str
    rejected: str


TRACES = Signal("traces", "/v1/traces", "opentelemetry.proto.collector.trace.v1.TraceService", "rejectedSpans")
LOGS = Signal("logs", "/v1/logs", "opentelemetry.proto.collector.logs.v1.LogsService", "rejectedLogRecords")
METRICS = Signal(
    "metrics", "/v1/metrics", "opentelemetry.proto.collector.metrics.v1.MetricsService", "rejectedDataPoints"
)
SIGNALS = (TRACES, LOGS, METRICS)


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that was taken, but for `rejected` items of it, of which `message` tells."""

    signal: Signal
    rejected: int = 0
    message: str = ""

    def to_bytes(self, encoding: str) -> bytes:
        """The export response. `partial_success` is there only when something was rejected, as OTLP wants."""
        message = printable(self.message, _MAX_MESSAGE)
        if encoding == JSON:
            partial = {"partialSuccess": {self.signal.rejected: str(self.rejected), "errorMessage": message}}
            return json.dumps(partial if self.rejected else {}).encode()
        if not self.rejected:
            return b""
        return field(b"\x0a", b"\x08" + varint(self.rejected) + field(b"\x12", utf8(message)))


def status(problem: Problem, message: str, encoding: str) -> bytes:
    """A google.rpc.Status; one that asks to come again says when, by a google.rpc.RetryInfo."""
    text = printable(message, _MAX_MESSAGE)
    if encoding == JSON:
        return json.dumps({"code": problem.rpc, "message": text, "details": _json_details(problem)}).encode()
    details = field(b"\x1a", _RETRY_INFO) if problem is Problem.BUSY else b""
    return b"\x08" + varint(problem.rpc) + field(b"\x12", utf8(text)) + details


def _json_details(problem: Problem) -> list[dict[str, str]]:
    return [{"@type": _RETRY_TYPE, "retryDelay": f"{RETRY_SECONDS}s"}] if problem is Problem.BUSY else []


_RETRY_TYPE = "type.googleapis.com/google.rpc.RetryInfo"
# Any{type_url, value}, whose value is RetryInfo{retry_delay: Duration{seconds}}.
_RETRY_INFO = field(b"\x0a", _RETRY_TYPE.encode()) + field(b"\x12", field(b"\x0a", b"\x08" + varint(RETRY_SECONDS)))
