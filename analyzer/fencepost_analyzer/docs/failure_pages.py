"""docs/03-failure-modes.md and a page for each failure mode: what the catalogue says, and what the simulator shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields as fields_of
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb

from fencepost_analyzer import text, timeline
from fencepost_analyzer.catalogue import FailureMode, failure_modes
from fencepost_analyzer.check import judge
from fencepost_analyzer.database import GAPS, create_views, events_table, tidy_events
from fencepost_analyzer.database import load as load_table
from fencepost_analyzer.docs.errors import DocsError
from fencepost_analyzer.docs.markup import anchor, code, codes, fenced, link, table, value
from fencepost_analyzer.docs.sections import Page, Section
from fencepost_analyzer.invariants import load
from fencepost_analyzer.lab import outcomes as simulated
from fencepost_analyzer.lab.outcomes import Outcome
from fencepost_analyzer.strategies import strategies
from fencepost_analyzer.verdicts import Report
from fencepost_runtime.policy import Policy, preset, presets
from fencepost_runtime.scenario import Scenario

OVERVIEW = "docs/03-failure-modes.md"
FOLDER = "docs/failure-modes"
MATRIX = "Every failure mode under every preset"

# Where a source's short name lives; the text before the `#` is a repository, or one of these.
_REPOSITORIES = {
    "celery": "celery/celery",
    "dramatiq": "Bogdanp/dramatiq",
    "procrastinate": "procrastinate-org/procrastinate",
    "river": "riverqueue/river",
    "rq": "rq/rq",
    "saq": "tobymao/saq",
    "sidekiq": "sidekiq/sidekiq",
}
_MAX_LINES = 60


def pages() -> Iterator[Page]:
    """The overview, then a page for each failure mode."""
    modes = failure_modes()
    yield Page(
        OVERVIEW,
        "# Failure modes\n",
        {
            "failure-modes": Section("## The catalogue", _overview(modes)),
            "matrix": Section(f"## {MATRIX}", _matrix(modes)),
        },
    )
    for mode in modes.values():
        sections = {"failure-mode": Section("", _page(mode))}
        yield Page(f"{FOLDER}/{mode.id}.md", f"# {mode.id} {mode.title}\n", sections)


@cache
def by_preset() -> Mapping[tuple[str, str], Outcome]:
    """(failure mode, preset) → what the scenario comes to under it; the near-miss under its own policy as "near-miss",
    the scenario under its own as "own"."""
    cases: dict[tuple[str, str], Scenario] = {}
    for mode in failure_modes().values():
        cases |= {(mode.id, name): mode.scenario.with_policy(policy) for name, policy in presets().items()}
        cases |= {(mode.id, "own"): mode.scenario, (mode.id, "near-miss"): mode.near_miss}
    found = simulated.outcomes(cases)
    _agree_with_catalogue(found)
    return found


def _agree_with_catalogue(found: Mapping[tuple[str, str], Outcome]) -> None:
    """A page must not repeat what a `.toml` claims if the simulator shows otherwise."""
    for mode in failure_modes().values():
        claims = {"own": mode.violates, "near-miss": (), mode.heals: ()}
        claims |= {seeming.policy: seeming.violates for seeming in mode.seems}
        for name, violates in claims.items():
            outcome = found[mode.id, name]
            if outcome.violated != tuple(violates) or outcome.unknown:
                raise DocsError(f"{mode.id}.toml says otherwise than the simulator of {name}: {outcome.cell()}.")


def _overview(modes: Mapping[str, FailureMode]) -> str:
    rows = [
        [
            link(mode.id, f"failure-modes/{mode.id}.md"),
            mode.title,
            ", ".join(mode.violates),
            code(mode.heals),
            _strategies(mode, "04-recovery-strategies.md"),
        ]
        for mode in modes.values()
    ]
    return table(["id", "what happens", "violates", "healed by policy", "by strategy"], rows)


def _matrix(modes: Mapping[str, FailureMode]) -> str:
    outcomes = by_preset()
    rows = [
        [link(code(name), "reference/policies.md#presets"), *(outcomes[mode, name].cell() for mode in modes)]
        for name in presets()
    ]
    return table(["policy", *modes], rows)


def _page(mode: FailureMode) -> str:
    outcomes = by_preset()
    parts = [
        mode.story,
        f"Seen in: {', '.join(_source(one) for one in mode.sources)}." if mode.sources else "",
        "## What it violates",
        "\n".join(f"- {_invariant(name)}" for name in mode.violates),
        _policy_line(mode.scenario),
        "## What happens, step by step",
        f"As the simulator tells it (`fencepost run {mode.id} --simulate --seed {simulated.SEEDS[0]}`):",
        fenced(_timeline(mode)),
        "The verdicts, with their witnesses:",
        "\n".join(f"- **{name}** {sentence}" for name, sentence in _witnesses(mode)),
        "## The near-miss",
        f"{mode.near_miss_story} Under the same policy: **{outcomes[mode.id, 'near-miss'].cell()}**.",
        "## What heals it",
        _healing(mode, outcomes[mode.id, mode.heals]),
        "## What only seems to",
        "\n".join(_seeming(mode)),
        "## The scenario",
        "The file that is run, as far as the scenario goes; `fencepost run FILE.toml` runs a copy of it.",
        fenced(_scenario_text(mode), "toml"),
        "## Run it",
        fenced(_commands(mode), "sh"),
    ]
    return "\n\n".join(part for part in parts if part)


def _strategies(mode: FailureMode, page: str) -> str:
    known = strategies()
    return ", ".join(link(name, f"{page}#{anchor(f'{name} {known[name].title}')}") for name in mode.strategies)


def _source(name: str) -> str:
    repository, _, number = name.partition("#")
    repository = _REPOSITORIES.get(repository, repository)
    return link(name, f"https://github.com/{repository}/issues/{number}")


def _invariant(name: str) -> str:
    title = next(one.title for one in load() if one.id == name)
    return link(f"{name} {title}", f"../01-invariants.md#{anchor(f'{name} {title}')}")


def _policy_line(scenario: Scenario) -> str:
    return f"Under policy {codes(queue.policy.name for queue in scenario.queues)}."


def _timeline(mode: FailureMode) -> str:
    """The story of the jobs that broke something, as `fencepost show` tells it."""
    rows, report = _told(mode.id)
    since = min(row["at"] for row in rows)
    with duckdb.connect(":memory:") as connection:
        load_table(connection, "gaps", GAPS.empty_table())
        tidy_events(connection, events_table(rows))
        create_views(connection)
        suspects = timeline.suspects(report)
        jobs, _ = timeline.choose_jobs(connection, suspects, len(suspects))
        marks = timeline.marks_of(report)
        stories = timeline.tell(connection, jobs, since=since, marks=marks, most=_MAX_LINES)
    return "\n".join(timeline.as_text(stories))


def _witnesses(mode: FailureMode) -> Iterator[tuple[str, str]]:
    _, report = _told(mode.id)
    for finding in report.findings:
        if finding.verdict == "violated":
            yield finding.id, text.markdown(finding.witnesses[0].sentence, None)


@cache
def _told(name: str) -> tuple[list[dict[str, Any]], Report]:
    """The events of a failure mode as it happens, and what is judged of them."""
    rows = simulated.events(failure_modes()[name].scenario, simulated.SEEDS[0])
    return rows, judge(events_table(rows))


def _healing(mode: FailureMode, outcome: Outcome) -> str:
    own = mode.scenario.queues[0].policy
    healing = preset(mode.heals)
    verdict = f"The same work and the same faults under policy {code(mode.heals)}: **{outcome.cell()}**."
    if outcome.undone:
        verdict += (
            " A job that is not done was buried where people can find it, with nothing of it applied: "
            "no promise is broken, but somebody has to look."
        )
    changes = f"It differs from {code(own.name)} in: {', '.join(_differences(own, healing))}."
    others = [name for name in presets() if by_preset()[mode.id, name].holds and name != mode.heals]
    where = link("the matrix", f"../03-failure-modes.md#{anchor(MATRIX)}")
    also = f"These presets break nothing here either: {codes(others)}; what they break elsewhere, {where} says."
    done = [name for name in others if not by_preset()[mode.id, name].undone]
    if done != others:
        also += f" Of these only {codes(done)} get every job done."
    named = f"Strategies: {_strategies(mode, '../04-recovery-strategies.md')}."
    return "\n\n".join(part for part in (verdict, changes, named, also) if part)


def _differences(one: Policy, other: Policy) -> list[str]:
    names = [field.name for field in fields_of(Policy) if field.name != "name"]
    return [
        code(f"{name} = {value(getattr(other, name))}") for name in names if getattr(one, name) != getattr(other, name)
    ]


def _seeming(mode: FailureMode) -> Iterator[str]:
    for seeming in mode.seems:
        left = ", ".join(seeming.violates)
        yield f"- Policy {code(seeming.policy)} leaves **{left}** broken. {seeming.why}"


def _scenario_text(mode: FailureMode) -> str:
    path = files("fencepost_analyzer").joinpath("failure_modes", f"{mode.id}.toml")
    lines = path.read_text("utf-8").splitlines()
    start = lines.index("[scenario]")
    end = next((i for i, line in enumerate(lines) if line.startswith(("[near_miss", "[[near_miss"))), len(lines))
    return "\n".join(lines[start:end]).strip()


def _commands(mode: FailureMode) -> str:
    lines = [
        (f"fencepost run {mode.id}", "on real processes"),
        ("fencepost check latest", f"breaks {', '.join(mode.violates)}"),
        ("fencepost show latest", "the same timeline, with real times"),
        ("fencepost replay latest", "the same history again, in the simulator"),
        (f"fencepost replay latest --policy {mode.heals}", "healed"),
        *((f"fencepost replay latest --policy {one.policy}", "not healed") for one in mode.seems),
        (f"fencepost run {mode.id} --near-miss", "close, and clean"),
        (f"fencepost recommend {mode.id}", "the weakest policies under which it cannot happen"),
    ]
    width = max(len(line) for line, _ in lines)
    return "\n".join(f"{line:<{width}}  # {what}" for line, what in lines)
