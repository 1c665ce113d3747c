"""OTLP over HTTP/1.1, a thread for each connection: what a request must look like, and how it is answered."""

from __future__ import annotations

import io
import re
import socket
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from fencepost_recorder.errors import Overloaded
from fencepost_recorder.receiver import bodies
from fencepost_recorder.receiver.answers import JSON, PROTOBUF, RETRY_SECONDS, SIGNALS, Problem, Refusal, Signal, status
from fencepost_recorder.receiver.bodies import Gone, Reservation
from fencepost_recorder.receiver.desk import Desk
from fencepost_recorder.receiver.limits import MIB

_BY_PATH = {signal.path: signal for signal in SIGNALS}
# A target in absolute form, which every server of HTTP/1.1 must take (RFC 9112, 3.2.2): all before its path.
_AUTHORITY = re.compile(r"\Ahttps?://[^/?#]*", re.IGNORECASE)
_LINE_BYTES = 64 * 1024
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 32 * MIB
_PROBLEMS = {problem.http: problem for problem in Problem}


class Wire(io.RawIOBase):
    """A socket's bytes, until `deadline` (of `time.monotonic`): neither a byte a second nor silence lasts longer."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """recv(2). Raises TimeoutError once the deadline is past."""
        self._wait()
        return self._socket.recv_into(buffer)

    def send(self, data: bytes) -> None:
        """All of it. Raises TimeoutError once the deadline is past."""
        self._wait()
        self._socket.sendall(data)

    def _wait(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class _Head:
    """The lines of a request's head: the base class bounds each, and their number, but not all together."""

    def __init__(self, stream: io.BufferedReader[Wire]) -> None:
        self._stream = stream
        self._left = _LINE_BYTES

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise Refusal(Problem.HEADERS_TOO_LARGE, "the request's headers are too large")
        return line


