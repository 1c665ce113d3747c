"""`matrix`: one incident, or every failure mode, under every policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fencepost_analyzer.cli.incidents import (
    Crashes,
    Faults,
    Losses,
    Pauses,
    Workers,
    cores,
    exploring,
    incident,
)
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, own_sql, session
from fencepost_analyzer.render import Column, Output, bold, dim, word

if TYPE_CHECKING:
    from fencepost_analyzer.lab.matrix import Row
    from fencepost_analyzer.lab.outcomes import Outcome


def register(app: typer.Typer) -> None:
    app.command("matrix", short_help="Every policy, and which promises hold under it.")(matrix)


def matrix(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|FILE|FM-001]",
            help="A recording, a scenario of yours, or a failure mode.  [default: all failure modes]",
            show_default=False,
        ),
    ] = None,
    explore: Annotated[
        bool, typer.Option("--explore", help="Every schedule within a bound around it, too, under every policy.")
    ] = False,
    faults: Faults = 2,
    crashes: Crashes = 2,
    pauses: Pauses = 1,
    losses: Losses = 1,
    workers: Workers = None,
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Run an incident under every policy that has a name, in the simulator, and say which promises hold.

    \b
      fencepost matrix                     every failure mode under every policy
      fencepost matrix latest              an incident under every policy, what each costs, the cheapest cure
      fencepost matrix latest --explore    the same, and all that else could happen around it

    Exit code 0: some policy heals the incident. 1: none does; `fencepost recommend` looks at mixtures, too.
    """
    from fencepost_analyzer.cli.failures import UsageError
    from fencepost_analyzer.lab import matrix as comparing
    from fencepost_analyzer.lab.space import Bound

    here = session(context, recordings, as_json)
    if run is None:
        if explore or invariants or mappings:
            raise UsageError("the matrix of all failure modes takes no options: name a RUN, a file or a failure mode")
        with here.out.working("simulating …"):
            table = comparing.catalogue()
        _print_catalogue(here.out, table)
        return 0
    with here.out.working("reading …"):
        found = incident(here, run, invariants, mappings)
    bound = Bound(faults, crashes, pauses, losses) if explore else None
    with here.out.working("simulating …"), exploring(workers or cores() if explore else 1) as explorer:
        rows = comparing.matrix(
            found.scenario, found.seed, found.inferences, invariants or (), bound=bound, explorer=explorer
        )
    best = comparing.cheapest(rows)
    if here.out.as_json:
        facts = {"incident": found.name, "seed": found.seed, "bound": bound.to_dict() if bound is not None else None}
        cure = best.policy if best is not None else None
        here.out.document({**facts, "cheapest": cure, "rows": [row.to_dict() for row in rows]})
        return 0 if best is not None else 1
    _print(here.out, rows, best)
    for note in found.notes:
        here.out.line(dim(f"not in it: {note}"))
    here.out.blank()
    here.out.next_steps(f"recommend {word(run)}{own_sql(invariants, mappings)}")
    return 0 if best is not None else 1


def _print(out: Output, rows: Sequence[Row], best: Row | None) -> None:
    from fencepost_analyzer.lab import matrix as comparing

    columns = [Column("policy", style="bold", whole=True), Column("broken"), Column("not done", right=True)]
    explored = any(row.exploration is not None for row in rows)
    if explored:
        columns += [Column("schedules", right=True), Column("broken in", right=True)]
    columns += [Column(name, right=True, spare=True) for name in ("commits", "writes", "deliveries", "ms a job")]
    out.table(columns, [_row(row, explored) for row in rows])
    out.blank()
    if best is None:
        out.line("No policy with a name heals it: under each something breaks or is open, or a job is not done.")
    else:
        out.line("The cheapest that heals the incident: ", bold(best.policy))
    safest = comparing.safest(rows)
    if explored and safest is not None:
        within = f", {safest.share:.1%} of the schedules"
        out.line("The one that heals it and breaks in fewest of what else can happen: ", bold(safest.policy), within)
    for row in rows:
        for fault in row.left_out:
            out.line(dim(f"{row.policy}: left out {fault}"))
        for fault in row.elsewhere:
            out.line(dim(f"{row.policy}: worst if {fault}"))
        for fault in row.outcome.missed:
            out.line(dim(f"{row.policy}: {fault}"))


def _row(row: Row, explored: bool) -> list[str]:
    said = [", ".join(row.outcome.violated)] if row.outcome.violated else []
    said += [f"unknown: {', '.join(row.outcome.unknown)}"] if row.outcome.unknown else []
    said += ["cut off by its time"] if row.outcome.overdue else []
    said += ["open: its faults may have struck elsewhere"] if not row.every else []
    said += ["open: not all its faults struck"] if row.outcome.missed and row.outcome.holds else []
    cells = [row.policy, "; ".join(said) or "holds", f"{len(row.outcome.undone) or '-'}"]
    if explored and row.exploration is not None:
        cells += [f"{row.exploration.found.schedules:,}", f"{row.exploration.found.broken:,}"]
    cost = row.cost
    return [*cells, f"{cost.commits:,}", f"{cost.writes:,}", f"{cost.deliveries:,}", f"{cost.mean_ms:,}"]


def _print_catalogue(out: Output, table: Mapping[tuple[str, str], Outcome]) -> None:
    if out.as_json:
        rows = [
            {
                "failure_mode": mode,
                "policy": policy,
                "violated": list(one.violated),
                "unknown": list(one.unknown),
                "not_done": list(one.undone),
            }
            for (mode, policy), one in table.items()
        ]
        out.document({"rows": rows})
        return
    modes = list(dict.fromkeys(mode for mode, _ in table))
    policies = list(dict.fromkeys(policy for _, policy in table))
    columns = [Column("policy", style="bold", whole=True), *(Column(mode) for mode in modes)]
    out.table(columns, [[policy, *(table[mode, policy].cell() for mode in modes)] for policy in policies])
    out.blank()
    out.line(dim("(1 not done): the queue gave the job up; it is held where people can find it."))
    out.next_steps(f"failure-modes {modes[0]}", f"matrix {modes[0]}", f"recommend {modes[0]}")
