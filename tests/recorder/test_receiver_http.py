"""OTLP over HTTP: what was acknowledged is in the recording, and whatever is wrong gets the right answer."""

from __future__ import annotations

import gzip
import json
import socket
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from recorder.receiving import (
    JSON,
    PROTOBUF,
    Lab,
    body_of,
    everything,
    gaps,
    json_body,
    json_of,
    numbers,
    raw,
    receiving,
    request_of,
)

from fencepost_recorder import ReceiverError, begin
from fencepost_recorder.receiver import Limits, Receiver
from fencepost_recorder.redact import Keep

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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trace_id": b"short"}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"parent_span_id": b"x"}, "parent span id"),
        ({"end_time_unix_nano": 2**64 - 1}, "63 bits"),
    ],
)
def test_a_poison_span_costs_itself_alone(lab: Lab, changes: dict[str, Any], reason: str) -> None:
    """A span that no row can hold is rejected and becomes a gap; the rest of its batch is acknowledged and kept."""
    request = request_of(range(4))
    poison = request.resource_spans[0].scope_spans[0].spans[1]
    for name, value in changes.items():
        setattr(poison, name, value)
    answer = lab.client().post(request.SerializeToString())
    assert (answer.status, answer.rejected) == (200, 1)
    assert reason in answer.body.decode("utf-8", "replace")
    recording = lab.seal()
    assert numbers(recording) == [0, 2, 3]
    [gap] = gaps(recording, "poison_span")
    assert (gap["producer"], gap["lost"]) == ("shop", 1)
    assert gap["since_unix_nano"] == poison.start_time_unix_nano
    assert reason in gap["detail"]


def test_a_poison_span_in_json_costs_itself_alone(lab: Lab) -> None:
    """So it is in JSON, whose broken spans may be anything: each is told apart, and the answer is JSON."""
    document = json_of(request_of(range(6)))
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[1]["traceId"] = "00" * 16
    spans[2] = None
    spans[3]["startTimeUnixNano"] = str(2**64)
    spans[4]["status"] = 7
    deep: Any = {"intValue": "1"}
    for _ in range(300):
        deep = {"arrayValue": {"values": [deep]}}
    body = json.dumps(document).replace('"number"', '"number", "value": ' + nested(deep), 1)
    answer = lab.client().post(body.encode(), kind=JSON)
    assert (answer.status, answer.rejected) == (200, 5)
    recording = lab.seal()
    assert numbers(recording) == [5]
    assert sum(gap["lost"] for gap in gaps(recording, "poison_span")) == 5


def nested(value: Any) -> str:
    """JSON of a value that is nested too deeply for `json.dumps`."""
    opened = 0
    while "arrayValue" in value:
        value, opened = value["arrayValue"]["values"][0], opened + 1
    return '{"arrayValue":{"values":[' * opened + json.dumps(value) + "]}}" * opened


def test_a_request_of_nothing_but_poison_is_answered_and_not_to_be_sent_again(lab: Lab) -> None:
    """partial_success says that all were rejected, with a status after which no client tries again."""
    answer = lab.client().post(body_of(range(3), trace_id=b"x"))
    assert (answer.status, answer.rejected) == (200, 3)
    recording = lab.seal()
    assert numbers(recording) == []
    assert [gap["lost"] for gap in gaps(recording, "poison_span")] == [3]


