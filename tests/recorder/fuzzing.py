"""Requests of OTLP, broken at random: their bytes, their JSON, their compression, and the HTTP around them."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from recorder.hostile import MIB, Hostile, Server, a_span, framed, in_scope
from recorder.receiving import JSON, PROTOBUF, Client, body_of, everything, json_of, request_of

EXPORTS = [
    f"/opentelemetry.proto.collector.{signal.lower()}.v1.{signal}Service/Export"
    for signal in ("Trace", "Logs", "Metrics")
]
ANSWERS = frozenset({200, 400, 403, 404, 405, 408, 411, 413, 414, 415, 431, 501, 503, 505})
CODES = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNIMPLEMENTED"})
GOOD_EVERY = 25
PATHS = ("/v1/traces",) * 8 + ("/v1/logs", "/v1/metrics")
ODD = (
    *("null", "[]", "{}", "-1", "1e999", "NaN", "true", '""', '"\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"', "0.5"),
    *(str(2**64), str(10**400), "[" * 200 + "]" * 200, '{"a":' * 90 + "1" + "}" * 90, '"' + "x" * 5000 + '"', "-0"),
)
_VALUE = re.compile(rb'(?<=:)("[^"]*"|[0-9]+|\[\]|\{\})')


def samples() -> list[Any]:
    """Requests with a little of everything in them."""
    found = []
    for spans in (0, 1, 3, 40):
        request = request_of(range(spans), events=[{"name": "e", "time_unix_nano": 5}])
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    value = span.attributes.add(key="nested").value.kvlist_value.values.add(key="in").value
                    value.array_value.values.add().double_value = 0.5
                    span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, trace_state="ot=th:8")
                    span.status.code, span.status.message = 2, "no"
        found.append(request)
    return found


REQUESTS = samples()
PROTOBUFS = [request.SerializeToString() for request in REQUESTS]
JSONS = [json.dumps(json_of(request)).encode() for request in REQUESTS]
BOMBS = [gzip.compress(bytes(size * 1024**2), 9) for size in (15, 17, 40)]


class Fuzzer:
    """One sender of broken requests, and now and then of a good one, which has to be acknowledged."""

    def __init__(self, server: Server, source: random.Random, which: int) -> None:
        self.good: list[int] = []
        self.failures: list[str] = []
        self.statuses: Counter[str] = Counter()
        self._server = server
        self._source = source
        self._first = (which + 1) * 10**8
        self._pause = threading.Event()
        self._connection: socket.socket | None = None
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc[1]}", options=options)

    def run(self, requests: int) -> None:
        """Send so many. What should not be is in `failures` afterwards."""
        try:
            for number in range(requests):
                if number % GOOD_EVERY == 0:
                    self._send_good(self._first + number)
                else:
                    self._source.choice(self.WAYS)(self)
                if len(self.failures) > 5:
                    return
        except Exception as error:
            self.failures.append(f"the sender failed: {error!r}")
        finally:
            self._leave()
            self._channel.close()

    def _send_good(self, number: int) -> None:
        """As clients of OTLP do: what is busy is asked again."""
        body = body_of(range(number, number + 1), "good")
        over_http = self._source.random() < 0.5
        for _ in range(1000):
            answer = self._post("/v1/traces", body, PROTOBUF)[0] if over_http else self._call(EXPORTS[0], body)
            if answer in {200, "OK"}:
                self.good.append(number)
                return
            if answer not in {503, "UNAVAILABLE"}:
                break
            self._pause.wait(0.01)
        self.failures.append(f"a good request was answered {answer}")

    def _broken_protobuf(self) -> None:
        self._post(self._source.choice(PATHS), mutated(self._source, self._source.choice(PROTOBUFS)), PROTOBUF)

    def _broken_json(self) -> None:
        self._post(self._source.choice(PATHS), self._odd_json(), JSON)

    def _broken_compression(self) -> None:
        source = self._source
        body, kind = source.choice([(source.choice(PROTOBUFS), PROTOBUF), (self._odd_json(), JSON)])
        packed = source.choice([gzip.compress, zlib.compress])(body)
        if source.random() < 0.7:
            packed = mutated(source, packed)
        if source.random() < 0.02:
            packed = source.choice(BOMBS)
        self._post("/v1/traces", packed, kind, f"Content-Encoding: {source.choice(['gzip', 'deflate', 'br'])}\r\n")

    def _broken_framing(self) -> None:
        source, body = self._source, self._source.choice(PROTOBUFS)
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
        if source.random() < 0.5:
            at = source.randrange(len(body) + 1)
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part)
            data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
        else:
            data = f"{head}Content-Length: {len(body) + source.choice([0, 0, 1, -1])}\r\n\r\n".encode() + body
        window = len(head) + 40
        self._raw(mutated(source, data[:window]) + data[window:])

    def _noise(self) -> None:
        self._raw(self._source.randbytes(self._source.randrange(2000)))

    def _broken_call(self) -> None:
        source = self._source
        body = mutated(source, source.choice(PROTOBUFS))
        if source.random() < 0.3:
            body = mutated(source, gzip.compress(body)) if source.random() < 0.5 else gzip.compress(body)
        if source.random() < 0.01:
            body = source.choice(BOMBS)
        self._call(source.choice(EXPORTS), body)

    WAYS: tuple[Callable[[Fuzzer], None], ...] = (
        *(_broken_protobuf, _broken_protobuf, _broken_json, _broken_json),
        *(_broken_compression, _broken_framing, _noise, _broken_call, _broken_call),
    )

    def _odd_json(self) -> bytes:
        source, body = self._source, self._source.choice(JSONS)
        if source.random() < 0.5:
            return mutated(source, body)
        found = list(_VALUE.finditer(body))
        for match in reversed(source.sample(found, min(len(found), source.randrange(1, 4)))) if found else ():
            body = body[: match.start()] + source.choice(ODD).encode() + body[match.end() :]
        return body

    def _call(self, method: str, body: bytes) -> str:
        try:
            self._channel.unary_unary(method)(body, timeout=60)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
            if code not in CODES:
                self.failures.append(f"a call was answered {code}: {error.details()}")
        self.statuses[code] += 1
        return code

    def _post(self, path: str, body: bytes, kind: str, extra: str = "") -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        for _ in range(2):
            connection = self._connected()
            try:
                connection.sendall(head.encode() + body)
                answer = response(connection)
            except OSError:
                answer = None
            if answer is None:  # closed by the receiver after its last answer
                self._leave()
                continue
            status, text, closes = answer
            if closes:
                self._leave()
            self.statuses[str(status)] += 1
            if status not in ANSWERS:
                self.failures.append(f"a request was answered {status} {text!r}")
            return status, text
        self.failures.append("a request was not answered")
        return 0, b""

    def _raw(self, data: bytes) -> None:
        with socket.create_connection(self._server.http, timeout=60) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = everything(connection)
            except ConnectionError:
                answer = b""
        status = answer[9:12]
        self.statuses[status.decode() or "closed"] += 1
        if answer and not (answer.startswith(b"HTTP/1.1 ") and int(status) in ANSWERS):
            self.failures.append(f"bytes were answered {answer!r}")

    def _connected(self) -> socket.socket:
        if self._connection is None:
            self._connection = socket.create_connection(self._server.http, timeout=60)
        return self._connection

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def mutated(source: random.Random, data: bytes) -> bytes:
    """The bytes with one to eight edits."""
    out = bytearray(data)
    for _ in range(source.randrange(1, 9)):
        at = source.randrange(len(out) + 1)
        match source.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << source.randrange(8)
            case 1 if at < len(out):
                out[at] = source.choice(b'\x00\x01\x0a\x12\x7f\x80\xff"{}[]:,\\')
            case 2:
                out[at:at] = source.randbytes(source.randrange(1, 12))
            case 3:
                del out[at : at + source.randrange(1, 12)]
            case 4:
                other = source.randrange(len(out) + 1)
                out[at:at] = out[other : other + source.randrange(1, 200)]
            case _:
                del out[at + source.randrange(100) :]
    return bytes(out)


def response(connection: socket.socket) -> tuple[int, bytes, bool] | None:
    """Status, body and whether it is the last; None where the connection was closed before one."""
    found = b""
    while b"\r\n\r\n" not in found:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        found += chunk
        if found.startswith(b"HTTP/1.1 100 "):
            found = found.partition(b"\r\n\r\n")[2]
    head, _, body = found.partition(b"\r\n\r\n")
    [size] = re.findall(rb"Content-Length: ([0-9]+)", head)
    while len(body) < int(size):
        body += connection.recv(65536)
    return int(head[9:12]), body, b"Connection: close" in head


class Crowd:
    """Many clients at once, each with requests as costly as they may be."""

    def __init__(self, server: Server, bodies: list[tuple[Hostile, bytes]]) -> None:
        self.failures: list[str] = []
        self._server = server
        self._bodies = bodies
        self._message = in_scope(a_span(framed(b"\x2a", b"x" * (4 * MIB - 1000))))

    def run(self, number: int) -> None:
        """So many over HTTP, and as many over gRPC."""
        work = [self._over_http, self._over_grpc]
        threads = [threading.Thread(target=work[which % 2], args=(which,)) for which in range(2 * number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _over_http(self, which: int) -> None:
        for turn in range(5):
            body, data = self._bodies[(which // 2 + turn) % len(self._bodies)]
            headers = {"Content_Encoding": body.encoding} if body.encoding else {}
            try:
                with Client(self._server.http, seconds=120) as client:
                    status = client.post(data, kind=body.kind, **headers).status
            except OSError:
                continue  # refused while it was still sending
            if status not in (200, 413, 503):
                self.failures.append(f"{body.name} was answered {status}")

    def _over_grpc(self, which: int) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self._server.grpc[1]}", options=options) as channel:
            for _ in range(8):
                try:
                    channel.unary_unary(EXPORTS[0])(self._message, timeout=120)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        self.failures.append(f"client {which} was answered {error.code().name}")
