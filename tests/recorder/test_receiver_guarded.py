"""Beyond this machine the receiver is reached only through TLS, and heard only with the token."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from recorder.receiving import Client, Lab, body_of, everything, gaps, numbers, receiving

from fencepost_recorder import ReceiverError, begin
from fencepost_recorder.receiver import Limits, Receiver, Tls

TOKEN = "correct-horse"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ANYWHERE = ("0.0.0.0", 0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    made = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "server.pem", folder / "server.key"
    made.private_key_pem.write_to_path(key)
    for blob in made.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return Tls(certificate, key)


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "received")


@pytest.fixture
def lab(directory: Path, tls: Tls) -> Iterator[Lab]:
    with receiving(directory, http=ANYWHERE, grpc=ANYWHERE, tls=tls, token=TOKEN) as made:
        yield made


def ports(lab: Lab) -> tuple[int, int]:
    http_address, grpc_address = lab.receiver.http_address, lab.receiver.grpc_address
    assert http_address is not None
    assert grpc_address is not None
    return http_address[1], grpc_address[1]


@pytest.mark.parametrize("face", ["http", "grpc"])
def test_the_sdk_exports_to_it_with_certificate_and_token(
    lab: Lab, tls: Tls, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporters need nothing but the CA's certificate and the header with the token."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they would win over what the exporter is told
        monkeypatch.delenv(name, raising=False)
    http_port, grpc_port = ports(lab)
    authority = tls.certificate.parent / "ca.pem"
    exporter: SpanExporter
    if face == "http":
        url = f"https://localhost:{http_port}/v1/traces"
        exporter = HttpExporter(url, certificate_file=str(authority), headers={"Authorization": f"Bearer {TOKEN}"})
    else:
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        headers = (("authorization", f"Bearer {TOKEN}"),)
        exporter = GrpcExporter(f"localhost:{grpc_port}", credentials=credentials, headers=headers)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for number in range(3):
        provider.get_tracer("lab").start_span("work", attributes={"number": number}).end()
    provider.shutdown()
    assert numbers(lab.seal()) == [0, 1, 2]


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_without_the_token_nothing_is_heard(
    lab: Lab, authority: trustme.CA, trusting: ssl.SSLContext, given: str | None
) -> None:
    """401 and UNAUTHENTICATED, before the body is looked at, and no gap: whoever has no token cannot spoil anything."""
    http_port, grpc_port = ports(lab)
    headers = {"Authorization": given} if given is not None else {}
    with Client(("localhost", http_port), trusting) as client:
        answer = client.post(b"garbage", **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(f"localhost:{grpc_port}", credentials) as channel, pytest.raises(grpc.RpcError) as error:
        metadata = (("authorization", given),) if given is not None else ()
        channel.unary_unary(EXPORT)(b"garbage", metadata=metadata, timeout=20)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert lab.receiver.counts().refused == {"unauthenticated": 2}
    assert gaps(lab.seal(), "refused") == []


def test_whoever_speaks_no_tls_is_left(lab: Lab, trusting: ssl.SSLContext) -> None:
    """Plain HTTP gets no answer; a client that never begins its handshake is in nobody's way."""
    http_port, _ = ports(lab)
    with socket.create_connection(("127.0.0.1", http_port), timeout=20):
        with socket.create_connection(("127.0.0.1", http_port), timeout=20) as plain:
            plain.sendall(b"POST /v1/traces HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP/" not in everything(plain)
        with Client(("localhost", http_port), trusting) as client:
            assert client.post(body_of(range(3)), Authorization=f"Bearer {TOKEN}").status == 200
    assert numbers(lab.seal()) == [0, 1, 2]


def test_clients_may_have_to_show_a_certificate_too(
    directory: Path, tls: Tls, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """With `clients`, one of that CA is asked for; without one nothing is heard."""
    guarded = Tls(tls.certificate, tls.key, clients=tls.certificate.parent / "ca.pem")
    with receiving(directory, http=("127.0.0.1", 0), tls=guarded) as lab:
        address = ("localhost", lab.http[1])
        with Client(address, trusting) as client, pytest.raises((ssl.SSLError, ConnectionError)):
            client.post(body_of(range(3)))
        authority.issue_cert("client").configure_cert(trusting)
        with Client(address, trusting) as client:
            assert client.post(body_of(range(3))).status == 200
        assert numbers(lab.seal()) == [0, 1, 2]


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.7", "::", "example.com", "", "127.0.0.1.example.com"])
@pytest.mark.parametrize("face", ["http", "grpc"])
def test_elsewhere_than_on_loopback_both_tls_and_a_token_are_needed(
    directory: Path, tls: Tls, address: str, face: str
) -> None:
    """Either alone is refused, with the way out, before anything is bound or written."""
    for guards in ({}, {"tls": tls}, {"token": TOKEN}, {"tls": tls, "token": ""}):
        receiver = Receiver(directory / "wal", **{"http": None, face: (address, 0), **guards})  # type: ignore[arg-type]
        with pytest.raises(ReceiverError, match="give a TLS certificate and a bearer token"):
            receiver.start()
    assert list((directory / "wal").iterdir()) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_on_loopback_neither_is_needed(directory: Path, address: str) -> None:
    """But a token is asked for there too, where one is set."""
    with receiving(directory, http=(address, 0), token=TOKEN) as lab:
        assert lab.client().post(body_of(range(1))).status == 401
        assert lab.client().post(body_of(range(1)), Authorization=f"bearer {TOKEN}").status == 200


def test_a_certificate_that_cannot_be_used_is_one_sentence(directory: Path, tls: Tls, tmp_path: Path) -> None:
    """Missing, or no certificate, or a folder in place of the key."""
    (tmp_path / "junk.pem").write_text("junk")
    pairs = [(tmp_path / "none.pem", tls.key), (tmp_path / "junk.pem", tls.key), (tls.certificate, tmp_path)]
    for certificate, key in pairs:
        receiver = Receiver(directory / "wal", http=("127.0.0.1", 0), tls=Tls(certificate, key))
        with pytest.raises(ReceiverError, match="the TLS certificate or key cannot be used") as refused:
            receiver.start()
        assert "\n" not in str(refused.value)
    assert list((directory / "wal").iterdir()) == []


def test_handshakes_do_not_wait_for_each_other(directory: Path, tls: Tls, trusting: ssl.SSLContext) -> None:
    """Each is made in its connection's own thread: many silent clients leave room for others."""
    with receiving(directory, http=("127.0.0.1", 0), tls=tls, limits=Limits(connections=8)) as lab:
        silent = [socket.create_connection(lab.http, timeout=20) for _ in range(7)]
        with Client(("localhost", lab.http[1]), trusting) as client:
            assert client.post(body_of(range(3))).status == 200
        for one in silent:
            one.close()
