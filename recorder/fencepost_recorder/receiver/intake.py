"""What becomes of a request, whichever way it came: screened, put on disk, and only then acknowledged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

from fencepost_recorder.errors import Overloaded, StorageError, printable
from fencepost_recorder.receiver.answers import JSON, TRACES, Problem, Refusal, Signal, Taken
from fencepost_recorder.receiver.jsonbody import screen_json
from fencepost_recorder.receiver.limits import MIB, Limits, Tally
from fencepost_recorder.receiver.others import count_items
from fencepost_recorder.receiver.screening import Poison, Redaction, Screened, screen
from fencepost_recorder.wire import Buffer

_LARGE_BYTES = MIB
_MAX_DETAIL = 300
_MAX_NOTES = 200

# After these a client of OTLP gives its spans up, so they are missing for good.
_LOSSES = frozenset(
    {
        Problem.UNREADABLE,
        Problem.TOO_SLOW,
        Problem.NO_LENGTH,
        Problem.TOO_LARGE,
        Problem.MEDIA_TYPE,
        Problem.DEFECT,
        Problem.NOT_IMPLEMENTED,
    }
)


class Log(Protocol):
    """Where requests are kept."""

    def append(self, payload: Sequence[Buffer], spans: int, notes: Sequence[bytes] = ()) -> None:
        """Keep a request in pieces, unless it has no spans, and notes (JSON) of what is missing from it.

        Returns once all of it is on disk. Raises StorageError when it could not be kept, Overloaded when there is
        no room for it now.
        """


class Intake:
    """Takes the bodies of requests, decompressed, from any number of threads."""

    def __init__(self, log: Log, limits: Limits, tally: Tally, redaction: Redaction | None = None) -> None:
        self._log = log
        self._limits = limits
        self._tally = tally
        self._redaction = redaction
        # Screening takes memory in proportion to a request. Large ones wait for each other, which costs no time: they
        # could not run at once anyway.
        self._large = threading.Lock()
        self._noted: dict[Problem, int] = {}
        self._noting = threading.Lock()

    def take(self, signal: Signal, body: Buffer, encoding: str) -> Taken:
        """Keep a request; what is not kept of it is told in the answer. Raises Refusal."""
        with self._large if len(body) > _LARGE_BYTES else nullcontext():
            if signal is not TRACES:
                return self._count_only(signal, body, encoding)
            screened = self._screened(body, encoding)
        rejected = sum(poison.spans for poison in screened.poison)
        if screened.spans or rejected:
            self._append(screened.payload, screened.spans, [_poison_note(poison) for poison in screened.poison])
        size = sum(map(len, screened.payload)) if screened.spans else 0
        self._tally.kept(screened.spans, size, rejected)
        return Taken(TRACES, rejected, _told(screened.poison) if rejected else "")

    def refuse(self, refusal: Refusal, signal: Signal | None) -> Refusal:
        """Count a request that is turned away, of a signal if that is known; what to answer.

        Spans that will not come again are noted as missing before their sender is told. Where even that cannot be
        written, the sender is asked to come again.
        """
        problem = refusal.problem
        if problem is not Problem.BUSY and signal is TRACES and problem in _LOSSES:
            try:
                self._note(refusal)
            except Refusal as busy:
                refusal = busy
        if refusal.problem is Problem.BUSY:
            self._tally.busy()
        else:
            self._tally.refused(problem.reason)
        return refusal

    def _screened(self, body: Buffer, encoding: str) -> Screened:
        if encoding != JSON:
            return screen(body, self._limits, self._redaction)
        found = screen_json(body, self._limits)
        if self._redaction is None:
            return found
        again = screen(b"".join(found.payload), self._limits, self._redaction)
        return Screened(again.payload, again.spans, [*found.poison, *again.poison])

    def _count_only(self, signal: Signal, body: Buffer, encoding: str) -> Taken:
        rejected = count_items(signal, body, encoding, self._limits)
        self._tally.kept(0, 0, 0)
        return Taken(signal, rejected, f"fencepost records traces, not {signal.name}: nothing of this was kept")

    def _append(self, payload: Sequence[Buffer], spans: int, notes: Sequence[bytes]) -> None:
        try:
            self._log.append(payload, spans, notes)
        except Overloaded as error:
            raise Refusal(Problem.BUSY, str(error)) from error
        except StorageError as error:
            # Where the recordings lie is no business of who sends.
            self._tally.trouble(str(error))
            raise Refusal(Problem.BUSY, "the request could not be written to disk: send it again") from error

    def _note(self, refusal: Refusal) -> None:
        with self._noting:
            number = self._noted.get(refusal.problem, 0) + 1
            self._noted[refusal.problem] = number
        if number <= _MAX_NOTES:
            # Who sent it cannot be known, nor how old its spans were.
            last = number == _MAX_NOTES
            detail = f"a request was refused, {refusal.problem.reason}: {refusal.message}"
            if last:
                detail = f"requests were refused again and again, {refusal.problem.reason}"
            self._append((), 0, [_note("refused", detail, until_unix_nano=None if last else time.time_ns())])


def _poison_note(poison: Poison) -> bytes:
    return _note(
        "poison_span",
        f"spans that could not be read were rejected: {poison.reason}",
        producer=poison.producer,
        since_unix_nano=poison.since_unix_nano,
        until_unix_nano=poison.until_unix_nano,
        lost=poison.spans,
    )


def _note(cause: str, detail: str, **values: Any) -> bytes:
    """The payload of a NOTE frame: a row of `gaps`."""
    empty = dict.fromkeys(("producer", "first_seq", "last_seq", "since_unix_nano", "until_unix_nano", "lost"))
    return json.dumps({**empty, "cause": cause, "detail": printable(detail, _MAX_DETAIL), **values}).encode()


def _told(poisons: Sequence[Poison]) -> str:
    """The sentence for partial_success."""
    reasons = "; ".join(f"{poison.spans:,} because {poison.reason}" for poison in poisons[:3])
    more = f"; {len(poisons) - 3} more reasons" if len(poisons) > 3 else ""
    return f"spans that could not be read were left out: {reasons}{more}"
