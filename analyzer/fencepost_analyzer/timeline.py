"""What happened to each job, line by line, in words that an on-call engineer reads at night.

All texts are raw: they hold names from the recording, so escape them where they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fencepost_analyzer import text
from fencepost_analyzer.database import resource, rows
from fencepost_analyzer.verdicts import Report

if TYPE_CHECKING:
    import duckdb

    from fencepost_analyzer.case import Case

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One moment: `at` is nanoseconds since the recording's first span (None: nobody knows), `marks` the invariants
    that it is a witness against."""

    at: int | None
    who: str
    event: str
    what: str
    span_id: str | None
    marks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "at_ns": self.at,
            "who": self.who,
            "event": self.event,
            "what": self.what,
            "span_id": self.span_id,
            "marks": list(self.marks),
        }


@dataclass(frozen=True, slots=True)
class Story:
    """One job's lines in order; `more` lines were left out."""

    job_id: str
    queue: str | None
    lines: tuple[Line, ...]
    more: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "queue": self.queue,
            "lines": [line.to_dict() for line in self.lines],
            "more_lines": self.more,
        }


def marks_of(report: Report) -> dict[str, tuple[str, ...]]:
    """Span id → the invariants that it is a witness against; with a question mark where that is not certain."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        for witness in finding.witnesses:
            mark = finding.id if witness.verdict == "violated" else f"{finding.id}?"
            for span_id in witness.span_ids:
                if not {mark, finding.id} & set(found.setdefault(span_id, [])):
                    found[span_id].append(mark)
    return {span_id: tuple(marks) for span_id, marks in found.items()}


def suspects(report: Report) -> list[str]:
    """The jobs that witnesses name, those that surely violated something before the others."""
    witnesses = [witness for finding in report.findings for witness in finding.witnesses]
    witnesses.sort(key=lambda witness: witness.verdict != "violated")
    return list(dict.fromkeys(witness.job_id for witness in witnesses if witness.job_id is not None))


def stories(case: Case, *, jobs: int | None = None, job: str | None = None, lines: int) -> tuple[list[Story], int]:
    """The stories of at most `jobs` jobs of a case (None: of those that witnesses name), these before the others, or
    of one `job` alone, each of at most `lines` lines; and how many jobs there are in all."""
    job = _meant(case, job) if job is not None else None
    first = [job] if job is not None else suspects(case.report)
    most = len(first) if jobs is None or job is not None else jobs
    chosen, total = choose_jobs(case.connection, first, most)
    wanted = [one for one in chosen if job in (None, one[0])]
    since, marks = beginning(case.connection), marks_of(case.report)
    return tell(case.connection, wanted, since=since, marks=marks, most=lines), total


def _meant(case: Case, job: str) -> str:
    """The job of that id, or else the one that is shown so: what was escaped for a terminal is typed as it was read."""
    names = {str(row[0]) for row in case.connection.execute("SELECT DISTINCT job_id FROM events").fetchall()}
    return job if job in names else next((name for name in sorted(names) if text.safe(name, None) == job), job)


def beginning(connection: duckdb.DuckDBPyConnection) -> int:
    """The start of the earliest span, in Unix nanoseconds; 0 when there is none."""
    row = connection.execute("SELECT min(start_time_unix_nano) FROM spans WHERE start_time_unix_nano > 0").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def choose_jobs(
    connection: duckdb.DuckDBPyConnection, first: Sequence[str], most: int
) -> tuple[list[tuple[str, str | None]], int]:
    """(job, queue) of at most `most` jobs, those in `first` before the others; and how many there are in all."""
    # One more than asked for costs nothing and keeps the total when no job is asked for.
    values = {"first": list(first), "most": max(most, 1)}
    found = connection.execute(resource("stories/jobs.sql"), values).fetchall()
    return [(row[0], row[1]) for row in found[:most]], int(found[0][2]) if found else 0


def tell(
    connection: duckdb.DuckDBPyConnection,
    jobs: Sequence[tuple[str, str | None]],
    *,
    since: int,
    marks: Mapping[str, tuple[str, ...]],
    most: int,
) -> list[Story]:
    """The stories of `jobs`, in that order, each of at most `most` lines; `since` in Unix nanoseconds is their +0."""
    found = rows(connection.execute(resource("stories/lines.sql"), {"jobs": [job_id for job_id, _ in jobs]}))
    told = {
        job_id: [_line(row, since, marks) for row in group]
        for job_id, group in groupby(found, lambda row: row["job_id"])
    }
    return [_story(job_id, queue, told.get(job_id, []), most) for job_id, queue in jobs]


def _story(job_id: str, queue: str | None, lines: list[Line], most: int) -> Story:
    """The first lines; but those that a verdict rests on are kept however late they come."""
    if len(lines) <= most:
        return Story(job_id, queue, tuple(lines))
    late = [number for number in range(most, len(lines)) if lines[number].marks]
    chosen = [*range(max(most - len(late), 1)), *late][:most]
    return Story(job_id, queue, tuple(lines[number] for number in chosen), len(lines) - len(chosen))


def _line(row: Row, since: int, marks: Mapping[str, tuple[str, ...]]) -> Line:
    at = row["at"] - since if row["at"] is not None else None
    # A run's end stands on the same span as its beginning; one mark is enough.
    found = marks.get(row["span_id"], ()) if row["event"] != "end" else ()
    return Line(at, row["worker_id"] or "-", row["event"], _what(row, since), row["span_id"], found)


def _what(row: Row, since: int) -> str:
    event = row["event"]
    words = _WORDS.get(event)
    if words is None:
        return f"{event}{_because(row)}"
    done, refused, unanswered = words
    pattern = {"ok": done, "failed": refused}.get(row["outcome"], unanswered)
    sentence = pattern.format(
        attempt=f"attempt {row['attempt']}" if row["attempt"] is not None else "an attempt",
        lease=f"lease {row['token']}" if row["token"] is not None else "the lease",
        effect=_or(row["effect_key"], "something"),
        effects=_effects(row["effect_total"]),
        until=text.offset(row["until"] - since) if row["until"] is not None else "an unknown time",
        reason=_or(row["reason"], "no reason given"),
    )
    return f"{sentence}{_because(row)}" if event not in _TELL_REASON else sentence


def _effects(total: int | None) -> str:
    """Systems that do not say how many effects a job has are not said to have none."""
    return f", {text.counted(total, 'effect')} to make" if total is not None else ""


# event: (it was done, it was refused, nobody knows). Braces are filled with text that is still raw.
_WORDS = {
    "enqueue": ("enqueued{effects}", "enqueue refused", "enqueue never answered"),
    "lease": ("took the job: {attempt}, {lease} until {until}", "lease refused", "lease never answered"),
    "run": ("began {attempt}", "began {attempt}", "began {attempt}"),
    "end": ("finished {attempt}", "gave up {attempt}", "left {attempt}, outcome unknown"),
    "renew": ("renewed {lease} until {until}", "renewal of {lease} refused", "renewal never answered"),
    "write": ("wrote {effect}", "write of {effect} refused", "write of {effect} never answered"),
    "ack": ("acknowledged", "acknowledgement refused", "acknowledgement never answered"),
    "fail": ("reported failure", "failure report refused", "failure report never answered"),
    "dead_letter": ("buried as a dead letter", "burial refused", "burial never answered"),
    "retry": ("gave it back, to be tried again from {until}", "giving back refused", "giving back never answered"),
    "reclaim": ("took back {lease}", "taking back {lease} refused", "taking back never answered"),
    "inventory": ("inventory: the queue still holds it ({reason})",) * 3,
    "crash": ("CRASHED ({reason})",) * 3,
    "pause": ("STOPPED ({reason})",) * 3,
    "resume": ("woke up ({reason})",) * 3,
}
_TELL_REASON = ("inventory", "crash", "pause", "resume")


def _because(row: Row) -> str:
    if row["event"] == "ack" and row["reason"] == "early":
        return " before the work was done"
    if row["event"] == "run":
        return "" if row["until"] is not None else ", and never ended it"
    if row["reason"] is None:
        return ""
    return f" ({row['reason']})"


def _or(value: object, otherwise: str) -> str:
    return otherwise if value is None else str(value)


def as_text(stories: Iterable[Story]) -> list[str]:
    """The stories as plain lines, aligned and safe: for pages, which have no columns."""
    found: list[str] = []
    for story in stories:
        queue = f", queue {text.safe(story.queue)}" if story.queue else ""
        found += [*([""] if found else []), f"job {text.safe(story.job_id)}{queue}", *_aligned(story)]
    return found


def _aligned(story: Story) -> list[str]:
    rows = [(when(line), text.safe(line.who, 60), text.safe(line.what)) for line in story.lines]
    times, names, words = (max((text.width(row[column]) for row in rows), default=0) for column in range(3))
    # One very long line must not push the marks of all the others out of sight.
    words = min(words, 72)
    lines = []
    for (at, who, what), line in zip(rows, story.lines, strict=True):
        marks = " " * max(words - text.width(what), 0) + f"  <- {', '.join(line.marks)}" if line.marks else ""
        lines.append(f"  {at:>{times}}  {who}{' ' * (names - text.width(who))}  {what}{marks}")
    return [*lines, f"  … {text.counted(story.more, 'more line')}"] if story.more else lines


def when(line: Line) -> str:
    return text.offset(line.at) if line.at is not None else "?"
