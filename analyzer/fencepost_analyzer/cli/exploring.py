"""`explore`: every schedule within a bound around a recorded incident."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.incidents import Crashes, Faults, Losses, Pauses, Subject, Workers, cores, incident
from fencepost_analyzer.cli.options import (
    AsJson,
    Changes,
    Invariants,
    Mappings,
    PolicyName,
    Recordings,
    changes,
    own_sql,
    session,
)
from fencepost_analyzer.render import Column, Output, bold, dim, word

if TYPE_CHECKING:
    from fencepost_analyzer.lab.explore import Exploration, Unit
    from fencepost_analyzer.lab.found import Found
    from fencepost_runtime.scenario import Scenario


def register(app: typer.Typer) -> None:
    app.command("explore", short_help="What else could have happened: every schedule within a bound.")(explore)


def explore(
    context: typer.Context,
    run: Subject,
    policy: PolicyName = None,
    changed: Changes = None,
    faults: Faults = 2,
    crashes: Crashes = 2,
    pauses: Pauses = 1,
    losses: Losses = 1,
    at_most: Annotated[
        int, typer.Option("--at-most", metavar="N", min=1, help="Begin nothing new after so many schedules.")
    ] = 100_000,
    by_lineage: Annotated[
        bool,
        typer.Option("--lineage", help="Only faults from which one job's good end followed: fewer, no certificate."),
    ] = False,
    workers: Workers = None,
    into: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="Where scenarios that break something, and progress, go.")
    ] = Path("explorations"),
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Simulate every schedule within a bound around a recorded incident, and judge all of them.

    \b
      fencepost explore latest                        under the recorded policies
      fencepost explore latest --policy safe          under another policy
      fencepost explore latest --set fencing=true --faults 3 --crashes 3
      fencepost explore latest --lineage              first what is most likely to break something

    Workers are killed between any two durable steps, stopped or slow until after any step of another, replies are lost
    and the database refuses: on a calm run of the same work, and on top of the incident's own faults. Moments that
    leave the same behind are tried once. What breaks is written as a scenario that `fencepost run FILE --simulate`
    repeats. Interrupted, it goes on where it stopped when it is called again.

    Exit code 0: nothing breaks in any schedule within the bound. 1: something does. 3: nothing was seen to break, but
    not all was run to its end and decided. Judged is what is true in the simulator, not what its spans could prove.
    """
    from fencepost_analyzer.lab.explore import around
    from fencepost_analyzer.lab.explore import explore as exploring
    from fencepost_analyzer.lab.ledger import Ledger, asked
    from fencepost_analyzer.lab.space import Bound
    from fencepost_analyzer.placing import everywhere
    from fencepost_runtime.policy import preset

    here = session(context, recordings, as_json)
    chosen, wanted = preset(policy) if policy is not None else None, changes(changed)
    with here.out.working("reading …"):
        told = incident(here, run, invariants, mappings)
    scenario = told.scenario.with_policy(chosen) if chosen is not None else told.scenario
    scenario = scenario.with_changes(wanted) if wanted else scenario
    ways = everywhere(told.scenario, scenario, told.inferences)
    placed = ways.told
    bound = Bound(faults, crashes, pauses, losses)
    plan = around(ways, told.seed, bound, invariants or (), by_lineage=by_lineage)
    folder = into / f"{told.name}-{asked(plan)[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / "progress.jsonl", plan)
    known = ledger.known()
    kept: tuple[int, int] | None = None
    with here.out.working("exploring …") as say:

        def begun(number: int, units: int) -> None:
            nonlocal kept
            kept = number, units
            say(f"exploring … {number:,} of {units:,} first faults")

        def explored(unit: Unit, found: Found, number: int, units: int) -> None:
            ledger.note(unit, found)
            begun(number, units)

        try:
            done = exploring(
                plan, workers=workers or cores(), known=known, at_most=at_most, begun=begun, explored=explored
            )
        except KeyboardInterrupt:
            here.out.note(_interrupted(*(kept or (len(known), None))))
            raise
    written = {name: _write(folder, name, done, told.seed) for name in sorted(done.found.shortest)}
    notes = (*told.notes, *placed.homeless)
    if here.out.as_json:
        here.out.document(_document(told.name, placed.scenario, done, written, notes))
        return done.exit_code
    _print(here.out, placed.scenario, done, written, notes)
    here.out.blank()
    steps = [f"run {word(path)} --simulate" for path in list(written.values())[:1]]
    here.out.next_steps(*steps, f"explore {word(run)} --policy safe{own_sql(invariants, mappings)}")
    return done.exit_code


