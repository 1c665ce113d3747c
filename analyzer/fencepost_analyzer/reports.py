"""Verdicts, replays and stories as people read them; the commands and the demo print them alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from fencepost_analyzer import text
from fencepost_analyzer.render import Column, Output, Part, Styled, bold, command, dim, verdict

if TYPE_CHECKING:
    from fencepost_analyzer.canonical import Divergence
    from fencepost_analyzer.live import Live
    from fencepost_analyzer.replay import Replay
    from fencepost_analyzer.timeline import Line, Story
    from fencepost_analyzer.verdicts import Finding, Report, Witness

_SEVERITIES = {"critical": "red", "high": "yellow"}
_ORDER = {"violated": 0, "unknown": 1, "holds": 2}
_EVENT_STYLES = {"crash": "bold red", "pause": "bold yellow", "resume": "bold yellow"}


def print_report(out: Output, report: Report, name: str, witnesses: int) -> None:
    """The merged verdict, the table of all invariants, then the witnesses of those that do not hold."""
    out.line(verdict(report.verdict), _summary(report))
    out.line(dim(f"{name}: {_extent(report)}"))
    for scope in report.unmapped:
        out.line(Styled(f"no mapping knows the spans of {scope or '(no scope)'}: they were not judged", "yellow"))
    out.blank()
    print_findings(out, report)
    for finding in sorted(report.findings, key=lambda one: _ORDER[one.verdict]):
        if finding.verdict != "holds":
            out.blank()
            print_finding(out, finding, witnesses)


def print_findings(out: Output, report: Report, *, indent: int = 0) -> None:
    """One row an invariant."""
    columns = [
        Column("invariant", style="bold", whole=True),
        Column("promise"),
        Column("verdict", whole=True),
        Column("cases", right=True),
        Column("severity", spare=True),
    ]
    out.table(columns, [_finding_row(finding) for finding in report.findings], indent=indent)


def print_finding(out: Output, finding: Finding, witnesses: int) -> None:
    """What one invariant found, shortest witness first, and what is missing."""
    out.line(bold(finding.id), f" {finding.title}: ", verdict(finding.verdict), f". {finding.reason}")
    for number, witness in enumerate(finding.witnesses[:witnesses], start=1):
        out.item(f"{number}. ", witness.sentence, indent=2)
        out.item("   ", dim(_where(witness)), indent=2)
    shown = min(witnesses, len(finding.witnesses))
    more = finding.violations + finding.unknowns - shown
    if more > 0:
        # Ten witnesses travel in a report; the query that found them lists every one.
        kept = len(finding.witnesses) > shown
        how = "--witnesses 10" if kept else f"the SQL of `fencepost invariants {finding.id}` lists them all"
        out.line(dim(f"… {text.counted(more, 'more case')}: {how}"), indent=2)


def _summary(report: Report) -> str:
    """Which promises made the verdict, and how many hold."""
    named = {name: [one.id for one in report.findings if one.verdict == name] for name in _ORDER}
    if len(named["holds"]) == len(report.findings):
        return f": all {len(report.findings)} promises"
    first = [", ".join(named[report.verdict])]
    rest = [f"unknown: {', '.join(named['unknown'])}"] if report.verdict == "violated" and named["unknown"] else []
    holds = [f"{len(named['holds'])} hold{'s' if len(named['holds']) == 1 else ''}"] if named["holds"] else []
    return ": " + "; ".join([*first, *rest, *holds])


def _extent(report: Report) -> str:
    jobs, events = text.counted(report.jobs, "job"), text.counted(report.events, "event")
    return f"{events} of {jobs}, {text.counted(report.gaps, 'gap')}"


def _finding_row(finding: Finding) -> list[Part]:
    cases = finding.violations or finding.unknowns
    return [
        finding.id,
        finding.title,
        verdict(finding.verdict),
        f"{cases:,}" if cases else "-",
        Styled(finding.severity, _SEVERITIES.get(finding.severity, "") if finding.verdict == "violated" else "dim"),
    ]


def _where(witness: Witness) -> str:
    spans = ", ".join(witness.span_ids[:6]) + (", …" if len(witness.span_ids) > 6 else "")
    parts = [f"job {witness.job_id}" if witness.job_id is not None else "", f"spans {spans}" if spans else ""]
    return "  ".join(filter(None, parts))


def print_story(out: Output, story: Story, *, indent: int = 0) -> None:
    """One job, line by line, with the invariants that a line is a witness against."""
    out.line("job ", bold(story.job_id), dim(f"  queue {story.queue}") if story.queue else "", indent=indent)
    columns = [
        Column("", right=True, style="dim", whole=True),
        Column("", style="dim", whole=True),
        Column(""),
        Column("", style="bold red", whole=True),
    ]
    out.table(columns, [_cells(line) for line in story.lines], indent=indent + 2, titles=False)
    if story.more:
        out.line(
            dim(f"… {text.counted(story.more, 'more line')}: "), command(f"--job {story.job_id}"), indent=indent + 2
        )


def _cells(line: Line) -> list[Part]:
    from fencepost_analyzer.timeline import when

    style = _EVENT_STYLES.get(line.event, "")
    return [when(line), line.who, Styled(line.what, style), f"<- {', '.join(line.marks)}" if line.marks else ""]


def print_verify(out: Output, done: Replay) -> None:
    """Whether the replayed history is the recorded one, and if not, where they part."""
    answer = Styled("equal", "green", "✓ ") if done.equal else Styled("not equal", "bold red", "✗ ")
    out.line(bold("verify "), done.recording, ": ", answer)
    out.line(_same_or_not(done), indent=2)
    out.item("  recorded  ", dim(done.recorded_digest))
    out.item("  replayed  ", dim(done.digest))
    if done.divergence is not None:
        _print_divergence(out, done.divergence)
    _print_faults(out, done)
    _print_unknown(out, done)


def print_fork(out: Output, done: Replay) -> None:
    """What became of each promise under the other policy, and the conclusion in one sentence."""
    out.line(bold("fork "), done.recording, f" under {policies(done)}")
    _print_faults(out, done)
    _print_unknown(out, done)
    out.blank()
    print_before_after(out, done)
    out.blank()
    print_changes(out, done)
    reused = f"{done.reused:,} of {text.counted(done.events, 'event')} as recorded, {done.new:,} new"
    out.line(dim(f"the replayed history: {reused}"))
    style = "green" if done.heals else "bold red"
    out.line(Styled(conclusion(done), style, "✓ " if done.heals else "✗ "))


def print_changes(out: Output, done: Replay) -> None:
    """Why verdicts are other than the recording's, one sentence an invariant."""
    for change in done.changes:
        out.line(change.sentence)


