"""What each producer's log says about itself, segment by segment, and what is therefore missing from it.

A segment is judged only beside the others of its producer: numbers go on from one to the next, so a segment that is
missing, cut or unreadable shows by the numbers that are nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fencepost_recorder.gaps import Gap, Gaps
from fencepost_recorder.logs import Log
from fencepost_recorder.manifest import SURVIVES_KILL, SURVIVES_POWER_LOSS, Producer
from fencepost_recorder.wal import UNRECORDED_FORK, Break, Ending, Header, LogReader, Loss

IMPORT_KIND = "import"
RECEIVER_KIND = "receiver"
_MISSING = "frames are missing from the middle of the log"


@dataclass(slots=True)
class SegmentAccount:
    """What was found in one segment; `header` is None where it could not be read.

    `next_seq` is the number after its last frame, `noted` what NOTE frames say was lost, as closed ranges.
    """

    producer: str
    segment: int
    header: Header | None
    locked_now: bool = False
    frames: int = 0
    next_seq: int = 0
    last_time_unix_nano: int | None = None
    closed: bool = False
    continued: bool = False
    ending: Ending = Ending.CLEAN
    reason: str = ""
    offset: int = 0
    unread_bytes: int = 0
    breaks: list[Break] = field(default_factory=list)
    noted: list[tuple[int, int]] = field(default_factory=list)
    loss: Loss | None = None
    loss_damaged: bool = False

    @classmethod
    def of(cls, log: Log) -> SegmentAccount:
        """The account of a segment that is yet to be read."""
        return cls(log.producer, log.segment, log.header, log.locked_now)

    @property
    def kind(self) -> str:
        """What wrote it: process, receiver or import."""
        return self.header.kind if self.header is not None else ""

    def finish(self, reader: LogReader) -> None:
        """Take over what a reader knows that has read to the end."""
        self.next_seq = reader.next_sequence
        self.last_time_unix_nano = reader.last_time_unix_nano
        self.closed, self.continued = reader.closed, reader.continued
        self.ending, self.reason = reader.ending, reader.reason
        self.offset, self.unread_bytes = reader.offset, reader.unread_bytes
        self.breaks = reader.breaks
        self.loss, self.loss_damaged = reader.loss, reader.loss_damaged


def settle(segments: list[SegmentAccount], gaps: Gaps) -> Producer:
    """Add the gaps of one producer's log, whose segments these are in their order; its line in the manifest."""
    readable = [one for one in segments if one.header is not None]
    if not readable:
        first = segments[0]
        reason = first.reason or "its name is not that of its producer"
        gaps.add(Gap("torn_tail", first.producer, 0, detail=f"the log could not be read: {reason}"))
        return Producer(first.producer, None, None, None, 0, None, "damaged", SURVIVES_KILL)
    header = readable[0].header
    assert header is not None
    told = [bounds for one in segments for bounds in one.noted]
    for one in readable:
        _told_losses(one, told, gaps)
    due = _numbers(segments, told, gaps)
    ended = _tail(segments, due, gaps)
    if header.kind == RECEIVER_KIND and ended == "died":
        # Its clients' processes may well have outlived it, as a command outlives a killed `fencepost record`.
        since = readable[-1].last_time_unix_nano or _begun(header)
        detail = "the receiver was killed: what was sent to it afterwards, and by whom, cannot be seen"
        gaps.add(Gap("unsequenced", since_unix_nano=since, detail=detail))
    return Producer(
        producer=header.producer,
        pid=header.pid,
        host=header.host,
        started_unix_nano=header.started_unix_nano,
        frames=sum(one.frames for one in readable),
        last_seq=due - 1 if due else None,
        ended=ended,
        durability=durability_of(header.kind),
        kept=header.kept,
    )


def durability_of(kind: str) -> str:
    """What the frames of a log of that kind survive."""
    return SURVIVES_POWER_LOSS if kind == RECEIVER_KIND else SURVIVES_KILL


