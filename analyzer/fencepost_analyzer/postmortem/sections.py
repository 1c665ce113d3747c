"""The generated sections of a postmortem's page, as Markdown. Whatever comes from the recording is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fencepost_analyzer import text, timeline
from fencepost_analyzer.postmortem.evidence import MAX_ANSWER_ROWS, Derived, queried
from fencepost_analyzer.postmortem.folder import OWN_INVARIANTS, OWN_MAPPINGS, Index, recording_path
from fencepost_analyzer.replay import Replay
from fencepost_analyzer.strategies import strategies
from fencepost_analyzer.text import code, markdown
from fencepost_analyzer.verdicts import Finding
from fencepost_runtime.policy import Policy, presets

MAX_WITNESSES = 5
MAX_TIMELINE_LINES = 120


@dataclass(frozen=True, slots=True)
class Page:
    """What the sections are made of."""

    derived: Derived
    index: Index


def of_recording(derived: Derived, index: Index) -> dict[str, str]:
    """The sections that follow from the recording, by name, without their markers."""
    return {name: make(Page(derived, index)) for name, make in _MAKERS.items()}


def of_index(index: Index) -> dict[str, str]:
    """The sections that list what belongs to the evidence: those that `attach` changes."""
    return {"attachments": _attachments(index), "evidence": _evidence(index)}


def _summary(page: Page) -> str:
    held, report = page.derived.overview, page.derived.report
    rows = [
        ("recording", code(held.recording)),
        ("jobs, events, spans", f"{held.jobs:,}, {sum(held.events.values()):,}, {held.spans:,}"),
        ("known gaps", f"{held.gap_count:,}"),
        ("verdict", f"**{report.verdict}**" + (f": {', '.join(report.violated)}" if report.violated else "")),
    ]
    if held.lasted_ns is not None:
        rows.insert(1, ("lasted", text.duration(held.lasted_ns)))
    if held.announced is not None:
        policies = [f"{markdown(queue)} under {code(name)}" for queue, name in held.announced.policies.items()]
        rows.insert(1, ("scenario", f"{code(held.announced.scenario.id)}: {text.listed(policies)}"))
    table = _table(("fact", "value"), rows)
    faults = page.derived.incident.inferences if page.derived.incident is not None else ()
    if not faults:
        return table
    told = "\n".join(f"- {markdown(one.sentence, None)}" for one in faults)
    return f"{table}\n\nWhat befell the workers, read from the spans:\n\n{told}"


def _impact(page: Page) -> str:
    jobs: dict[str, list[str]] = {}
    for finding in page.derived.report.findings:
        for witness in finding.witnesses:
            if witness.verdict == "violated" and witness.job_id is not None:
                found = jobs.setdefault(witness.job_id, [])
                if finding.title not in found:
                    found.append(finding.title)
    parts = []
    if jobs:
        rows = [(code(job), markdown("; ".join(titles))) for job, titles in jobs.items()]
        intro = "Jobs to which promises were broken (at most ten are named for each promise):"
        parts.append(f"{intro}\n\n" + _table(("job", "promise broken"), rows))
    if accounts := _accounts(page):
        parts.append(accounts)
    return "\n\n".join(parts) or "No job is named by a broken promise."


def _accounts(page: Page) -> str:
    """What the applied writes left in each account, beside what each job once would have."""
    found = page.derived.incident
    if found is None or not page.derived.replays:
        return ""
    forks = [one for one in page.derived.replays if one.mode == "fork"]
    recorded = page.derived.replays[0].balances_before
    rows = [
        (
            code(account),
            f"{amount:,}",
            _amount(recorded.get(account, 0), amount),
            *(_amount(fork.balances_after.get(account, 0), amount) for fork in forks),
        )
        for account, amount in found.scenario.due().items()
    ]
    heads = ("account", "each job once", "as recorded", *(f"replayed under {_names(fork)}" for fork in forks))
    return "Accounts, as the applied writes left them:\n\n" + _table(heads, rows)


def _amount(value: int, due: int) -> str:
    return f"{value:,}" if value == due else f"**{value:,}** ({value - due:+,})"


def _timeline(page: Page) -> str:
    story = [line for one in page.derived.told for line in [*timeline.as_text([one]), ""]][:-1]
    shown = story[:MAX_TIMELINE_LINES]
    more = [f"… {len(story) - len(shown):,} more lines in evidence/timeline.txt"] if len(story) > len(shown) else []
    return _fenced([*shown, *more]) + (
        "\n\nTimes are milliseconds since the recording's first span; an arrow names the promise that a line is a "
        "witness against. The other jobs are in [timeline.txt](evidence/timeline.txt), all events in "
        "[events.csv](evidence/events.csv)."
    )


def _verdicts(page: Page) -> str:
    rows = [
        (one.id, markdown(one.title), f"**{one.verdict}**" if one.verdict != "holds" else "holds", _cases(one))
        for one in page.derived.report.findings
    ]
    return _table(("invariant", "promise", "verdict", "cases"), rows)


def _witnesses(page: Page) -> str:
    parts = []
    for finding in page.derived.report.findings:
        if finding.verdict == "holds":
            continue
        lines = [f"**{finding.id} {markdown(finding.title)}: {finding.verdict}.** {markdown(finding.reason, None)}", ""]
        for witness in finding.witnesses[:MAX_WITNESSES]:
            spans = ", ".join(code(span) for span in witness.span_ids[:6])
            lines.append(f"- {markdown(witness.sentence, None)}" + (f" Spans: {spans}." if spans else ""))
        more = finding.violations + finding.unknowns - min(MAX_WITNESSES, len(finding.witnesses))
        if more > 0 and finding.witnesses:
            lines.append(f"- … {text.counted(more, 'more case')}: see the SQL below.")
        parts.append("\n".join(lines).strip())
    return "\n\n".join(parts) or "Every promise that was judged holds."


def _queries(page: Page) -> str:
    rows = []
    for finding in queried(page.derived.report):
        answer = page.derived.answers[finding.id]
        path = f"evidence/queries/{finding.id}"
        found = (
            f"more than {text.counted(MAX_ANSWER_ROWS, 'row')}" if answer.cut else text.counted(len(answer.rows), "row")
        )
        rows.append((finding.id, f"[{finding.id}.sql]({path}.sql)", f"[{found}]({path}.json)"))
    if not rows:
        return "No query found a case."
    return _table(("invariant", "query", "answer"), rows)


def _replay(page: Page) -> str:
    if page.derived.not_replayed is not None:
        return f"Not replayed: {markdown(page.derived.not_replayed, None)}"
    parts = [_verified(one) if one.mode == "verify" else _forked(one) for one in page.derived.replays]
    return "\n\n".join(parts) or "Not replayed."


def _verified(done: Replay) -> str:
    if done.equal:
        return (
            f"**verify: equal.** Under the same policies the simulator comes to the same history of {done.events:,} "
            f"events, digest {code(done.digest[:16])}, and breaks the same promises."
        )
    found = done.divergence
    where = f" They part at {markdown(found.where)}, event {found.index + 1}: " if found else " "
    what = f"recorded {code(found.expected)}, replayed {code(found.actual)}." if found else "The verdicts differ."
    return f"**verify: not equal.**{where}{what}"


def _forked(done: Replay) -> str:
    after = {one.id: one.verdict for one in done.after.findings}
    rows = [(one.id, one.verdict, after.get(one.id, "-")) for one in done.before.findings if one.verdict != "holds"]
    head = f"**fork under {_names(done)}: {'heals' if done.heals else 'does not heal'}.** "
    reused = f"{done.reused:,} of {done.events:,} events are as recorded, {done.new:,} are new."
    fresh = [name for name in done.after.violated if name not in done.before.violated]
    new = f" Newly broken: {', '.join(fresh)}." if fresh else ""
    table = "\n\n" + _table(("invariant", "recorded", "replayed"), rows) if rows else ""
    left = [*done.doubts, *(f"no place to strike had {fault}" for fault in done.homeless)]
    but = f" But {markdown('; '.join(left))}." if left and not done.after.violated else ""
    return head + reused + new + but + table


def _recovery(page: Page) -> str:
    healing = [one for one in page.derived.replays if one.mode == "fork" and one.heals]
    found = page.derived.incident
    if not healing or found is None:
        return "No replay has shown a policy that heals this."
    parts = []
    for spec, done in zip(page.index.replays, page.derived.replays, strict=True):
        if done in healing:
            healed = found.scenario.with_policy(Policy.from_dict(spec["policy"])) if spec.get("policy") else None
            rows = _differences(page, healed.queues[0].policy if healed else None, spec.get("changes") or {})
            faults = "every fault that it has a place for" if done.homeless else "the same faults"
            parts.append(
                f"Under {_names(done)} the same work and {faults} break none of these promises. "
                "What it does otherwise:\n\n" + _table(("queue", "field", "ran with", "heals with", "strategy"), rows)
            )
    return "\n\n".join(parts)


def _differences(
    page: Page, policy: Policy | None, changes: Mapping[str, object]
) -> list[tuple[str, str, str, str, str]]:
    found = page.derived.incident
    assert found is not None
    rows = []
    for queue in found.scenario.queues:
        ran = queue.policy.to_dict()
        target = {**(policy.to_dict() if policy else ran), **changes}
        healed = Policy.from_dict(target)
        gained = [one for one in strategies().values() if one.is_on(healed) and not one.is_on(queue.policy)]
        for key, value in ran.items():
            if key != "name" and target[key] != value:
                named = ", ".join(f"{one.id} {one.title}" for one in gained if any(key in fields for fields in one.on))
                rows.append((markdown(queue.name), code(key), code(_word(value)), code(_word(target[key])), named))
    return rows


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _again(page: Page) -> str:
    recording = recording_path(page.index.recording)
    mapped, judged = _own_sql(page.index)
    lines = [f"fencepost {command} {recording}{judged}" for command in ("check", "show")]
    lines.insert(0, "fencepost postmortem verify .")
    lines += [
        f"fencepost query {recording} --file evidence/queries/{finding.id}.sql{mapped}"
        for finding in queried(page.derived.report)
    ]
    if page.derived.incident is not None:
        options = dict.fromkeys(["", *(_options(spec) for spec in page.index.replays)])
        lines += [f"fencepost replay {recording}{one}{judged}" for one in options]
        lines.append("fencepost run evidence/scenario.json")
    return f"In this folder, with fencepost {markdown(page.index.tool_version)}:\n\n" + _fenced(lines)


def _own_sql(index: Index) -> tuple[str, str]:
    """The options that bring the user's own mappings along, and those for mappings and invariants."""
    mapped = f" --mappings {OWN_MAPPINGS}" if any(path.startswith(OWN_MAPPINGS) for path in index.files) else ""
    own = f" --invariants {OWN_INVARIANTS}" if any(path.startswith(OWN_INVARIANTS) for path in index.files) else ""
    return mapped, own + mapped


