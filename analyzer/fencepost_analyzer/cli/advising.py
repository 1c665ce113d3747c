"""`recommend`: the weakest change of policy under which an incident cannot happen again, with the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import text
from fencepost_analyzer.cli.incidents import (
    Crashes,
    Faults,
    Incident,
    Losses,
    Pauses,
    Subject,
    Workers,
    cores,
    exploring,
    incident,
)
from fencepost_analyzer.cli.options import AsJson, Invariants, Mappings, Recordings, own_sql, session
from fencepost_analyzer.render import Output, bold, dim, word

if TYPE_CHECKING:
    from fencepost_analyzer.lab.costs import Cost
    from fencepost_analyzer.lab.recommend import Advice, Break, Option
    from fencepost_analyzer.lab.space import Bound
    from fencepost_analyzer.strategies import Strategy
    from fencepost_analyzer.verdicts import Judgement
    from fencepost_runtime.scenario import Scenario


def register(app: typer.Typer) -> None:
    app.command("recommend", short_help="The weakest policy under which it cannot happen again.")(recommend)


def recommend(
    context: typer.Context,
    run: Subject,
    faults: Faults = 2,
    crashes: Crashes = 2,
    pauses: Pauses = 1,
    losses: Losses = 1,
    workers: Workers = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Write every schedule that is named as a scenario there."),
    ] = None,
    invariants: Invariants = None,
    mappings: Mappings = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Search all stronger policies for the weakest under which an incident cannot happen again.

    \b
      fencepost recommend latest
      fencepost recommend FM-002 --into proofs
      fencepost recommend incident.toml --faults 3 --crashes 3

    Queue by queue, with the jobs that the incident struck and one beside them, each policy above the recorded one is
    held against every schedule of up to so many faults. Named are the sets of fields of which none can be left out,
    what breaks without each of them and what no policy prevents, and what they cost. That no job is given up counts as
    a promise, too. Exit code 0: under the first set of each queue the incident breaks nothing. 1: something breaks
    under every policy. 3: nothing was seen to break, but the incident was cut off by its time.
    """
    from fencepost_analyzer.lab import recommend as advising
    from fencepost_analyzer.lab.cases import cuts
    from fencepost_analyzer.lab.search import Search
    from fencepost_analyzer.lab.space import Bound

    here = session(context, recordings, as_json)
    number = workers or cores()
    with here.out.working("reading …"):
        found = incident(here, run, invariants, mappings)
    bound = Bound(faults, crashes, pauses, losses)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)  # Before the search: it takes a while.
    advice = []
    with here.out.working("searching …") as say, exploring(number) as explorer:
        for cut in cuts(found.scenario, found.inferences, found.suspects):

            def told(explored: int, policies: int, schedules: int, queue: str = cut.queue) -> None:
                known = f"{explored} of {policies} policies explored in full, {schedules:,} schedules"
                say(f"searching … queue {queue}: {known}")

            asked = advising.question(cut, found.seed, bound, invariants or ())
            advice.append(advising.recommend(cut, Search(asked, explorer, number, told)))
        policies = {one.cut.queue: one.options[0].policy for one in advice if one.options}
        whole = advising.whole(found.scenario, found.seed, found.inferences, policies, bound, invariants or ())
    written = _write(into, found, advice) if into is not None else {}
    if into is not None and len(found.scenario.queues) > 1:
        written["healed"] = into / "healed.toml"
        scenario = advising.healed(found.scenario, found.inferences, policies, bound)
        written["healed"].write_text(_healed(scenario, found.seed), "utf-8")
    left, decided = whole.violated, not whole.overdue and all(one.decided for one in advice)
    breaks = left or any(one.decided and not one.healed for one in advice)
    code = 1 if breaks else 0 if decided else 3
    if here.out.as_json:
        here.out.document(_document(found, advice, left, written))
        return code
    for one in advice:
        _print(here.out, one)
        here.out.blank()
    _print_whole(here.out, found, whole)
    for path in written.values():
        here.out.line(dim(f"wrote {path}"))
    here.out.blank()
    own = own_sql(invariants, mappings)
    here.out.next_steps(*_next(word(run), found, advice, written.get("healed"), _same(bound), own))
    return code