def _told_losses(one: SegmentAccount, told: list[tuple[int, int]], gaps: Gaps) -> None:
    if one.loss_damaged and one.header is not None:
        detail = "the record of frames that could not be written is damaged"
        gaps.add(Gap("write_failed", one.producer, since_unix_nano=one.header.begun_unix_nano, detail=detail))
    loss = one.loss
    if loss is not None and (loss.first_seq, loss.last_seq) == UNRECORDED_FORK:
        why = f"could not begin a log (errno {loss.errno})"
        detail = f"a process that {one.producer} forked went on unrecorded: it {why}"
        gaps.add(Gap("unrecorded", since_unix_nano=loss.since_unix_nano, detail=detail))
    elif loss is not None and (loss.first_seq, loss.last_seq) not in told:
        told.append((loss.first_seq, loss.last_seq))
        gaps.add(_gap_of_loss(one.producer, loss))


def _numbers(segments: list[SegmentAccount], told: list[tuple[int, int]], gaps: Gaps) -> int:
    """Add a gap for the numbers that are nowhere; the number after the last one."""
    due, since, before = 0, 0, None
    for one in segments:
        if one.header is None:
            before = one
            continue
        missing = [Break(due, one.header.first_seq - 1, since or one.header.started_unix_nano, _begun(one.header))]
        why = _why(before)
        for broken in (*missing, *one.breaks):
            for first, last in without(max(broken.first_seq, due), broken.last_seq, told):
                times = (broken.since_unix_nano, broken.until_unix_nano)
                gaps.add(Gap("sequence_break", one.producer, first, last, *times, last - first + 1, why))
            why = _MISSING
        due, before = max(due, one.next_seq), one
        since = one.last_time_unix_nano or _begun(one.header)
    return due


def _why(before: SegmentAccount | None) -> str:
    """Why numbers are missing where a segment begins, given what comes before it."""
    if before is None or (before.header is not None and before.ending is Ending.CLEAN):
        return "a segment of the log is missing"
    return f"a segment of the log {_state(before)}"


def _state(one: SegmentAccount) -> str:
    if one.header is None:
        return f"could not be read: {one.reason or 'its name is not that of its producer'}"
    return f"is {one.ending.value} at byte {one.offset}: {one.reason}; {one.unread_bytes} bytes were not read"


def _tail(segments: list[SegmentAccount], due: int, gaps: Gaps) -> str:
    """How the log ends; where that is no clean end, what comes after it is unknown."""
    last = segments[-1]
    whole = next((one for one in reversed(segments) if one.header is not None), last)
    if last.header is None and last.ending is Ending.TORN and not whole.continued:
        last = whole  # killed where it was about to begin a segment: nothing was written to it yet
    since = whole.last_time_unix_nano or (_begun(whole.header) if whole.header is not None else None)
    if last.locked_now or (last.header is not None and not last.header.locked and not last.closed):
        detail = (
            "the process was still recording when the recording was sealed"
            if last.locked_now
            else "whether the process was still recording could not be told"
        )
        gaps.add(Gap("still_recording", last.producer, due, None, since, detail=detail))
        return "still_recording"
    if last.header is None or last.ending is not Ending.CLEAN:
        gaps.add(Gap("torn_tail", last.producer, due, None, since, detail=f"the log {_state(last)}"))
        return "damaged"
    if last.continued:
        gaps.add(Gap("torn_tail", last.producer, due, None, since, detail="the last segment of the log is missing"))
        return "damaged"
    return "closed" if last.closed else "died"


def _begun(header: Header) -> int:
    return header.begun_unix_nano or header.started_unix_nano


def _gap_of_loss(producer: str, loss: Loss) -> Gap:
    return Gap(
        "write_failed",
        producer,
        loss.first_seq,
        loss.last_seq,
        loss.since_unix_nano,
        loss.until_unix_nano,
        loss.lost,
        f"frames could not be written (errno {loss.errno})",
    )


def without(first: int, last: int, known: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The closed range without the closed ranges `known`."""
    for start, stop in sorted(known):
        if stop < first or start > last:
            continue
        if first < start:
            yield first, start - 1
        first = stop + 1
    if first <= last:
        yield first, last
