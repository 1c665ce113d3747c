"""The OTLP receiver: the faces it shows to clients, over one log."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from pathlib import Path

from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.errors import ReceiverError, printable
from fencepost_recorder.receiver.desk import Desk
from fencepost_recorder.receiver.intake import Intake
from fencepost_recorder.receiver.limits import MIB, Budget, Counts, Limits, Tally, Tls
from fencepost_recorder.receiver.listening import HttpFace, is_loopback, server_context
from fencepost_recorder.receiver.overgrpc import GrpcFace
from fencepost_recorder.receiver.redaction import KeepOnly
from fencepost_recorder.redact import Keep
from fencepost_recorder.wal import MAX_PAYLOAD_BYTES

Address = tuple[str, int]
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of malloc.h


class Receiver:
    """Receives OTLP traces over HTTP, gRPC or both, and keeps them in a log of its own in the folder `wal`.

    An acknowledged request is on disk. `http` and `grpc` are addresses to bind, a host and a port, where 0 is any
    free one. Any other address than a loopback one needs `tls` and a bearer `token`; a token alone is asked for on
    loopback too. With `keep`, or with FENCEPOST_KEEP_ATTRIBUTES set, only the attributes that it names are kept.
    """

    def __init__(
        self,
        wal: Path,
        *,
        http: Address | None,
        grpc: Address | None = None,
        limits: Limits | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._wal = Path(wal)
        self._http, self._grpc = http, grpc
        self._limits = limits or Limits()
        self._tls, self._token = tls, token
        self._keep = keep
        self._tally = Tally()
        self._budget = Budget(self._limits.in_flight_bytes)
        self._stopping = False
        self._log: CommitLog | None = None
        self._http_face: HttpFace | None = None
        self._grpc_face: GrpcFace | None = None

    @property
    def http_address(self) -> Address | None:
        """Where it receives over HTTP, once started."""
        return self._http_face.address if self._http_face is not None else None

    @property
    def grpc_address(self) -> Address | None:
        """Where it receives over gRPC, once started."""
        return self._grpc_face.address if self._grpc_face is not None else None

    @property
    def producer(self) -> str | None:
        """The name its log goes by, once started."""
        return self._log.producer if self._log is not None else None

    def counts(self) -> Counts:
        """What was answered so far."""
        return self._tally.counts()

    def start(self) -> None:
        """Bind and serve, in threads. Raises ReceiverError when that cannot be, StorageError without a log,
        RecorderError for a FENCEPOST_KEEP_ATTRIBUTES that names nothing.
        """
        self._check()
        self._keep = self._keep or Keep.from_environment()
        _give_memory_back()
        context = server_context(self._tls) if self._tls is not None else None
        kept = self._keep.patterns if self._keep is not None else None
        log = CommitLog(self._wal, kept=kept, queue_bytes=self._limits.in_flight_bytes)
        redaction = KeepOnly(self._keep) if self._keep is not None else None
        intake = Intake(log, self._limits, self._tally, redaction)
        desk = Desk(intake, self._limits, self._budget, self._token, lambda: self._stopping, self._tally.busy)
        try:
            if self._http is not None:
                self._http_face = HttpFace(self._http, desk, context)
            if self._grpc is not None:
                self._grpc_face = GrpcFace(self._grpc, desk, self._tls)
        except BaseException:
            if self._http_face is not None:
                self._http_face.close()
                self._http_face = None
            log.discard()
            raise
        self._log = log
        for face in self._faces():
            face.start()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Accept nothing more, finish what is under way for so long, then end the log. Raises StorageError."""
        self._stopping = True
        deadline = time.monotonic() + grace_seconds
        for face in self._faces():
            face.stop(deadline)
        if self._log is not None:
            self._log.close()

    def _faces(self) -> list[HttpFace | GrpcFace]:
        return [face for face in (self._http_face, self._grpc_face) if face is not None]

    def _check(self) -> None:
        if self._http is None and self._grpc is None:
            raise ReceiverError("there is no address to receive on: give one for HTTP or gRPC")
        if self._limits.body_bytes > MAX_PAYLOAD_BYTES:
            raise ReceiverError("a request may hold at most 16 MiB: choose a smaller limit")
        for address in (self._http, self._grpc):
            if address is not None and not is_loopback(address[0]) and (self._tls is None or not self._token):
                raise ReceiverError(
                    f"{printable(address[0])} can be reached from elsewhere: give a TLS certificate and a bearer "
                    "token, or listen on 127.0.0.1"
                )


def _give_memory_back() -> None:
    """Have the C library return large blocks to the system as soon as they are freed, where it is GNU's.

    By itself it keeps what it once needed, in up to eight heaps a processor: a few large requests, each in a thread
    of its own, and a receiver would hold many times its limit for good.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, MIB)
        library.mallopt(_M_ARENA_MAX, 2)
