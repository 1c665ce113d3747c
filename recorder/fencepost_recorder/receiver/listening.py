"""Accepting connections: a bounded number of threads, and an answer for whoever comes beyond it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from fencepost_recorder.errors import ReceiverError, printable
from fencepost_recorder.receiver.answers import JSON, RETRY_SECONDS, Problem, status
from fencepost_recorder.receiver.desk import Desk
from fencepost_recorder.receiver.limits import Tls
from fencepost_recorder.receiver.overhttp import Handler

_BACKLOG = 512
_LINGERING = 64
_FULL_BODY = status(Problem.BUSY, "the receiver serves as many connections as it can: send the request again", JSON)
_FULL = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\nContent-Length: {len(_FULL_BODY)}\r\n"
    f"Retry-After: {RETRY_SECONDS}\r\nConnection: close\r\n\r\n"
).encode() + _FULL_BODY
_HANDSHAKE_SECONDS = 5.0
_DISMISS_SECONDS = 1.0
_EVICT_SECONDS = 1.0
_PAUSE_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def server_context(tls: Tls) -> ssl.SSLContext:
    """TLS as the standard library would have it for a server. Raises ReceiverError when the files are not usable."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.clients is not None:
            context.load_verify_locations(tls.clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        reason = printable(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
        raise ReceiverError(f"the TLS certificate or key cannot be used: {reason}; give PEM files") from error
    return context


def bind_error(host: str, port: int, what: str, error: OSError) -> ReceiverError:
    """One sentence for an address that cannot be had."""
    where = f"{printable(host)}:{port}"
    if error.errno == errno.EADDRINUSE:
        return ReceiverError(f"cannot receive {what} on {where}: the port is in use, choose another or 0 for any")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ReceiverError(f"cannot receive {what} on {where}: not allowed, choose a port above 1023")
    return ReceiverError(f"cannot receive {what} on {where}: {error.strerror or error}; choose another address")


class HttpFace:
    """Accepts connections and serves each in a thread of its own. `start` raises ReceiverError."""

    def __init__(self, address: tuple[str, int], desk: Desk, tls: ssl.SSLContext | None) -> None:
        self._desk = desk
        self._tls = tls
        self._socket = listen(address, "OTLP over HTTP")
        self.address = self._socket.getsockname()[:2]
        self._stopping = False
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        # Refused connections stay open for a moment, so that their answer is read before they are reset.
        self._refused: deque[tuple[float, socket.socket]] = deque()
        self._thread = threading.Thread(target=self._accept, name="fencepost-http", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Give the address back without having started."""
        self._socket.close()

    def stop(self, deadline: float) -> None:
        """Accept nothing more, let requests finish until `deadline` (of `time.monotonic`), then close the rest."""
        self._stopping = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        connections = self._connections()
        for connection in connections:
            connection.leave()
        for connection in connections:
            connection.join(deadline - time.monotonic())
        for connection in connections:
            connection.close()
        for connection in connections:
            connection.join(_CLOSE_SECONDS)
        while self._refused:
            self._refused.popleft()[1].close()

    def _accept(self) -> None:
        while not self._stopping:
            self._dismiss()
            try:
                self._socket.settimeout(_DISMISS_SECONDS if self._refused else None)
                accepted, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._stopping:
                    return
                time.sleep(_PAUSE_SECONDS)  # out of descriptors: those in use will come back
                continue
            self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        connection = _Connection(accepted, self._desk, self._tls, self._ended)
        with self._lock:
            full = len(self._open) >= self._desk.limits.connections and not self._evict()
            if not full:
                self._open.add(connection)
        if full:
            self._turn_away(accepted)
            return
        try:
            connection.start()
        except RuntimeError:  # the system has no thread left
            self._ended(connection)
            self._turn_away(accepted)

    def _evict(self) -> bool:
        """Close the connection that has waited longest for its client's next request; whether there was one."""
        waiting = [one for one in self._open if one.waits_since is not None]
        oldest = min(waiting, key=lambda one: one.waits_since or 0.0, default=None)
        if oldest is None or time.monotonic() - (oldest.waits_since or 0.0) < _EVICT_SECONDS:
            return False
        oldest.leave()
        self._open.discard(oldest)
        return True

    def _turn_away(self, accepted: socket.socket) -> None:
        self._desk.busy()
        if self._tls is not None:
            accepted.close()
            return
        with suppress(OSError):
            accepted.setblocking(False)
            accepted.send(_FULL)
            accepted.shutdown(socket.SHUT_WR)
        self._refused.append((time.monotonic(), accepted))

    def _dismiss(self) -> None:
        while self._refused and (
            len(self._refused) > _LINGERING or time.monotonic() - self._refused[0][0] > _DISMISS_SECONDS
        ):
            self._refused.popleft()[1].close()

    def _ended(self, connection: _Connection) -> None:
        with self._lock:
            self._open.discard(connection)

    def _busy_connections(self) -> list[_Connection]:
        return [one for one in self._connections() if one.serves]

    def _connections(self) -> list[_Connection]:
        with self._lock:
            return list(self._open)


class _Connection:
    """One client's connection, and the thread that serves it."""

    def __init__(
        self,
        accepted: socket.socket,
        desk: Desk,
        tls: ssl.SSLContext | None,
        ended: Callable[[_Connection], None],
    ) -> None:
        self._socket = accepted
        self._desk = desk
        self._tls = tls
        self._ended = ended
        self._handler: Handler | None = None
        self._thread = threading.Thread(target=self._serve, name="fencepost-http-connection", daemon=True)

    def start(self) -> None:
        """Serve it. Raises RuntimeError when there is no thread to be had."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(max(0.0, seconds))

    @property
    def waits_since(self) -> float | None:
        """Since when (of `time.monotonic`) it has waited for a request; None while it serves one."""
        return self._handler.waits_since if self._handler is not None else None

    @property
    def serves(self) -> bool:
        """Whether it is amid a request."""
        return self._handler is not None and self._handler.waits_since is None

    def leave(self) -> None:
        """End it unless it serves a request."""
        if self.waits_since is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """End it now."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(_HANDSHAKE_SECONDS)
            if self._tls is not None:
                self._socket = self._tls.wrap_socket(self._socket, server_side=True)
            self._handler = Handler(self._socket, self._desk)
            self._handler.handle()
        except OSError:
            pass  # no TLS, or gone before it was served
        finally:
            self._handler = None
            with suppress(OSError):
                self._socket.close()
            self._ended(self)


def listen(address: tuple[str, int], what: str) -> socket.socket:
    """A socket bound to an address, listening. Raises ReceiverError."""
    host, port = address
    if not 0 <= port <= 65535:
        raise ReceiverError(f"{printable(host)}:{port} is no address: choose a port from 0 to 65535")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise bind_error(host, port, what, error) from error
    except UnicodeError as error:
        raise ReceiverError(f"{printable(host)} is no host: give a name or an address") from error