def test_logs_and_metrics_are_answered_honestly(lab: Lab) -> None:
    """They are understood and counted, and nothing of them is kept: partial_success says so, in either encoding."""
    logs, metrics = ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for _ in range(3):
        records.add(severity_text="INFO")
    scope = metrics.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="a").sum.data_points.add(as_int=1)
    scope.metrics.add(name="b").histogram.data_points.add(count=1)
    client = lab.client()
    kept = ExportLogsServiceResponse.FromString(client.post(logs.SerializeToString(), "/v1/logs").body)
    assert kept.partial_success.rejected_log_records == 3
    assert "traces" in kept.partial_success.error_message
    said = ExportMetricsServiceResponse.FromString(client.post(metrics.SerializeToString(), "/v1/metrics").body)
    assert said.partial_success.rejected_data_points == 2
    written = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {"body": {"stringValue": "x"}}]}]}]})
    answer = client.post(written.encode(), "/v1/logs", JSON).document
    assert answer["partialSuccess"]["rejectedLogRecords"] == "2"
    points = {"gauge": {"dataPoints": [{"asInt": "1"}]}}
    written = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [points]}]}]})
    answer = client.post(written.encode(), "/v1/metrics", JSON).document
    assert answer["partialSuccess"]["rejectedDataPoints"] == "1"
    assert client.post(b"", "/v1/logs").body == b""
    assert client.post(b"{}", "/v1/metrics", JSON).document == {}
    assert gaps(lab.seal(), "refused") == []


GOOD = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"

