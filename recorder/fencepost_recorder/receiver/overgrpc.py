"""OTLP over gRPC, by grpcio, which is an extra: imported only where it is asked for.

Messages are handled as the bytes they are. They also arrive as compressed as they were sent: what gRPC itself would
decompress, it decompresses whole, before anybody could say that it is too much.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from fencepost_recorder.errors import Overloaded, ReceiverError
from fencepost_recorder.receiver import bodies
from fencepost_recorder.receiver.answers import PROTOBUF, SIGNALS, Problem, Refusal, Signal, status
from fencepost_recorder.receiver.bodies import Reservation
from fencepost_recorder.receiver.desk import Desk
from fencepost_recorder.receiver.limits import MIB, Limits, Tls
from fencepost_recorder.receiver.listening import bind_error, listen
from fencepost_recorder.wire import Buffer

_BY_METHOD = {f"/{signal.service}/Export": signal for signal in SIGNALS}
# No message of OTLP begins so: as the tag of a field it would have a wire type that there is none of.
_GZIP = b"\x1f\x8b"
_IDENTITY_AND_GZIP = 0b101
_VERBOSITY = "GRPC_VERBOSITY"
_DETAILS = "grpc-status-details-bin"
_HANDSHAKE_MS = 10_000
_LOOK_SECONDS = 0.5


class GrpcFace:
    """Serves OTLP over gRPC with a bounded number of threads. Raises ReceiverError."""

    def __init__(self, address: tuple[str, int], desk: Desk, tls: Tls | None) -> None:
        self._grpc = _import()
        self._desk = desk
        # gRPC refuses these by itself, and tells us no more of it than when a client gives up.
        size = f"{desk.limits.grpc_message_bytes / MIB:,g} MiB"
        why = f"larger than {size}, compressed by something else than gzip, or its client went away"
        self._missing = Refusal(Problem.TOO_LARGE, f"a message did not arrive: {why}")
        self._watch = _Watch(desk.limits.request_seconds)
        self._pool = ThreadPoolExecutor(desk.limits.grpc_threads, thread_name_prefix="fencepost-grpc")
        self._server = self._grpc.server(
            self._pool, handlers=(_handlers(self._grpc, self),), options=_options(desk.limits)
        )
        try:
            self.address = (address[0], self._bind(address, tls))
        except BaseException:
            self._pool.shutdown(wait=False)
            raise

    def _bind(self, address: tuple[str, int], tls: Tls | None) -> int:
        host, port = address
        # gRPC does not say why it cannot have an address: a socket does.
        listen(address, "OTLP over gRPC").close()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                bound: int = self._server.add_insecure_port(where)
            else:
                bound = self._server.add_secure_port(where, self._credentials(tls))
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise bind_error(host, port, "OTLP over gRPC", OSError(errno.EADDRINUSE, ""))
        return bound

    def _credentials(self, tls: Tls) -> Any:
        roots = tls.clients.read_bytes() if tls.clients is not None else None
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        return self._grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)

    def start(self) -> None:
        """Begin to serve."""
        self._watch.start()
        self._server.start()

    def stop(self, deadline: float) -> None:
        """Accept nothing more, and let requests finish until `deadline` (of `time.monotonic`)."""
        self._server.stop(max(0.0, deadline - time.monotonic())).wait()
        self._watch.stop()
        self._pool.shutdown(wait=True)

    def answer(self, signal: Signal, messages: Iterator[bytes], context: Any) -> bytes:
        """Keep a request; the response's bytes. Raises what gRPC wants raised."""
        try:
            return self._keep(signal, messages, context)
        except Refusal as refusal:
            self._refuse(context, self._desk.intake.refuse(refusal, signal))
        except Overloaded as error:
            self._refuse(context, self._desk.intake.refuse(Refusal(Problem.BUSY, str(error)), signal))
        except self._grpc.RpcError:
            raise  # the call is over: gRPC says nothing more about it
        except Exception:
            defect = Refusal(Problem.DEFECT, "the receiver failed at this request, which was not kept")
            self._refuse(context, self._desk.intake.refuse(defect, signal))
        raise AssertionError("gRPC goes on after an abort")

    def _keep(self, signal: Signal, messages: Iterator[bytes], context: Any) -> bytes:
        self._authenticate(context)
        message = self._message(signal, messages, context)
        if message is None:
            raise Refusal(Problem.UNREADABLE, "the call holds no message")
        with Reservation(self._desk.budget) as reservation:
            body: Buffer = message
            if message.startswith(_GZIP):
                body = bodies.inflate((message,), self._desk.limits, reservation)
            else:
                reservation.cover(len(message))
            return self._desk.intake.take(signal, body, PROTOBUF).to_bytes(PROTOBUF)

    def _message(self, signal: Signal, messages: Iterator[bytes], context: Any) -> bytes | None:
        """The call's message. Raises RpcError when the call ended before it was there."""
        with self._watch.over(context) as call:
            try:
                return next(messages, None)
            except self._grpc.RpcError:
                if not call.late and not self._desk.stopping():
                    self._desk.intake.refuse(self._missing, signal)
                raise

    def _authenticate(self, context: Any) -> None:
        given = next((value for key, value in context.invocation_metadata() if key == "authorization"), "")
        self._desk.authenticate(given)

    def _refuse(self, context: Any, refusal: Refusal) -> None:
        problem = refusal.problem
        context.set_trailing_metadata(((_DETAILS, status(problem, refusal.message, PROTOBUF)),))
        code = next(code for code in self._grpc.StatusCode if code.value[0] == problem.rpc)
        context.abort(code, refusal.message)