def _interrupted(kept: int, units: int | None) -> str:
    """How much the same command need not explore again. `units` is None until it is known."""
    if not kept:
        return "nothing is kept yet, for no first fault was explored to its end: the same command begins anew"
    of = f"{kept:,} of {units:,} first faults are" if units is not None else "what was explored before is"
    return f"{of} kept: the same command goes on from there"


def _write(folder: Path, name: str, done: Exploration, seed: int) -> Path:
    from fencepost_analyzer.scenario_file import dump

    # The id is that of an invariant's file, which may be the user's: `load` has seen to its letters.
    path = folder / f"{name}.toml"
    path.write_text(dump(done.scenario(name), seed=seed, comments=[f"The shortest schedule that breaks {name}."]))
    return path


def _print(
    out: Output, scenario: Scenario, done: Exploration, written: dict[str, Path], notes: tuple[str, ...]
) -> None:
    found = done.found
    jobs = text.counted(len(scenario.jobs), "job")
    policies = text.listed(sorted({queue.policy.name for queue in scenario.queues}))
    extent = f"{text.counted(found.schedules, 'schedule')} with {_bound(done)} of this incident of {jobs}"
    head = f"{found.broken:,} of {extent}" if found.broken else f"0 violations in {extent}"
    out.line(bold("violated: " if found.broken else "certified: " if done.certified else "unknown: "), head)
    out.line(dim(f"policy {policies}, seed {done.plan.seed}; {found.equivalent:,} more leave the same behind"))
    if done.plan.by_lineage:
        saved = text.counted(found.left_out_by_lineage, "schedule")
        out.line(f"Lineage left out {saved} that an exhaustive search would have gone on from; without it all are run.")
    if not done.complete:
        out.line(f"Not all: {done.explored:,} of {done.units:,} first faults were explored; raise --at-most to go on.")
    if not done.plan.every:
        out.line("Not all: its faults may have struck in more ways than were tried.")
    if found.overdue:
        out.line(f"{text.counted(found.overdue, 'schedule')} ran out of the scenario's time.")
    for note in notes:
        out.line(dim(f"not in it: {note}"))
    names = sorted({*found.violated, *found.undecided})
    if names:
        out.blank()
        columns = [Column("invariant", style="bold", whole=True), Column("broken in", right=True)]
        columns += [Column("undecided in", right=True), Column("shortest")]
        out.table(columns, [_row(done, name) for name in names])
    for name, path in written.items():
        out.line(dim(f"{name}: {path}"))


def _row(done: Exploration, name: str) -> list[str]:
    from fencepost_analyzer.inference import told

    shortest = done.found.shortest.get(name)
    words = "-"
    if shortest is not None:
        added = text.listed([told(fault) for fault in shortest.added], empty="no fault at all")
        itself = "the incident itself" if shortest.base == 1 else "the incident, struck elsewhere than told"
        words = added if not shortest.base else itself + (f", and {added}" if shortest.added else "")
    return [name, f"{done.found.violated[name]:,}", f"{done.found.undecided[name]:,}", words]


def _bound(done: Exploration) -> str:
    _, bound = done.plan.bases[0]
    sorts = [(bound.crashes, "crash", "crashes"), (bound.pauses, "pause", "pauses"), (bound.losses, "loss", "losses")]
    within = ", ".join(text.counted(min(number, bound.faults), one, many) for number, one, many in sorts)
    return f"up to {text.counted(bound.faults, 'fault')} (at most {within})"


def _document(
    recording: str, scenario: Scenario, done: Exploration, written: dict[str, Path], notes: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "recording": recording,
        "policies": {queue.name: queue.policy.name for queue in scenario.queues},
        "seed": done.plan.seed,
        "bound": done.plan.bases[0][1].to_dict(),
        "by_lineage": done.plan.by_lineage,
        "units": done.units,
        "explored": done.explored,
        "complete": done.complete,
        "every_way": done.plan.every,
        "certified": done.certified,
        **done.found.to_dict(),
        "scenarios": {name: str(path) for name, path in written.items()},
        "left_out": list(notes),
    }