def print_live(out: Output, done: Live) -> None:
    """What was run, whether the simulator comes to its history, and each promise recorded, simulated and live."""
    under = text.listed([f"{queue} under {name}" for queue, name in sorted(done.policies.items())])
    out.line(bold("live "), done.recording, f" on real processes, {under}: recorded as ", bold(done.live))
    _print_faults(out, done)
    if done.ways > 1:
        out.item("  played    ", f"the first of {done.ways} ways to place them: how far the work was nobody told.")
    answer = Styled("equal", "green", "✓ ") if done.verified.equal else Styled("not equal", "bold red", "✗ ")
    out.item("  verify    ", "the live run's history and the simulator's: ", answer, dim(f" {done.verified.digest}"))
    if done.verified.divergence is not None:
        _print_divergence(out, done.verified.divergence)
    out.blank()
    columns = [Column("invariant", style="bold", whole=True), Column("promise")]
    columns += [Column(name) for name in ("recorded", "simulated", "live")]
    reports = [{one.id: one for one in report.findings} for report in (done.simulated, done.after)]
    out.table(
        columns,
        [
            [one.id, one.title, verdict(one.verdict), *(verdict(report[one.id].verdict) for report in reports)]
            for one in done.before.findings
        ],
    )
    out.blank()
    good = done.exit_code == 0
    out.line(Styled(live_conclusion(done), "green" if good else "bold red", "✓ " if good else "✗ "))


def print_before_after(out: Output, done: Replay, *, indent: int = 0, only: Collection[str] | None = None) -> None:
    """One row an invariant (of `only`, if given): recorded, then replayed."""
    columns = [Column("invariant", style="bold", whole=True), Column("promise"), Column("recorded"), Column("replayed")]
    out.table(columns, [row for row in _before_after(done) if only is None or row[0] in only], indent=indent)


