"""SIGKILL at random moments: whatever a process or a receiver acknowledged is in the recording, once."""

from __future__ import annotations

import pytest
from campaigns import running
from campaigns.scale import failures


def test_nothing_is_lost_or_doubled_by_a_few_kills_at_random_moments() -> None:
    processes, receivers, _ = found = running.campaign("random")
    assert failures(found) == []
    assert min(processes["value"], receivers["value"]) >= 5
    assert min(processes["acknowledged_spans"], receivers["acknowledged_spans"]) > 1_000


@pytest.mark.campaign
def test_nothing_is_lost_or_doubled_by_ten_thousand_kills(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        assert failures(running.campaign("random", scale=running.FULL)) == []
