"""Every error the analyzer raises on purpose: one tree, one sentence each, with the way out."""

from __future__ import annotations


class AnalyzerError(Exception):
    """The analyzer cannot do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SqlFileError(AnalyzerError):
    """A SQL file has a header that does not follow the rules."""


class MappingError(AnalyzerError):
    """A mapping cannot turn spans into events."""


class InvariantError(AnalyzerError):
    """An invariant cannot be loaded: its id collides with another's, or does not exist."""


class EventsError(AnalyzerError):
    """A table of events does not have the columns that events have."""


class NotReplayable(AnalyzerError):
    """The recording does not say enough to be run again."""


class OutOfTime(AnalyzerError):
    """The scenario is cut off by its time, an hour at most, so nobody knows what it would break: shorten its leases."""


class QueryError(AnalyzerError):
    """The query could not be answered."""
