"""docs/04-recovery-strategies.md: what each strategy guarantees, and the computed rows that show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fencepost_analyzer.catalogue import failure_modes
from fencepost_analyzer.docs.failure_pages import by_preset
from fencepost_analyzer.docs.markup import anchor, code, codes, link, table, value
from fencepost_analyzer.docs.sections import Page, Section
from fencepost_analyzer.lab import outcomes as simulated
from fencepost_analyzer.lab.outcomes import Outcome
from fencepost_analyzer.strategies import Proof, Strategy, not_yet, strategies
from fencepost_runtime.policy import presets

PATH = "docs/04-recovery-strategies.md"
SCOPE = "docs/00-scope.md"


def pages() -> Iterator[Page]:
    """The strategies, a section each; and the list of what has only an id."""
    known = strategies()
    sections = {"strategies": Section("## The catalogue", _overview(known))}
    for one in known.values():
        sections[one.id] = Section(f"## {one.id} {one.title}", _strategy(one))
    yield Page(PATH, "# Recovery strategies\n", sections)
    yield Page(SCOPE, "# Scope\n", {"not-yet": Section("## Not yet", _not_yet())})


@cache
def alone() -> Mapping[tuple[str, str], Outcome]:
    """(strategy, failure mode) → what the failure comes to with this strategy added to its own policy, alone."""
    cases = {
        (strategy.id, mode.id): mode.scenario.with_changes(strategy.on[0])
        for strategy in strategies().values()
        for mode in failure_modes().values()
    }
    return simulated.outcomes(cases)


def heals(strategy: Strategy) -> tuple[str, ...]:
    """The failure modes that the strategy heals alone, added to the policy that fails."""
    return tuple(mode for mode in failure_modes() if alone()[strategy.id, mode].holds)


def _overview(known: Mapping[str, Strategy]) -> str:
    rows = [
        [link(one.id, f"#{_anchor(one)}"), one.title, _fields(one.on[0]), ", ".join(heals(one)) or "none alone"]
        for one in known.values()
    ]
    return table(["id", "strategy", "policy fields", "heals, alone"], rows)


def _anchor(one: Strategy) -> str:
    return anchor(f"{one.id} {one.title}")


def _strategy(one: Strategy) -> str:
    others = list(one.on[1:])
    turned_on = f"**Turned on by** {_fields(one.on[0])}"
    turned_on += f" (or {', or '.join(map(_fields, others))})" if others else ""
    having = [name for name, policy in presets().items() if one.is_on(policy)]
    parts = [
        f"**Guarantees.** {one.guarantees}",
        f"**Does not guarantee.** {one.limits}",
        f"{turned_on}; presets that have it: {codes(having)}.",
        "The row that shows it, with these fields added to the policy under which each failure mode fails:",
        _row(one),
        _proof(one, one.proof) if one.proof else "",
        "How real systems spell it:",
        "\n".join(_spelled(one)),
    ]
    return "\n\n".join(part for part in parts if part)


def _row(one: Strategy) -> str:
    modes = failure_modes()
    before = ["without it", *(by_preset()[mode, "own"].cell() for mode in modes)]
    after = [f"with {one.id}", *(alone()[one.id, mode].cell() for mode in modes)]
    titles = ["", *(link(mode, f"failure-modes/{mode}.md") for mode in modes)]
    return table(titles, [before, after])


def _proof(one: Strategy, proof: Proof) -> str:
    """The strategy's own scenario, with and without it: verdicts, and how each job ended."""
    without, having = proof.scenario, proof.scenario.with_changes(one.on[0])
    found = simulated.outcomes({"without": without, "with": having})
    (before, died_before), (after, died_after) = simulated.endings(without), simulated.endings(having)
    rows = [["verdict", found["without"].cell(), found["with"].cell()]]
    if died_before or died_after:
        rows.append(["workers that died", str(died_before), str(died_after)])
    for pair in zip(before, after, strict=True):
        rows.append([f"job {code(pair[0].job_id)}", *(f"{end.state} after {_leases(end.leases)}" for end in pair)])
    said = f"No failure mode above shows it, so here is a scenario of its own. {proof.story}"
    return f"{said}\n\n{table(['', 'without it', f'with {one.id}'], rows)}"


def _leases(count: int) -> str:
    return f"{count} lease" if count == 1 else f"{count} leases"


def _spelled(one: Strategy) -> Iterator[str]:
    for spelling in one.spelled:
        system = link(spelling.system, spelling.source) if spelling.source else spelling.system
        yield f"- {system}: {spelling.how}"


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(code(f"{name} = {value(data)}") for name, data in fields.items())


def _not_yet() -> str:
    words = {"invariants": "Invariants", "failure_modes": "Failure modes", "strategies": "Recovery strategies"}
    return "\n".join(
        f"- {words[family]}: {', '.join(f'{name} {title}' for name, title in entries.items())}."
        for family, entries in not_yet().items()
    )
