"""What of an imported file could not be read, as notes of the log: one each, and beyond 200 one for the rest.

A file of 60 MB may hold twenty million spans that are none. All are counted; the log does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fencepost_recorder.errors import printable
from fencepost_recorder.gaps import Gap
from fencepost_recorder.otlp import Poison

MAX_NOTES = 200
# Files choose their producers: beyond these, nobody's name stands at what was lost.
_MAX_PRODUCERS = 32
_MAX_DETAIL = 500


@dataclass(slots=True)
class _Rest:
    """What one producer lost beyond the notes; times as in `Gap`, spans only where their number is known."""

    why: str
    parts: int = 0
    spans: int = 0
    since: int | None = None
    until: int | None = None

    def add(self, poison: Poison) -> None:
        since, until = poison.since_unix_nano, poison.until_unix_nano
        if since is not None and until is not None and since > until:
            since = until = None
        # Unbounded is unbounded, whatever else there is.
        if not self.parts:
            self.since, self.until = since, until
        else:
            self.since = None if self.since is None or since is None else min(self.since, since)
            self.until = None if self.until is None or until is None else max(self.until, until)
        self.parts += 1
        self.spans += poison.lost or 0


class Unread:
    """Notes what could not be read of the file `name`, by `note`."""

    def __init__(self, name: str, note: Callable[[Gap], None]) -> None:
        self._name = name
        self._note = note
        self._noted = 0
        # By producer, and whether it is known how many spans were lost.
        self._rest: dict[tuple[str | None, bool], _Rest] = {}

    def add(self, poison: Poison, producer: str | None) -> None:
        """Note something of a producer, if that is known."""
        if self._noted < MAX_NOTES:
            self._noted += 1
            since, until = poison.since_unix_nano, poison.until_unix_nano
            self._gap(producer, since, until, poison.lost, poison.why)
            return
        key = (producer, poison.lost is not None)
        if key not in self._rest and len(self._rest) >= _MAX_PRODUCERS:
            key = (None, poison.lost is not None)
        rest = self._rest.get(key)
        if rest is None:
            rest = self._rest[key] = _Rest(poison.why)
        rest.add(poison)

    def close(self) -> None:
        """Note the rest."""
        for (producer, known), rest in self._rest.items():
            why = f"{rest.parts:,} times more something could not be read, first this: {rest.why}"
            self._gap(producer, rest.since, rest.until, rest.spans if known else None, why)
        self._rest.clear()

    def _gap(self, producer: str | None, since: int | None, until: int | None, lost: int | None, why: str) -> None:
        detail = printable(f"{self._name}: {why}", _MAX_DETAIL)
        self._note(Gap("poison_span", producer, since_unix_nano=since, until_unix_nano=until, lost=lost, detail=detail))