class _Watch:
    """Cancels the calls whose message does not arrive in time: each holds a thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="fencepost-grpc-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    @contextmanager
    def over(self, context: Any) -> Iterator[_Call]:
        """Watch over a call for as long as the `with` lasts."""
        call = _Call(context, time.monotonic() + self._seconds)
        with self._lock:
            self._calls.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def _look(self) -> None:
        while not self._stopped.wait(min(_LOOK_SECONDS, self._seconds)):
            now = time.monotonic()
            with self._lock:
                late = [call for call in self._calls if call.end < now]
            for call in late:
                call.late = True
                call.context.cancel()


@dataclass(eq=False, slots=True)
class _Call:
    """A call whose message is awaited until `end` (of `time.monotonic`)."""

    context: Any
    end: float
    late: bool = False


def _handlers(grpc: ModuleType, face: GrpcFace) -> Any:
    """The three services. A call is taken as a stream, so that a thread is there before its message is."""

    def method(signal: Signal) -> Any:
        def answer(messages: Iterator[bytes], context: Any) -> bytes:
            return face.answer(signal, messages, context)

        return grpc.stream_unary_rpc_method_handler(answer)

    methods = {name: method(signal) for name, signal in _BY_METHOD.items()}

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[name-defined,misc]
        def service(self, details: Any) -> Any:
            return methods.get(details.method)

    return Handlers()


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.grpc_message_bytes),
        ("grpc.per_message_decompression", 0),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # Windows that grow by themselves would let every client put megabytes into memory before a thread is there.
        ("grpc.http2.bdp_probe", 0),
        # Or two receivers could share a port, and each would get half of the requests.
        ("grpc.so_reuseport", 0),
    ]


def _import() -> ModuleType:
    # What hostile clients make gRPC say goes to no one's terminal; children keep the environment they have.
    before = os.environ.get(_VERBOSITY)
    os.environ.setdefault(_VERBOSITY, "NONE")
    try:
        return import_module("grpc")
    except ImportError as error:
        raise ReceiverError(
            "OTLP over gRPC needs grpcio, which is not installed: pip install 'fencepost[grpc]', or receive over HTTP"
        ) from error
    finally:
        if before is None:
            del os.environ[_VERBOSITY]
