"""The demo: one incident from the killed worker to the postmortem, told as it happens.

Everything that is told is read from the recording, but for the opening, which says what the scenario will do.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from fencepost_analyzer import catalogue, postmortem, text, timeline
from fencepost_analyzer.case import Case, open_case
from fencepost_analyzer.overview import Overview, overview
from fencepost_analyzer.render import Column, Output, Part, Styled, bold, dim
from fencepost_analyzer.replay import Replay, fork, verify
from fencepost_analyzer.reports import conclusion, print_before_after, print_findings, print_story
from fencepost_analyzer.run import run_processes
from fencepost_recorder import Recording
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Fault, Scenario

# What the incident breaks, each of it every time; the verdicts that are told must be these.
BREAKS = ("INV-001", "INV-003", "INV-005", "INV-007")
HEALING = "safe"


def tell(out: Output, recordings: Path, postmortems: Path) -> int:
    """Runs the demo's scenario on real processes, judges, replays and writes the postmortem; prints the story.

    Answers 0 when the incident broke what it should, verify was equal and the fork healed; else 1."""
    scenario = catalogue.demo_scenario()
    _open(out, scenario)
    recording, took = _record(out, scenario, recordings)
    with open_case(recording) as case:
        _tell_record(out, overview(case), took)
        with out.working("judging …"):
            report = case.report
        _judge(out, case)
        with out.working("replaying …"):
            again, healed = verify(case), fork(case, preset(HEALING))
        _replay(out, again)
        _heal(out, healed, scenario.due())
        with out.working("writing the postmortem …"):
            specifications = [postmortem.specification(), postmortem.specification(preset(HEALING))]
            folder = postmortem.new(
                case,
                postmortems=postmortems,
                name="demo",
                title="The demo's incident",
                replays=specifications,
                done=[again, healed],
            )
    expected = report.violated == BREAKS and again.equal and healed.heals
    _close(out, recording, folder, scenario, expected=expected)
    if out.as_json:
        made = {"recording": recording.id, "spans": recording.manifest.spans, "gaps": recording.manifest.gaps}
        replays = {"verify": again.to_dict(), "fork": healed.to_dict()}
        judged = {**made, "verdicts": report.to_dict(), **replays}
        out.document({**judged, "postmortem": str(folder), "as_expected": expected})
    return 0 if expected else 1


def _step(out: Output, number: int, title: str) -> None:
    out.blank()
    out.line(Styled(f"{number}", "bold cyan"), "  ", bold(title))


def _open(out: Output, scenario: Scenario) -> None:
    out.line(bold("fencepost demo"), dim("  one incident, from the killed worker to the postmortem"))
    _step(out, 1, "A shop's queue at work, on real processes and SQLite")
    for queue in scenario.queues:
        workers = text.counted(queue.workers, "worker process", "worker processes")
        jobs = text.counted(len(queue.jobs), "job")
        out.item(f"   {queue.name:<9} ", f"{jobs}, {workers}, policy {queue.policy.name}: {_about(queue.policy.ack)}")
    for number, fault in enumerate(scenario.faults):
        out.item("   trouble   " if number == 0 else "             ", _trouble(fault))


def _about(ack: str) -> str:
    return {
        "early": "a job is acknowledged before the work is done",
        "late": "a job is acknowledged after the work, nothing else is guarded",
    }.get(ack, "a job is acknowledged with its writes")


def _trouble(fault: Fault) -> str:
    where = f"{fault.at.when} its write {fault.at.index + 1}"
    words = {
        "kill": f"the worker of {fault.at.job} gets SIGKILL {where}",
        "pause": f"the worker of {fault.at.job} gets SIGSTOP {where}, sleeps past its lease, then wakes",
        "db_error": f"the database refuses write {fault.at.index + 1} of {fault.at.job}; it is retried",
    }
    return words.get(fault.kind, f"{fault.kind} at {fault.at.step} of {fault.at.job}")


def _record(out: Output, scenario: Scenario, recordings: Path) -> tuple[Recording, float]:
    """The recording, and how many seconds it took."""
    began = time.monotonic()
    with out.working("running …"):
        recording = run_processes(scenario, recordings)
    return recording, time.monotonic() - began


def _tell_record(out: Output, held: Overview, took: float) -> None:
    spans = f"{text.counted(held.spans, 'span')}, {text.counted(held.gap_count, 'gap')}"
    out.item("   recorded  ", bold(held.recording), f" in {took:.1f} s: {spans}")
    out.item("             ", _lives(held))


def _lives(held: Overview) -> str:
    """What the recorder kept that an exporter would have lost."""
    died = sum(1 for producer in held.producers if producer["ended"] == "died")
    return (
        f"{text.counted(len(held.producers), 'process', 'processes')} told what they did; {died} died in the middle. "
        f"{text.counted(held.unfinished, 'span')} began and never ended: a stock exporter sends spans when they end, "
        "so it would not know of the crash"
    )


def _judge(out: Output, case: Case) -> None:
    _step(out, 2, "What became of two jobs: the worker of one froze, that of the other was killed")
    for story in timeline.stories(case, lines=30)[0]:
        out.blank()
        print_story(out, story, indent=3)
    _step(out, 3, "Which promises were broken: SQL over the recording, each verdict with its witness")
    out.blank()
    print_findings(out, case.report, indent=3)
    out.blank()
    for finding in case.report.findings:
        if finding.verdict != "holds" and finding.witnesses:
            style = "bold red" if finding.verdict == "violated" else "yellow"
            out.item(Styled(f"{finding.id}  ", style), finding.witnesses[0].sentence, indent=3)


def _replay(out: Output, again: Replay) -> None:
    _step(out, 4, "The same history again, in the simulator, from the recording alone")
    answer = Styled("equal", "green", "✓ ") if again.equal else Styled("not equal", "bold red", "✗ ")
    events = text.counted(again.events, "event")
    out.item("   verify    ", answer, f", {events} in the same order for every job and every process")
    out.item("             ", dim(f"recorded {again.recorded_digest[:32]}…"))
    out.item("             ", dim(f"replayed {again.digest[:32]}…"))


def _heal(out: Output, healed: Replay, expected: Mapping[str, int]) -> None:
    _step(out, 5, f"The same work and the same faults under policy {HEALING}")
    out.blank()
    print_before_after(out, healed, indent=3, only=healed.before.violated)
    out.blank()
    columns = [Column("account", style="bold"), *(Column(name, right=True) for name in ("due", "recorded", "replayed"))]
    out.table(columns, _money(healed, expected), indent=3)
    out.blank()
    out.item("   ", Styled(conclusion(healed), "green" if healed.heals else "bold red", "✓ " if healed.heals else "✗ "))


def _money(healed: Replay, expected: Mapping[str, int]) -> Iterable[list[Part]]:
    for account, amount in expected.items():
        recorded, replayed = healed.balances_before.get(account, 0), healed.balances_after.get(account, 0)
        yield [account, f"{amount:,}", _amount(recorded, amount), _amount(replayed, amount)]


def _amount(value: int, expected: int) -> Part:
    return Styled(f"{value:,}", "green" if value == expected else "bold red")


def _close(out: Output, recording: Recording, folder: Path, scenario: Scenario, *, expected: bool) -> None:
    _step(out, 6, "The proof, attached to a postmortem")
    blanks = text.counted(postmortem.blanks(folder), "part")
    out.item(
        "   wrote     ", bold(folder), f": timeline, verdicts, SQL, replays, recording; {blanks} for people to fill in"
    )
    out.blank()
    if not expected:
        due_to_break = f"{text.listed(BREAKS)} should have broken, and {HEALING} should have healed them"
        out.line(Styled(f"This did not go as the story says: {due_to_break}.", "bold red"))
        out.blank()
    job = scenario.faults[0].at.job
    out.next_steps(
        f"show {recording.id}  # every job's story",
        f"show {recording.id} --job {job}  # one job's",
        f"check {recording.id} --witnesses 10  # all the witnesses",
        f"query {recording.id} \"SELECT * FROM events WHERE job_id = '{job}'\"  # anything else",
        f"replay {recording.id} --policy fenced  # would fencing have been enough?",
        f"recommend {recording.id}  # the weakest policy under which it cannot happen again (a minute)",
        f"postmortem verify {shlex.quote(str(folder))}  # does the evidence still stand?",
        "failure-modes  # what else can go wrong",
    )