def _options(spec: Mapping[str, Any]) -> str:
    """A fork's policy as the command line takes it; empty where it does not."""
    name = (spec.get("policy") or {}).get("name")
    known = f" --policy {name}" if name in presets() else ""
    return known + "".join(f" --set {key}={_word(value)}" for key, value in (spec.get("changes") or {}).items())


def _attachments(index: Index) -> str:
    if not index.attachments:
        return "Nothing was attached later: `fencepost postmortem attach` adds queries, files and other recordings."
    return "Attached later:\n\n" + "\n".join(f"- {_attached(one)}" for one in index.attachments)


def _attached(one: Mapping[str, Any]) -> str:
    match one.get("kind"):
        case "query":
            rows = f"[{markdown(one['rows'])} rows]({one['result']})"
            return f"query [{one['name']}]({one['sql']}), its answer: {rows}"
        case "recording":
            return f"recording {code(one['recording'])}, judged [{markdown(one['verdict'])}]({one['verdicts']})"
    return f"file [{one['name']}]({one['path']})"


def _evidence(index: Index) -> str:
    rows = [
        (f"[{path.removeprefix('evidence/')}]({path})", code(digest)) for path, digest in sorted(index.files.items())
    ]
    intro = f"Written by fencepost {markdown(index.tool_version)}. Every file with its SHA-256:"
    return f"{intro}\n\n" + _table(("file", "SHA-256"), rows)


_MAKERS: Mapping[str, Callable[[Page], str]] = {
    "summary": _summary,
    "impact": _impact,
    "timeline": _timeline,
    "verdicts": _verdicts,
    "witnesses": _witnesses,
    "queries": _queries,
    "replay": _replay,
    "recovery": _recovery,
    "again": _again,
}


def _names(done: Replay) -> str:
    return text.listed([code(name) for name in sorted(set(done.policies.values()))])


def _cases(finding: Finding) -> str:
    return f"{finding.violations or finding.unknowns:,}" if finding.verdict != "holds" else ""


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [" | ".join(heads), "|".join("---" for _ in heads), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if index != 1 else f"|{line}|" for index, line in enumerate(lines))


def _fenced(lines: list[str]) -> str:
    """A block of code in a fence longer than any run of backticks inside it."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])
