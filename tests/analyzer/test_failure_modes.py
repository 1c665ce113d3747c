"""Each failure mode breaks exactly the invariants that its page names, its near-miss none, and its cure heals it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial

import pytest
from analyzer.lab import forked

from fencepost_analyzer.case import open_case
from fencepost_analyzer.catalogue import UnknownFailureMode, demo_scenario, failure_mode, failure_modes
from fencepost_analyzer.check import judge_many
from fencepost_analyzer.database import events_table
from fencepost_analyzer.replay import verify
from fencepost_analyzer.run import run_processes
from fencepost_analyzer.verdicts import Judgement, Report
from fencepost_recorder import Recording
from fencepost_runtime.columns import ColumnSink
from fencepost_runtime.policy import preset
from fencepost_runtime.scenario import Scenario
from fencepost_runtime.simulate import simulate

# Runs spend their time waiting for a lease to end, so several share two cores.
AT_ONCE = 3
DEMO_BREAKS = ("INV-001", "INV-003", "INV-005", "INV-007")


def _cases() -> dict[str, tuple[Scenario, tuple[str, ...]]]:
    """Every scenario of the catalogue, and what it must violate."""
    cases: dict[str, tuple[Scenario, tuple[str, ...]]] = {"demo": (demo_scenario(), DEMO_BREAKS)}
    for mode in failure_modes().values():
        cases[f"{mode.id} as it happens"] = (mode.scenario, mode.violates)
        cases[f"{mode.id} near-miss"] = (mode.near_miss, ())
        cases[f"{mode.id} healed by {mode.heals}"] = (mode.scenario.with_policy(preset(mode.heals)), ())
        for seeming in mode.seems:
            cases[f"{mode.id} not healed by {seeming.policy}"] = (
                mode.scenario.with_policy(preset(seeming.policy)),
                seeming.violates,
            )
    return cases


CASES = _cases()


def _assert_verdicts(report: Report, violates: tuple[str, ...]) -> None:
    verdicts = {finding.id: finding.verdict for finding in report.findings}
    assert verdicts == {name: "violated" if name in violates else "holds" for name in verdicts}
    assert all(finding.witnesses for finding in report.findings if finding.verdict == "violated")


@cache
def simulated(seed: int) -> dict[str, Judgement]:
    """The verdicts on every case, as spans could show them."""
    rows = []
    for number, (scenario, _) in enumerate(CASES.values()):
        sink = ColumnSink(number)
        simulate(scenario, sink, seed)
        rows += sink.rows()
    return dict(zip(CASES, judge_many(events_table(rows)).values(), strict=True))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_in_the_simulator_exactly_the_named_invariants_break(name: str, seed: int) -> None:
    found = simulated(seed)[name]
    assert (found.violated, found.unknown) == (CASES[name][1], ())


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def on_processes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Recording]]]:
    """A recording of every case on real processes, over each database."""
    postgres = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    recordings = tmp_path_factory.mktemp("recordings")
    run = partial(run_processes, recordings=recordings, postgres=postgres)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, scenario) for name, (scenario, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_on_real_processes_the_same_invariants_break_and_verify_repeats_the_run(
    name: str, on_processes: dict[str, Future[Recording]]
) -> None:
    recording = on_processes[name].result()
    assert recording.gaps().num_rows == 0
    with open_case(recording) as case:
        _assert_verdicts(case.report, CASES[name][1])
        replay = verify(case)
    assert replay.divergence is None
    assert replay.equal
    assert replay.digest == replay.recorded_digest


def test_the_demo_forked_under_safe_is_healed_and_conserves_money(on_processes: dict[str, Future[Recording]]) -> None:
    healed = forked(on_processes["demo"].result(), preset("safe"))
    assert healed.before.violated == DEMO_BREAKS
    assert healed.heals
    assert healed.balances_after == {"customer": -600, "merchant": 600, "receipts": 6, "rendered": 4, "sent": 4}
    assert healed.balances_before != healed.balances_after


@pytest.mark.parametrize("mode", failure_modes())
def test_forking_the_recorded_incident_agrees_with_its_page(
    mode: str, on_processes: dict[str, Future[Recording]]
) -> None:
    page = failure_mode(mode)
    recording = on_processes[f"{mode} as it happens"].result()
    assert forked(recording, preset(page.heals)).heals
    for seeming in page.seems:
        assert forked(recording, preset(seeming.policy)).after.violated == seeming.violates


def test_an_unknown_failure_mode_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownFailureMode, match="did you mean FM-003"):
        failure_mode("fm003")
