"""A crash at any operation, by kill, power cut or failing disk, twice in a row: nothing lost, nothing doubled."""

from __future__ import annotations

import pytest
from campaigns import running
from campaigns.scale import Figure, failures

SWEEPS = ("killed", "modelled", "failing", "power")


@pytest.fixture(scope="module")
def sample() -> list[Figure]:
    return running.campaign(*SWEEPS)


@pytest.mark.parametrize("kind", ["killed", "modelled", "failing", "ext4", "xfs"])
def test_nothing_is_lost_or_doubled_by_a_crash_at_a_few_operations(kind: str, sample: list[Figure]) -> None:
    of_kind = [one for one in sample if kind in one["figure"]]
    assert of_kind
    assert failures(of_kind) == []
    assert all(one["value"] > 0 or one["second_crashes"] > 0 for one in of_kind if "not run" not in one)


def test_no_operation_escapes_the_campaigns() -> None:
    """What strace sees is what the tap counts: no change of a recording goes past it."""
    found = running.campaign("escaping")
    assert failures(found) == []
    assert all(one.get("not run") or one["value"] > 50 for one in found)


def test_bugs_that_are_put_into_the_code_are_noticed() -> None:
    """A log through a buffer, a write cut short and ignored, a folder not synced: the sweeps are not blind."""
    *_, last = found = running.campaign("seeded")
    assert failures(found) == []
    assert last["value"] == 3


@pytest.mark.campaign
@pytest.mark.parametrize("name", [*SWEEPS, "seeded"])
def test_nothing_is_lost_or_doubled_by_a_crash_at_any_operation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At every operation, and for every seeded bug: it is noticed."""
    with capsys.disabled():
        found = running.campaign(name, scale=running.FULL)
    assert failures(found) == []