def conclusion(done: Replay) -> str:
    """The result of a fork in one sentence of raw text."""
    where = f"under {policies(done)}"
    broken, still = done.before.violated, done.after.violated
    # Where a fault had no place to strike, that is a part of the result.
    but = f" No place to strike had {'; '.join(done.homeless)}." if done.homeless else ""
    # A job that was buried breaks no promise, and is not what anybody wanted.
    but += f" Not done: {text.some(done.undone)}." if done.undone else ""
    if done.heals and broken:
        holds = f"{text.listed(broken)} hold{'s' if len(broken) == 1 else ''}"
        faults = "every fault that it has a place for" if done.homeless else "the same faults"
        return f"Healed: {where} the same work and {faults} break nothing; {holds}.{but}"
    if done.heals:
        return f"Nothing was broken in the recording, and {where} nothing breaks either.{but}"
    if still:
        fresh = [name for name in still if name not in broken]
        added = f", {text.listed(fresh)} of them only now" if fresh and broken else ""
        return f"Not healed: {where} {text.listed(still)} still break{'s' if len(still) == 1 else ''}{added}."
    if done.undecided:
        return f"Not shown to be healed: {where} {text.listed(done.undecided)} cannot be judged."
    return f"Not shown to be healed: {where} nothing breaks, but {'; '.join(done.doubts)}."


def live_conclusion(done: Live) -> str:
    """What the live run shows, in one sentence of raw text."""
    broken = done.after.violated
    breaks = f"breaks {text.listed(broken)}" if broken else "breaks nothing"
    if done.doubts:
        return f"Nothing is shown: the live run {breaks}, but {'; '.join(done.doubts)}."
    if done.mode == "same" and done.agrees:
        return f"The same on real processes: the live run {breaks}, as the recording does."
    if done.mode == "same":
        recorded = text.listed(sorted(done.expected), empty="nothing")
        return f"Not the same: the live run {breaks}, the recording {recorded}."
    where = f"on real processes, under {policies(done)}"
    but = f" No place to strike had {'; '.join(done.homeless)}." if done.homeless else ""
    if broken:
        return f"Not healed: {where}, {text.listed(broken)} still break."
    unknown = [one.id for one in done.after.findings if one.verdict == "unknown" and one.id in done.expected]
    if unknown:
        return f"Not shown to be healed: {where}, {text.listed(unknown)} cannot be judged."
    return f"Healed: {where}, the same work and the same faults break nothing.{but}"


def policies(done: Replay | Live) -> str:
    """ "policy safe", or queue by queue where they differ."""
    names = sorted(set(done.policies.values()))
    if len(names) == 1:
        return f"policy {names[0]}"
    return text.listed([f"{queue}: {name}" for queue, name in sorted(done.policies.items())])


def _same_or_not(done: Replay) -> str:
    if done.equal:
        broken = text.listed(done.before.violated) if done.before.violated else "nothing"
        events = text.counted(done.events, "event")
        return f"The simulator comes to the same history: {events}, job by job and actor by actor; it breaks {broken}."
    if done.divergence is None:
        return "The history is the same, but the verdicts are not."
    return "The simulator comes to another history: either the recording lacks something, or the runtime changed."


def _print_divergence(out: Output, found: Divergence) -> None:
    out.line(f"The first difference: {found.where}, event {found.index + 1}", indent=2)
    out.item("    recorded  ", found.expected or "nothing more")
    out.item("    replayed  ", found.actual or "nothing more")
    if found.fields:
        out.item("    differ    ", ", ".join(found.fields))


def _print_faults(out: Output, done: Replay | Live) -> None:
    for number, fault in enumerate(done.faults):
        out.item("  faults    " if number == 0 else "            ", fault)
    for number, fault in enumerate(done.moved):
        out.item("  moved     " if number == 0 else "            ", f"{fault}.")


def _print_unknown(out: Output, done: Replay) -> None:
    for number, clause in enumerate(done.unknown):
        out.item("  unknown   " if number == 0 else "            ", text.told(clause))


def _before_after(done: Replay) -> list[list[Part]]:
    after = {finding.id: finding for finding in done.after.findings}
    return [
        [one.id, one.title, verdict(one.verdict), verdict(after[one.id].verdict) if one.id in after else "-"]
        for one in done.before.findings
    ]
