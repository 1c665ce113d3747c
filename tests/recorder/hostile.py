"""Bodies made to cost as much as they can: each of almost the size that the receiver takes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.receiving import JSON, PROTOBUF, span_fields

MIB = 1024 * 1024
SERVER = """
import json, sys
from pathlib import Path
from fencepost_recorder.receiver import Limits, Receiver

loopback, limits = ("127.0.0.1", 0), Limits(**json.loads(sys.argv[2]))
receiver = Receiver(Path(sys.argv[1]), http=loopback, grpc=loopback, limits=limits)
receiver.start()
print(json.dumps([receiver.http_address[1], receiver.grpc_address[1]]), flush=True)
for line in sys.stdin:
    counts = receiver.counts()
    print(json.dumps([counts.requests, counts.spans, counts.rejected, counts.busy, counts.refused]), flush=True)
receiver.stop()
"""


class Server:
    """A receiver in a process of its own, whose memory can be looked at."""

    def __init__(self, wal: Path, limits: dict[str, Any]) -> None:
        command = [sys.executable, "-c", SERVER, str(wal), json.dumps(limits)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.http, self.grpc = (("127.0.0.1", port) for port in ports)

    def counts(self) -> tuple[int, int, int, int, dict[str, int]]:
        """Requests, spans, rejected, busy, refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        requests, spans, rejected, busy, refused = json.loads(self._process.stdout.readline())
        return requests, spans, rejected, busy, refused

    def resident(self) -> int:
        """Bytes of memory it uses now."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most bytes of memory it used since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Measure the peak from now on."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def end(self) -> str:
        """Stop it; what it said on its standard error."""
        _, said = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return said

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name}")


@contextmanager
def serving(wal: Path, **limits: Any) -> Iterator[Server]:
    server = Server(wal, limits)
    try:
        yield server
    finally:
        server._process.kill()
        server._process.communicate()


@dataclass(frozen=True)
class Hostile:
    """One such body; `make` gives it, for a size."""

    name: str
    make: Callable[[int], bytes]
    kind: str = PROTOBUF
    encoding: str = ""


def framed(tag: bytes, data: bytes) -> bytes:
    size, out = len(data), bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return tag + bytes(out) + data


def in_scope(data: bytes) -> bytes:
    return framed(b"\x0a", framed(b"\x12", data))


def a_span(content: bytes = b"") -> bytes:
    fields = span_fields(7)
    return framed(b"\x12", framed(b"\x0a", fields["trace_id"]) + framed(b"\x12", fields["span_id"]) + content)


def fill(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece) - 20)


def json_span(content: str) -> str:
    return f'{{"traceId":"{1:032x}","spanId":"{1:016x}"{content}}}'


def json_in_scope(content: str) -> bytes:
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{content}]}}]}}]}}'.encode()


def json_fill(around: Callable[[str], bytes], piece: str, size: int) -> bytes:
    room = size - len(around(""))
    return around((piece + ",") * (room // (len(piece) + 1) - 1) + piece)


def json_value(value: str) -> bytes:
    return json_in_scope(json_span(f',"attributes":[{{"key":"a","value":{{"stringValue":{value}}}}}]'))


BODIES = [
    Hostile("empty spans", lambda size: in_scope(fill(b"\x12\x00", size))),
    Hostile("spans that are ids alone", lambda size: in_scope(fill(a_span(), size))),
    Hostile("a span of empty attributes", lambda size: in_scope(a_span(fill(b"\x4a\x00", size)))),
    Hostile("a span of empty events", lambda size: in_scope(a_span(fill(b"\x5a\x00", size // 3)))),
    Hostile("spans of empty attributes", lambda size: in_scope(fill(a_span(b"\x4a\x00" * 32_000), size))),
    Hostile("a span of unknown fields", lambda size: in_scope(a_span(fill(b"\xa0\x06\x01", size // 3)))),
    Hostile("a large text", lambda size: in_scope(a_span(framed(b"\x2a", b"x" * (size // 2 - 200))))),
    Hostile("large spans", lambda size: in_scope(a_span(framed(b"\x2a", b"x" * (size // 4))) * 3)),
    Hostile("empty scopes", lambda size: framed(b"\x0a", fill(b"\x12\x00", size))),
    Hostile("empty resources", lambda size: fill(b"\x0a\x00", size)),
    Hostile("a resource of empty attributes", lambda size: framed(b"\x0a", framed(b"\x0a", fill(b"\x0a\x00", size)))),
    Hostile("unknown fields", lambda size: fill(b"\xa0\x06\x01", size)),
    Hostile("spans and scopes in turn", lambda size: in_scope(fill(a_span() + b"\x1a\x00", size))),
    Hostile("good and bad spans in turn", lambda size: in_scope(fill(a_span() + a_span(b"\x22\x01x"), size // 4))),
    Hostile("old spans", lambda size: framed(b"\x0a", framed(b"\xc2\x3e", fill(b"\x12\x00", size)))),
    Hostile("JSON of empty objects", lambda size: json_fill(json_in_scope, "{}", size), JSON),
    Hostile(
        "JSON of empty arrays", lambda size: json_fill(lambda text: f'{{"a":[{text}]}}'.encode(), "[]", size), JSON
    ),
    Hostile("JSON of empty texts", lambda size: json_fill(lambda text: f'{{"a":[{text}]}}'.encode(), '""', size), JSON),
    Hostile("JSON of spans that are ids", lambda size: json_fill(json_in_scope, json_span(""), size), JSON),
    Hostile(
        "JSON of a span of empty events",
        lambda size: json_fill(lambda text: json_in_scope(json_span(f',"events":[{text}]')), "{}", size),
        JSON,
    ),
    Hostile(
        "JSON of a span of numbers",
        lambda size: json_fill(lambda text: json_in_scope(json_span(f',"events":[{text}]')), "1.5", size // 8),
        JSON,
    ),
    Hostile("JSON that is deep", lambda size: b'{"a":' + b"[" * (size - 10), JSON),
    Hostile("JSON of a long text", lambda size: json_value('"' + "\\ud83d\\ude00" * (size // 12 - 50) + '"'), JSON),
    Hostile("JSON of a wide text", lambda size: json_value('"' + "x" * (size // 8 - 400) + '\U0001f600"'), JSON),
    Hostile("JSON of a text without an end", lambda size: json_value('"' + '\\"' * (size // 2 - 100)), JSON),
    Hostile("JSON of a number without an end", lambda size: b'{"resourceSpans":' + b"9" * (size - 100), JSON),
    Hostile("JSON of space", lambda size: b" " * (size - 100), JSON),
    Hostile("a bomb", lambda size: gzip.compress(bytes(13 * size), 9), encoding="gzip"),
    Hostile("a bomb in parts", lambda size: gzip.compress(bytes(size // 4), 1) * 60, encoding="gzip"),
    Hostile("a bomb of zlib", lambda size: zlib.compress(bytes(13 * size), 9), encoding="deflate"),
    Hostile("a bomb of JSON", lambda size: gzip.compress(b'{"resourceSpans":[' + b"{}," * (4 * size), 6), JSON, "gzip"),
    Hostile("a bomb just small enough", lambda size: gzip.compress(in_scope(fill(a_span(), size)), 6), encoding="gzip"),
    Hostile("a bomb of many parts", lambda size: gzip.compress(b"") * (size // 20), encoding="gzip"),
]
