"""`show`: what a recording holds, and the story of its jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.failures import UsageError
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, Run, session
from fencepost_analyzer.render import Column, Output, Part, Styled, bold, command, dim
from fencepost_analyzer.reports import print_story

if TYPE_CHECKING:
    from fencepost_analyzer.overview import Overview

MAX_LINES = 40
MAX_LINES_OF_ONE_JOB = 1_000
MAX_PRODUCERS = 12

_ENDINGS = {"died": "bold red", "damaged": "bold red", "still_recording": "yellow"}


def register(app: typer.Typer) -> None:
    app.command("show", short_help="What a recording holds, job by job.")(show)


def show(
    context: typer.Context,
    run: Run,
    job: Annotated[str | None, typer.Option("--job", metavar="ID", help="Only this job, in full.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=0, help="How many jobs to tell of.")] = 5,
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Show what a recording holds, and the story of its jobs: who leased, wrote, crashed, and when.

    \b
      fencepost show latest
      fencepost show latest --job pay-2
      fencepost show latest --jobs 50

    Times are milliseconds since the recording's first span. Jobs that broke a promise come first, and the lines that
    prove it name the invariant.
    """
    from fencepost_analyzer import timeline
    from fencepost_analyzer.overview import overview

    here = session(context, recordings, as_json)
    lines = MAX_LINES if job is None else MAX_LINES_OF_ONE_JOB
    with here.out.working("reading …"), here.case(run, invariants, mappings) as case:
        held = overview(case)
        stories, total = timeline.stories(case, jobs=jobs, job=job, lines=lines)
    if job is not None and not stories:
        raise UsageError(f"recording {held.recording} has no job {job!r}: see `fencepost show {run}`")
    if here.out.as_json:
        more = total - len(stories) if job is None else 0
        told = {"stories": [story.to_dict() for story in stories], "more_jobs": more}
        here.out.document({**held.to_dict(), **told})
        return 0
    if job is None:
        print_overview(here.out, held)
    for story in stories:
        here.out.blank()
        print_story(here.out, story)
    if job is None and total > len(stories):
        here.out.blank()
        here.out.line(dim(f"… {text.counted(total - len(stories), 'more job')}: "), command(f"--jobs {total}"))
    return 0


def print_overview(out: Output, held: Overview) -> None:
    """Who recorded what, for how long, and what is missing."""
    rows: list[tuple[str, Part]] = [("recording", bold(held.recording)), ("recorded", _when(held))]
    if held.announced is not None:
        policies = [f"{queue} under {policy}" for queue, policy in held.announced.policies.items()]
        stated = f"{held.announced.scenario.id}: {text.listed(policies)}, seed {held.announced.seed}"
        rows.append(("scenario", stated))
    made = f"fencepost {held.tool_version}" + (f", commit {held.commit[:12]}" if held.commit else "")
    rows += [("made by", made), ("spans", _spans(held)), ("events", _events(held))]
    rows += [("unmapped", f"no mapping knows the spans of {scope or '(no scope)'}") for scope in held.unmapped]
    rows.append(("gaps", _gap_words(held)))
    rows += [("", Styled(sentence, "yellow")) for sentence in gap_sentences(held.gaps)]
    if held.gap_count > len(held.gaps):
        rows.append(("", dim(f"… {text.counted(held.gap_count - len(held.gaps), 'more gap')}")))
    for name, value in rows:
        out.item(f"{name:<11}", value)
    _print_producers(out, held.producers, held.endings)


def _when(held: Overview) -> str:
    if held.began_unix_nano is None or held.lasted_ns is None:
        return text.moment(held.created)
    began = datetime.fromtimestamp(min(held.began_unix_nano / 1e9, 253_000_000_000), UTC)
    return f"{text.moment(began)}, for {text.duration(held.lasted_ns)}"


def _spans(held: Overview) -> str:
    extra = [
        f"{held.unfinished:,} never ended" if held.unfinished else "",
        f"{held.duplicates:,} came twice and {'was' if held.duplicates == 1 else 'were'} kept once"
        if held.duplicates
        else "",
    ]
    return ", ".join([f"{held.spans:,}", *filter(None, extra)])


def _events(held: Overview) -> str:
    counts = ", ".join(f"{count:,} {event}" for event, count in held.events.items())
    return f"{text.counted(held.jobs, 'job')}: {counts}" if counts else "none: no mapping made events of these spans"


def _gap_words(held: Overview) -> Part:
    if held.gap_count == 0:
        return "none: nothing is known to be missing"
    return Styled(f"{text.counted(held.gap_count, 'gap')}: what rests on absence may be unknown", "yellow")


def gap_sentences(gaps: list[dict[str, Any]]) -> list[str]:
    """What is known of the gaps, those of one kind in one line of raw text."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for gap in gaps:
        kinds.setdefault((gap["cause"], gap["detail"] or ""), []).append(gap)
    return [_gap_sentence(cause, detail, found) for (cause, detail), found in kinds.items()]


def _gap_sentence(cause: str, detail: str, found: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(gap["producer"] for gap in found if gap["producer"] is not None))
    who = f" of {names[0]}" if len(names) == 1 else f" of {len(names):,} processes" if names else ""
    known = all(gap["lost"] is not None for gap in found)
    lost = text.lost(cause, sum(gap["lost"] or 0 for gap in found) if known else None)
    return f"{cause}{who}, {lost}" + (f": {detail}" if detail else "")


def _print_producers(out: Output, producers: list[dict[str, Any]], endings: dict[str, str]) -> None:
    if not producers:
        return
    out.blank()
    columns = [
        Column("process", whole=True),
        Column("pid", right=True, spare=True),
        Column("host", spare=True),
        Column("frames", right=True),
        Column("how it ended"),
    ]
    rows: list[list[Part]] = [
        [
            one["producer"],
            "-" if one["pid"] is None else str(one["pid"]),
            one["host"] or "-",
            f"{one['frames']:,}",
            _ending(one["ended"], endings.get(one["producer"])),
        ]
        for one in producers[:MAX_PRODUCERS]
    ]
    out.table(columns, rows)
    if len(producers) > MAX_PRODUCERS:
        out.line(dim(f"… {text.counted(len(producers) - MAX_PRODUCERS, 'more process', 'more processes')}"))


def _ending(ended: str, seen: str | None) -> Part:
    """A log that was not closed says no more than that; who was seen to end may have left in good order."""
    if ended != "died" or seen is None:
        return Styled(ended, _ENDINGS.get(ended, ""))
    return Styled(seen, "" if seen == "exited with 0" else _ENDINGS["died"])