REFUSED = {
    "a path that there is none of": ("POST /v1/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
    "no path at all": ("POST\r\n\r\n", 400),
    "a method that is none of ours": ("GET /v1/traces HTTP/1.1\r\n\r\n", 405),
    "a method that there is none of": ("BREW /v1/traces HTTP/1.1\r\n\r\n", 405),
    "a preflight of a browser": ("OPTIONS /v1/traces HTTP/1.1\r\nOrigin: http://evil.example\r\n\r\n", 403),
    "a page in a browser": (GOOD + "Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n", 403),
    "no content type": ("POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 415),
    "text": ("POST /v1/traces HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n", 415),
    "a compression we do not know": (GOOD + "Content-Encoding: zstd\r\nContent-Length: 4\r\n\r\nabcd", 415),
    "no length": (GOOD + "\r\n", 411),
    "a length below zero": (GOOD + "Content-Length: -1\r\n\r\n", 400),
    "a length that is no number": (GOOD + "Content-Length: 1e3\r\n\r\n", 400),
    "a length in another alphabet": (GOOD + "Content-Length: ²\r\n\r\n", 400),
    "two lengths": (GOOD + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (GOOD + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "another transfer coding": (GOOD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a chunk without a size": (GOOD + "Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    "a chunk of a size below zero": (GOOD + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
    "a chunk longer than it says": (GOOD + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
    "trailers without end": (GOOD + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + "a: b\r\n" * 100, 400),
    "chunks of too much": (GOOD + "Transfer-Encoding: chunked\r\n\r\nfffff\r\n" + "a" * 100_000, 413),
    "a length of too much": (GOOD + "Content-Length: 65537\r\n\r\n", 413),
    "a length beyond any": (GOOD + f"Content-Length: {10**17}\r\n\r\n", 413),
    "a first line without end": ("POST /" + "a" * 70_000, 414),
    "headers without end": (GOOD + "a: b\r\n" * 20_000, 431),
    "one header without end": (GOOD + "a: " + "b" * 80_000, 431),
    "a header that is none": (GOOD + "no colon\r\nContent-Length: 0\r\n\r\n", 400),
    "another version": ("POST /v1/traces HTTP/2.0\r\n\r\n", 505),
    "a first line of strange space": ("\x85\r\n\r\n", 400),
    "no HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_gets_the_right_status_and_a_reason(lab: Lab, what: str) -> None:
    """Each refusal has its HTTP status and a google.rpc.Status; the receiver goes on, and answers a good request."""
    data, code = REFUSED[what]
    answer = raw(lab.http, data.encode("latin-1"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % code)
    if b"Content-Type: application/json" in head:
        told = json.loads(body)
        assert told["code"] > 0
        assert told["message"][0].islower()
    else:
        assert PROTOBUF in data
        assert body.startswith(b"\x08")
    assert lab.client().post(body_of(range(2))).status == 200
    assert sum(lab.receiver.counts().refused.values()) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (PROTOBUF, b"\x0a\x05abc"),
        (PROTOBUF, b"\x0b\x0c"),
        (PROTOBUF, b"hello"),
        (JSON, b'{"resourceSpans": ['),
        (JSON, b'{"resourceSpans": {}}'),
        (JSON, b'{"resourceSpans": [{}}'),
        (JSON, b'{"a" 1}'),
        (JSON, b"[1]"),
        (JSON, b""),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": ["'),
        (JSON, b'{} {"resourceSpans": []}'),
        (JSON, b"\xff\xfe"),
    ],
)
def test_a_body_that_is_no_request_is_refused_and_becomes_a_gap(lab: Lab, kind: str, body: bytes) -> None:
    """A client gives up after 400, so its spans are missing for good; nobody knows whose and how many."""
    answer = lab.client().post(body, kind=kind)
    assert (answer.status, answer.kind) == (400, kind)
    [gap] = gaps(lab.seal(), "refused")
    assert (gap["producer"], gap["lost"], gap["since_unix_nano"]) == (None, None, None)
    assert gap["until_unix_nano"] > 0


def test_many_refusals_do_not_fill_the_log(lab: Lab) -> None:
    """After some of one kind, one last note says that more followed, without an end."""
    client = lab.client()
    for _ in range(220):
        assert client.post(b"hello").status == 400
        client.connection.close()
    recording = lab.seal()
    found = gaps(recording, "refused")
    assert len(found) == 200
    assert found[-1]["until_unix_nano"] is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_unpacked(lab: Lab, encoding: str) -> None:
    """The limit is on decompressed bytes, and holds while they are being decompressed."""
    bomb = gzip.compress(bytes(64 * 1024**2), 1) if encoding == "gzip" else zlib.compress(bytes(64 * 1024**2), 1)
    with receiving(begin(lab.directory.parent, "bombed"), limits=Limits()) as other:
        assert other.client().post(bomb, Content_Encoding=encoding).status == 413
    assert lab.client().post(bomb, Content_Encoding=encoding).status == 413
    assert lab.client().post(gzip.compress(bytes(70_000)), Content_Encoding="gzip").status == 413


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_compressed_body_that_is_cut_off_or_damaged_is_refused(lab: Lab, cut: int) -> None:
    """Nothing of it is kept: what it ended with is unknown."""
    packed = gzip.compress(body_of(range(3)))
    assert lab.client().post(packed[:-cut], Content_Encoding="gzip").status == 400
    damaged = packed[:-cut] + bytes([packed[-cut] ^ 0xFF]) + packed[len(packed) - cut + 1 :]
    assert lab.client().post(damaged, Content_Encoding="gzip").status == 400
    assert numbers(lab.seal()) == []


def test_a_body_of_several_gzip_members_is_one_body(lab: Lab) -> None:
    """gzip files may be put one after the other, but not without end."""
    whole = body_of(range(3))
    packed = b"".join(gzip.compress(whole[at : at + 50]) for at in range(0, len(whole), 50))
    assert lab.client().post(packed, Content_Encoding="gzip").status == 200
    assert lab.client().post(gzip.compress(b"") * 1000, Content_Encoding="gzip").status == 413
    assert numbers(lab.seal()) == [0, 1, 2]


def test_a_connection_serves_one_request_after_the_other(lab: Lab) -> None:
    """Keep-alive: and requests sent at once are answered in their order."""
    body = body_of(range(2))
    one = f"{GOOD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    last = b"GET /v1/traces HTTP/1.1\r\nConnection: close\r\n\r\n"
    answers = raw(lab.http, one * 3 + last, end=False)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b"405") > answers.rindex(b"200 OK")


OTHER_WAYS = ("/v1/traces/", "/v1/traces?a=b", "//v1/traces", "/v1/traces/?a=/b/", "http://host/v1/traces")
OTHER_WAYS += ("HTTP://127.0.0.1:4318/v1/traces/?a", "https://[::1]:4318/v1/traces")
OTHER_PATHS = ("/v1/traces//", "/v1/tracesx", "/", "*", "http://host", "http://host/", "http://host?/v1/traces")
OTHER_PATHS += ("ftp://h/v1/traces", "http:/v1/traces", "http://v1/traces", "/http://host/v1/traces")


@pytest.mark.parametrize("target", OTHER_WAYS)
def test_the_path_may_be_written_in_other_ways(lab: Lab, target: str) -> None:
    """With a slash at its end, a query, or in HTTP's absolute form: after a 404 these spans would be lost for good."""
    body = body_of(range(2))
    head = GOOD.replace("/v1/traces", target) + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    assert raw(lab.http, head.encode() + body, end=False).startswith(b"HTTP/1.1 200 OK")
    assert numbers(lab.seal()) == [0, 1]


@pytest.mark.parametrize("target", OTHER_PATHS)
def test_another_path_is_none_however_it_is_written(lab: Lab, target: str) -> None:
    """What only looks like the path of traces is 404."""
    answer = raw(lab.http, GOOD.replace("/v1/traces", target).encode() + b"Content-Length: 0\r\n\r\n", end=False)
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_an_old_client_is_answered_and_left(lab: Lab) -> None:
    """HTTP/1.0 knows no keep-alive."""
    body = body_of(range(2))
    head = f"POST /v1/traces HTTP/1.0\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert raw(lab.http, head.encode() + body, end=False).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_asks_first_is_told_to_go_on(lab: Lab) -> None:
    """Expect: 100-continue is answered before the body, and by the final answer where the head is wrong already."""
    body = body_of(range(2))
    head = f"{GOOD}Expect: 100-continue\r\nConnection: close\r\n"
    with socket.create_connection(lab.http, timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert everything(connection).startswith(b"HTTP/1.1 200 OK")
    assert raw(lab.http, f"{head}Content-Length: 99999\r\n\r\n".encode(), end=False).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", [b"", b"POST", GOOD.encode(), f"{GOOD}Content-Length: 99\r\n\r\nabc".encode()])
def test_a_slow_client_is_not_waited_for(directory: Path, sent: bytes) -> None:
    """Silence amid a request, or before one, ends the connection in time; a byte now and then does not prolong it."""
    limits = Limits(request_seconds=0.3, idle_seconds=0.3)
    with receiving(directory, limits=limits) as lab, socket.create_connection(lab.http, timeout=20) as connection:
        started = time.monotonic()
        connection.sendall(sent)
        dripping = threading.Thread(target=_drip, args=(connection,), daemon=True)
        if sent.endswith(b"abc"):
            dripping.start()
        answer = everything(connection)
        assert time.monotonic() - started < 10
        assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""
        if sent.endswith(b"abc"):
            dripping.join()
            assert len(gaps(lab.seal(), "refused")) == 1


def _drip(connection: socket.socket) -> None:
    try:
        for _ in range(50):
            connection.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        return


def test_a_client_that_goes_away_amid_its_request_leaves_nothing(lab: Lab) -> None:
    """It knows that it was not acknowledged: neither spans nor a gap."""
    body = body_of(range(3))
    assert raw(lab.http, f"{GOOD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1]) == b""
    recording = lab.seal()
    assert (numbers(recording), gaps(recording, "refused")) == ([], [])


def test_too_many_clients_are_asked_to_come_again(directory: Path) -> None:
    """Beyond the limit a connection gets 503 and Retry-After at once; those that are served go on."""
    limits = Limits(connections=2)
    with receiving(directory, limits=limits) as lab:
        busy = [socket.create_connection(lab.http, timeout=20) for _ in range(2)]
        for connection in busy:
            connection.sendall(GOOD.encode())
        until(lambda: len(lab.receiver._http_face._busy_connections()) == 2)  # type: ignore[union-attr]
        answer = raw(lab.http, b"", end=False)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        body = body_of(range(2))
        for connection in busy:
            connection.sendall(f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert everything(connection).startswith(b"HTTP/1.1 200 OK")
            connection.close()
        assert lab.receiver.counts().busy == 1


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_more_bodies_at_once_than_memory_is_allowed_for_are_asked_to_come_again(directory: Path) -> None:
    """The bodies of all requests together are bounded; whoever comes beyond gets 503, which every client repeats."""
    limits = Limits(body_bytes=1024 * 1024, in_flight_bytes=1024 * 1024)
    with receiving(directory, limits=limits) as lab, socket.create_connection(lab.http, timeout=20) as slow:
        slow.sendall(f"{GOOD}Content-Length: {2**20}\r\n\r\n".encode() + bytes(800_000))
        until(lambda: lab.receiver._budget.left == 0)
        answer = lab.client().post(body_of(range(3)))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert numbers(lab.seal()) == []


def test_a_client_that_holds_its_connection_makes_room_for_another(directory: Path) -> None:
    """Kept alive for a next request is no reason to turn others away."""
    with receiving(directory, limits=Limits(connections=1)) as lab:
        first = lab.client()
        assert first.post(body_of(range(1))).status == 200
        until(lambda: raw(lab.http, b"GET / HTTP/1.0\r\n\r\n", end=False).startswith(b"HTTP/1.1 404 "))
        first.connection.close()
        until(lambda: _post(lab) == 200)
        assert numbers(lab.seal()) == [0, 1]


def _post(lab: Lab) -> int:
    client = lab.client()
    return client.post(body_of(range(1, 2))).status


def test_stopping_finishes_what_is_under_way(lab: Lab) -> None:
    """A request whose body is still coming is kept and acknowledged; idle connections are closed at once."""
    body = body_of(range(3))
    idle = lab.client()
    assert idle.post(b"").status == 200
    with socket.create_connection(lab.http, timeout=20) as connection:
        connection.sendall(f"{GOOD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        # The other connection may still be amid its request, and this one not yet seen: it is this one that counts.
        face, ours = lab.receiver._http_face, connection.getsockname()
        until(lambda: [one._socket.getpeername() for one in face._busy_connections()] == [ours])  # type: ignore[union-attr]
        stopping = threading.Thread(target=lab.receiver.stop, args=(20,))
        stopping.start()
        until(lambda: idle.connection.sock is None or idle.connection.sock.recv(1) == b"")
        connection.sendall(body[10:])
        answer = everything(connection)
        stopping.join()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nConnection: close\r\n" in answer
    assert numbers(lab.seal()) == [0, 1, 2]


def test_a_port_in_use_is_one_sentence(lab: Lab, recordings: Path) -> None:
    """It names the address and the way out, and leaves no log behind."""
    other = begin(recordings, "other")
    with pytest.raises(ReceiverError, match=f"{lab.http[1]}: the port is in use, choose another"):
        Receiver(other / "wal", http=lab.http).start()
    assert list((other / "wal").iterdir()) == []


@pytest.mark.parametrize("address", [("no.such.host.invalid", 0), ("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_an_address_that_cannot_be_had_is_one_sentence(directory: Path, address: tuple[str, int]) -> None:
    """Whatever the system says about it."""
    with pytest.raises(ReceiverError) as refused:
        Receiver(directory / "wal", http=address, tls=None, token="t").start()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [None, "job.*"])
def test_an_exported_recording_that_is_sent_here_keeps_what_never_ended(directory: Path, keep: str | None) -> None:
    """Its marks are understood, also where only some attributes may be kept."""
    request = request_of(range(3))
    request.resource_spans[0].resource.attributes.add(key="fencepost.producer").value.string_value = "worker-7"
    marked = request.resource_spans[0].scope_spans[0].spans[1]
    marked.attributes.add(key="fencepost.never_ended").value.bool_value = True
    with receiving(directory, keep=None if keep is None else Keep.parse(keep)) as lab:
        assert lab.client().post(request.SerializeToString()).status == 200
        rows = lab.seal().spans().to_pylist()
    assert [row["name"] for row in rows if row["duration_time_unix_nano"] is None] == ["span 1"]
    assert {row["producer"] for row in rows} == {"worker-7"}
    assert "never_ended" not in "".join(row["span_attributes"] for row in rows)
