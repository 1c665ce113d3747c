"""Full disks, read-only folders, disks that fail and clocks that are set: told in a sentence, counted, never a lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import incidents, running
from campaigns.apart import apart
from campaigns.incidents import Conditions
from campaigns.scale import failures

from fencepost_recorder import begin


def test_a_sample_of_bad_surroundings_is_told_and_leads_to_no_false_verdict() -> None:
    found = running.campaign("surroundings")
    assert failures(found) == []
    for one in found:
        assert one.get("not run") or one["value"] > 0


def test_a_clock_that_is_set_back_while_the_disk_is_full_leads_to_no_false_verdict(tmp_path: Path) -> None:
    """Of a loss whose end is before its beginning nobody knows when it was; jobs were called lost once."""
    scenario = incidents.random_history(13)
    sound, bad = (begin(tmp_path, name) for name in ("sound", "bad"))
    apart(lambda: incidents.tell(sound, scenario, 13, Conditions()))
    hours = {37: -incidents.HOUR_NANO, 47: -incidents.HOUR_NANO}
    told = apart(lambda: incidents.tell(bad, scenario, 13, Conditions(4843, hours)))
    assert told.lost > 0
    truth, _ = apart(lambda: incidents.verdicts(sound))
    said, counted = apart(lambda: incidents.verdicts(bad))
    assert (incidents.false(truth, said), counted) == ([], told.lost)
    assert truth["INV-005"] == "holds"


def test_a_clock_that_is_set_makes_unknown_what_rests_on_it_and_nothing_else(tmp_path: Path) -> None:
    """A lease whose release was an hour later by the clock was called stuck once."""
    scenario, directory = incidents.random_history(43), begin(tmp_path, "set")
    told = apart(lambda: incidents.tell(directory, scenario, 43, Conditions(None, {9: incidents.HOUR_NANO})))
    assert told.lost == 0
    said, _ = apart(lambda: incidents.verdicts(directory))
    assert (said["INV-010"], said["INV-001"], said["INV-005"]) == ("unknown", "holds", "holds")


@pytest.mark.campaign
def test_bad_surroundings_are_told_and_lead_to_no_false_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        assert failures(running.campaign("surroundings", scale=running.FULL)) == []