def _next(
    run: str, found: Incident, advice: Sequence[Advice], healed: Path | None, same: str, own: str
) -> Iterator[str]:
    """What to look at next, within the `same` bound and by the user's `own` SQL. `--set` changes every queue, and what
    suits one may not even be a policy in another; so of several there is a file, `healed`."""
    if healed is not None:
        yield f"explore {word(healed)}{same}{own}"
    elif len(found.scenario.queues) > 1:
        yield f"recommend {run} --into proofs{same}{own}  # the incident with the first of each: healed.toml"
    else:
        changes = advice[0].options[0].changes if advice and advice[0].options else {}
        sets = "".join(f" --set {name}={_value(value)}" for name, value in changes.items())
        yield f"explore {run}{sets}{same}{own}"
        if sets and found.recorded:
            yield f"replay {run}{sets}{own}"


def _same(bound: Bound) -> str:
    """The options that ask for the same bound, where it is not the default."""
    given, default = bound.to_dict(), type(bound)().to_dict()
    return "".join(f" --{name} {number}" for name, number in given.items() if number != default[name])


def _healed(scenario: Scenario, seed: int) -> str:
    from fencepost_analyzer.placing import striking
    from fencepost_analyzer.scenario_file import dump

    told = "The whole incident, each queue with the first of its options."
    return dump(striking(scenario), seed=seed, comments=[told])


def _print(out: Output, advice: Advice) -> None:
    broke = f"{text.listed([_called(name) for name in advice.broke])} broke" if advice.broke else "nothing broke"
    out.line(bold(f"queue {advice.cut.queue}"), f", policy {advice.cut.policy.name}: {broke}")
    jobs = [job.id for job in advice.cut.scenario.jobs]
    of = f" of {advice.cut.of}" if advice.cut.of > len(jobs) else ""
    searched = f"{text.counted(advice.policies, 'policy', 'policies')} held against {_bound(advice)}"
    out.line(
        dim(f"{searched}; {text.counted(len(jobs), 'job')}{of} ({text.listed(jobs)}); {advice.tried:,} schedules run")
    )
    for number, option in enumerate(advice.options, start=1):
        out.blank()
        out.item(f"{number}. ", bold(_advice(option, "Or turn" if number > 1 else "Turn")))
        _print_option(out, advice, option, full=number == 1)
    if advice.enough:
        out.blank()
        kept = text.listed([_called(name) for name in advice.broke])
        out.line(f"Enough to keep what broke, {kept}, and no more:")
        for option in advice.enough:
            out.item("-  ", bold(_advice(option, "Turn")))
            _print_option(out, advice, option, full=False)


def _print_option(out: Output, advice: Advice, option: Option, *, full: bool) -> None:
    for one in option.remaining:
        where = "still, as everywhere: " if one.everywhere else "still: "
        out.item(where, _broken(one, option.found.schedules), indent=3)
    if not option.remaining:
        breaks = "was seen to break" if option.found.undecided or option.found.overdue else "breaks"
        out.item("", f"nothing {breaks} in any of {text.counted(option.found.schedules, 'schedule')}", indent=3)
    if option.found.overdue:
        late = f"{option.found.overdue:,} of {text.counted(option.found.schedules, 'schedule')}"
        out.item("open: ", f"{late} ran out of the scenario's time", indent=3)
    for name, number in sorted(option.found.undecided.items()):
        out.item("open: ", f"{name} is undecided in {number:,} of {option.found.schedules:,} schedules", indent=3)
    for less in option.less:
        alone = f"with {_fields(less.changes)} alone" if less.changes else "as it is"
        for one in less.breaks[: None if full else 1]:
            out.item("needed: ", f"{alone}, {_broken(one, less.schedules)}", indent=3)
    out.item("costs: ", f"calm, {_costs(option.calm, advice.calm)}", indent=3)
    out.item("       ", f"in the incident, {_costs(option.incident, advice.incident)}", indent=3)
    if full:
        for strategy in option.strategies:
            out.item("mind: ", dim(f"{strategy.id}: {strategy.limits}"), indent=3)


