"""What is cut: small lives of a recording, each with its ledger, and the recovery that has to follow any crash."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns import spans
from campaigns.ledger import Ledger
from campaigns.operations import Tap

from fencepost_recorder import StorageError, begin, open_recording, recover, seal
from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.campaign"
ID = "r"
SEGMENT_BYTES = 1_500
_SIZE = 2
_REQUESTS = spans.Requests("client-1", _SIZE)
COLUMNS = (*spans.COLUMNS, "producer", "producer_seq", "producer_end_seq")


def _nothing(root: Path, ledger: Ledger) -> None:
    """Begins with an empty folder."""


@dataclass(frozen=True)
class Work:
    """One life of a recording below a root: what was there before, on disk, and then what is cut.

    `pledged` tells whether what its ledger says has to survive a power cut before it is staged or sealed.
    """

    name: str
    run: Callable[[Path, Ledger], None]
    pledged: bool
    prepare: Callable[[Path, Ledger], None] = _nothing

    def prepared(self, root: Path, ledger: Path) -> Callable[[Tap], None]:
        """The action that comes before, for `children.run`."""
        return lambda _: self.prepare(root, Ledger(ledger))

    def action(self, root: Path, ledger: Path) -> Callable[[Tap], None]:
        """The action that is cut."""
        return lambda tap: self.run(root, Ledger(ledger, lambda: tap.count))


def tell(writer: LogWriter, ledger: Ledger, numbers: range) -> None:
    """Start and end spans, as a span processor does; every third does not end."""
    scope = -1
    for number in numbers:
        for kind in ("start", "end") if number % 3 else ("start",):
            scope = _introduced(writer, ledger) if scope < 0 else scope
            _append(writer, ledger, kind, number, scope)


def _introduced(writer: LogWriter, ledger: Ledger) -> int:
    """The number of the SCOPE frame, written now; negative when it could not be."""
    resource = writer.append(FrameType.RESOURCE, spans.resource(writer.producer))
    scope = writer.append(FrameType.SCOPE, spans.scope(), max(resource, 0))
    for _ in range((resource < 0) + (scope < 0)):
        ledger.note("refused")
    return scope if resource >= 0 else -1


def _append(writer: LogWriter, ledger: Ledger, kind: str, number: int, scope: int) -> None:
    frame = (FrameType.START, spans.started(number)) if kind == "start" else (FrameType.END, spans.ended(number))
    kept = writer.append(*frame, max(scope, 0)) >= 0
    ledger.note(kind if kept else "refused", number)


def _record(root: Path, ledger: Ledger, *, count: int = 9) -> Path:
    """One process records into a log of several segments."""
    directory = begin(root, ID)
    writer = LogWriter(directory / "wal", producer="process-1", segment_bytes=SEGMENT_BYTES)
    tell(writer, ledger, range(1, count + 1))
    writer.close()
    return directory


def _record_and_seal(root: Path, ledger: Ledger) -> None:
    seal(_record(root, ledger), tool_version=VERSION)
    ledger.note("sealed")


def _recorded(root: Path, ledger: Ledger) -> None:
    """Three logs: one closed, one whose process was killed, and one that tells again what the second told."""
    directory = _record(root, ledger, count=4)
    for producer in ("process-2", "process-3"):
        writer = LogWriter(directory / "wal", producer=producer)
        tell(writer, ledger, range(101, 104))
        writer.forget()


def _seal(root: Path, ledger: Ledger) -> None:
    seal(root / ID, tool_version=VERSION)
    ledger.note("sealed")


def _take(root: Path, ledger: Ledger) -> None:
    """A receiver's log takes requests, of which one comes twice; a client sends again what was refused."""
    directory = begin(root, ID)
    log = _insist(lambda: CommitLog(directory / "wal", producer="receiver-1", segment_bytes=SEGMENT_BYTES))
    for number in (*range(0, 7), 3):
        first = 1 + number * _SIZE
        payload = _REQUESTS.encoded(first)
        _insist(lambda payload=payload: log.append([payload], _SIZE))  # type: ignore[misc]
        ledger.note("request", first, _SIZE)
    with suppress(StorageError):
        log.close()


def _receive(root: Path, ledger: Ledger) -> None:
    """And the log is sealed at once, while the kernel still holds what perhaps never reached the disk."""
    _take(root, ledger)
    _seal(root, ledger)


def _insist(step: Callable[[], Any]) -> Any:
    """Do what failed again, as a client does."""
    for _ in range(3):
        with suppress(StorageError):
            return step()
    return step()


RECORD = Work("record", _record_and_seal, pledged=False)
SEAL = Work("seal", _seal, pledged=True, prepare=_recorded)
RECEIVE = Work("receive", _receive, pledged=True)
WORKS = (RECORD, SEAL, RECEIVE)
# What the log alone owes shows where it is not sealed; each crash of it is one of RECEIVE, each failure is not.
TAKE = Work("take", _take, pledged=True)


def recovered(root: Path) -> Callable[[Tap], dict[str, Any]]:
    """The action that recovers what a crash left, twice, and tells what is there then."""

    def action(tap: Tap) -> dict[str, Any]:
        directory = root / ID
        first = recover(directory, tool_version=VERSION)
        count = tap.count
        again = recover(directory, tool_version=VERSION)
        recording = open_recording(directory)
        return {
            "rows": recording.spans().select(COLUMNS).to_pylist(),
            "gaps": recording.gaps().to_pylist(),
            "manifest": recording.manifest.to_dict(),
            "same": first.manifest.sha256 == again.manifest.sha256 == recording.manifest.sha256,
            "files": sorted(str(path.relative_to(directory)) for path in directory.rglob("*")),
            "idle": tap.count == count,
        }

    return action