class Handler(BaseHTTPRequestHandler):
    """One connection, request after request. No answer is HTML, and none holds a traceback."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"

    def __init__(self, connection: socket.socket, desk: Desk) -> None:
        # The base class would serve the connection here and now; this one is asked to.
        self.connection = connection
        self.close_connection = False
        # Since when a request is waited for, so that the connection may be closed without harm.
        self.waits_since: float | None = time.monotonic()
        self._desk = desk
        self._wire = Wire(connection)
        self._stream = io.BufferedReader(self._wire, 64 * 1024)
        self.rfile = self._stream

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 the base class names it
        """Silent: what is refused is counted, and told to whoever sent it."""

    def handle(self) -> None:
        """Serve the connection until either side has enough."""
        try:
            while not self.close_connection and not self._desk.stopping():
                self.waits_since = time.monotonic()
                self._wire.deadline = self.waits_since + self._desk.limits.idle_seconds
                if not self._stream.peek(1):
                    return
                self.waits_since = None
                self._wire.deadline = time.monotonic() + self._desk.limits.request_seconds
                self.handle_one_request()
        except (Gone, OSError, ValueError):
            return

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.command = self.path = ""
        self.request_version = self.protocol_version
        self.encoding = JSON
        self.signal: Signal | None = None
        self._expected = False
        try:
            taken = self._take()
        except Refusal as refusal:
            self._refuse(refusal)
        except Overloaded as error:
            self._refuse(Refusal(Problem.BUSY, str(error)))
        except TimeoutError:
            self._refuse(Refusal(Problem.TOO_SLOW, "the request did not arrive in time"))
        except (Gone, OSError):
            raise
        except Exception:
            self._refuse(Refusal(Problem.DEFECT, "the receiver failed at this request, which was not kept"))
        else:
            if taken is not None:
                self._answer(HTTPStatus.OK, taken)

    def _take(self) -> bytes:
        """Read a request and keep it; the answer's body."""
        self.raw_requestline = self._stream.readline(_LINE_BYTES + 1)
        if len(self.raw_requestline) > _LINE_BYTES:
            raise Refusal(Problem.ADDRESS_TOO_LONG, "the request's first line is too long")
        if not self.raw_requestline.strip():
            raise Gone
        self._read_head()
        signal = self._route()
        self._desk.authenticate(str(self.headers.get("Authorization", "")))
        self.signal = signal
        self._agree_on_encoding()
        length, compression = self._length(), self._compression()
        with Reservation(self._desk.budget) as reservation:
            if self._expected:
                self._wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = bodies.read_body(self._stream, length, compression, self._desk.limits, reservation)
            return self._desk.intake.take(signal, body, self.encoding).to_bytes(self.encoding)

    def _read_head(self) -> None:
        self.rfile = _Head(self._stream)  # type: ignore[assignment]
        try:
            read = self.parse_request()
        finally:
            self.rfile = self._stream
        if not read:  # a line of nothing but what Unicode calls space
            raise Refusal(Problem.UNREADABLE, "the request's head is not understood")
        if self.headers.defects:
            raise Refusal(Problem.UNREADABLE, "the request has a header that is none")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class found wrong with a request's head."""
        problem = _PROBLEMS.get(code, Problem.UNREADABLE)
        raise Refusal(problem, f"the request's head is not understood: {message or HTTPStatus(code).phrase}")

    def handle_expect_100(self) -> bool:
        """Only once the head is found good is the body wanted."""
        self._expected = True
        return True

    def _route(self) -> Signal:
        # Whatever refuses is answered in JSON if that was sent, or nothing known: people try things with curl.
        self.encoding = PROTOBUF if self._media_type() == PROTOBUF else JSON
        if self.headers.get("Origin") is not None:
            raise Refusal(Problem.FORBIDDEN, "browsers may not send to this receiver: use a Collector in between")
        # Endpoints are configured with a slash at their end, too, and after 404 a client gives its spans up.
        signal = _BY_PATH.get(_AUTHORITY.sub("", self.path).partition("?")[0].removesuffix("/"))
        if signal is None:
            raise Refusal(Problem.NO_SUCH_PATH, "there is no such path: OTLP traces go to /v1/traces")
        if self.command != "POST":
            raise Refusal(Problem.METHOD, f"only POST is taken at {signal.path}")
        return signal

    def _media_type(self) -> str:
        return str(self.headers.get("Content-Type", "")).partition(";")[0].strip().lower()

    def _agree_on_encoding(self) -> None:
        if self._media_type() not in {PROTOBUF, JSON}:
            raise Refusal(Problem.MEDIA_TYPE, f"the content type must be {PROTOBUF} or {JSON}")

    def _length(self) -> int | None:
        """The size of the body; None when it is chunked."""
        lengths = set(self.headers.get_all("Content-Length", ()))
        coding = self.headers.get("Transfer-Encoding", "").strip().lower()
        if coding and lengths:
            raise Refusal(Problem.UNREADABLE, "the request has both a length and a transfer coding")
        if coding == "chunked" and self.request_version != "HTTP/1.0":
            return None
        if coding:
            raise Refusal(Problem.NOT_IMPLEMENTED, "the only transfer coding taken is chunked")
        if not lengths:
            raise Refusal(Problem.NO_LENGTH, "the request has no Content-Length")
        [length, *others] = lengths
        if others or not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise Refusal(Problem.UNREADABLE, "the request's Content-Length is no number")
        if int(length) > self._desk.limits.body_bytes:
            raise bodies.too_large(self._desk.limits)
        return int(length)

    def _compression(self) -> str:
        given = str(self.headers.get("Content-Encoding", "")).strip().lower()
        if given in {"", "identity"}:
            return ""
        if given not in bodies.ENCODINGS:
            raise Refusal(Problem.MEDIA_TYPE, "the only compressions taken are gzip and deflate")
        return given

    def _refuse(self, refusal: Refusal) -> None:
        refusal = self._desk.intake.refuse(refusal, self.signal)
        # Bytes of the body may still be on their way: only a new connection starts at a request again.
        self.close_connection = True
        self._wire.deadline = time.monotonic() + _LINGER_SECONDS
        self._answer(HTTPStatus(refusal.problem.http), status(refusal.problem, refusal.message, self.encoding))
        self._linger()

    def _answer(self, code: HTTPStatus, body: bytes) -> None:
        lines = [
            f"HTTP/1.1 {code.value} {code.phrase}",
            f"Content-Type: {self.encoding}",
            f"Content-Length: {len(body)}",
            *_EXTRA.get(code, ()),
        ]
        if self.close_connection or self._desk.stopping():
            self.close_connection = True
            lines.append("Connection: close")
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._wire.send(head.encode() + (b"" if self.command == "HEAD" else body))

    def _linger(self) -> None:
        """Read on for a moment: closing at once would destroy the answer on its way to a client that still sends."""
        self.connection.shutdown(socket.SHUT_WR)
        left = _LINGER_BYTES
        while left > 0 and (got := len(self._stream.read1(256 * 1024))):
            left -= got


_EXTRA = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate: Bearer",),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Allow: POST",),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (f"Accept: {PROTOBUF}, {JSON}", "Accept-Encoding: gzip, deflate"),
    HTTPStatus.SERVICE_UNAVAILABLE: (f"Retry-After: {RETRY_SECONDS}",),
}