def _print_whole(out: Output, found: Incident, whole: Judgement) -> None:
    jobs = text.counted(len(found.scenario.jobs), "job")
    if whole.violated:
        broken = text.listed(whole.violated)
        out.line(bold("The whole incident"), f" ({jobs}) still breaks {broken} with the first of each.")
    elif whole.overdue:
        cut_off = "is cut off by its time, an hour at most, with the first of each: nobody knows what it would break."
        out.line(bold("The whole incident"), f" ({jobs}) {cut_off}")
    else:
        out.line(bold("The whole incident"), f" ({jobs}) breaks nothing with the first of each.")
    for note in found.notes:
        out.line(dim(f"not in it: {note}"))


def _advice(option: Option, verb: str) -> str:
    if not option.changes:
        return "Leave the policy as it is: no stronger one keeps more."
    named = [_named(one) for one in option.strategies]
    return f"{verb} on {text.listed(named)}: {_fields(option.changes)}" if named else f"Set {_fields(option.changes)}"


def _named(strategy: Strategy) -> str:
    return f"{strategy.title} ({strategy.id})"


def _broken(one: Break, of: int) -> str:
    """ "INV-003 breaks in 37 of 4,812 schedules, the incident among them; shortest: …"."""
    from fencepost_analyzer.inference import told

    shortest = text.listed([told(fault) for fault in one.faults], empty="no fault at all")
    among = ", the incident among them" if one.incident else ""
    return f"{_called(one.invariant)} breaks in {one.schedules:,} of {of:,} schedules{among}; shortest: {shortest}"


def _called(name: str) -> str:
    """An invariant by its id; a promise that only advice knows, by its title as well."""
    from fencepost_analyzer.database import directory
    from fencepost_analyzer.invariants import load

    goals = {one.id: one.title for one in load((directory("goals"),)) if one.path.parent == directory("goals")}
    return f"{name} ({goals[name]})" if name in goals else name


def _costs(cost: Cost, recorded: Cost) -> str:
    pairs = [
        ("deliveries", cost.deliveries, recorded.deliveries),
        ("writes", cost.writes, recorded.writes),
        ("renewals", cost.renewals, recorded.renewals),
        ("commits", cost.commits, recorded.commits),
    ]
    changed = [f"{name} {before:,} → {after:,}" for name, after, before in pairs if after != before]
    if cost.mean_ms != recorded.mean_ms:
        changed.append(f"ms a job {recorded.mean_ms:,} → {cost.mean_ms:,}")
    return ", ".join(changed) or "nothing"


def _fields(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_value(value)}" for name, value in changes.items())


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bound(advice: Advice) -> str:
    return f"up to {text.counted(advice.bound.faults, 'fault')}"


def _write(into: Path, found: Incident, advice: Sequence[Advice]) -> dict[str, Path]:
    """Every schedule that the advice names, as scenarios to run."""
    from fencepost_analyzer.scenario_file import dump

    written = {}
    for queue, one in enumerate(advice, start=1):
        for number, option in enumerate(one.options, start=1):
            named = [(f"option{number}", option.changes, option.remaining)]
            named += [
                (f"option{number}-less{place}", less.changes, less.breaks) for place, less in enumerate(option.less, 1)
            ]
            for name, changes, breaks in named:
                for broken in breaks:
                    path = into / f"queue{queue}-{name}-{broken.invariant}.toml"
                    policy = _fields(changes) or "nothing changed"
                    why = f"The shortest schedule known to break {broken.invariant} with {policy}."
                    path.write_text(dump(broken.scenario, seed=found.seed, comments=[why]), "utf-8")
                    written[path.stem] = path
    return written


def _document(
    found: Incident, advice: Sequence[Advice], left: Sequence[str], written: Mapping[str, Path]
) -> dict[str, Any]:
    return {
        "incident": found.name,
        "seed": found.seed,
        "bound": advice[0].bound.to_dict() if advice else None,
        "advice": [one.to_dict() for one in advice],
        "still_broken": list(left),
        "left_out": list(found.notes),
        "scenarios": {name: str(path) for name, path in written.items()},
    }
