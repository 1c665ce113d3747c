"""Changed bytes give no wrong record, and none goes unnoticed."""

from __future__ import annotations

import random

import pytest
from campaigns import mutations, running
from campaigns.scale import failures


def test_a_sample_of_changed_bytes_gives_no_wrong_record_and_none_goes_unnoticed() -> None:
    found = running.campaign("mutated")
    assert failures(found) == []
    parts = {one["figure"] for one in found if one.get("unit") == "bits"}
    assert {"bits flipped in manifest.json, any", "bits flipped in part-00000.parquet, pages"} <= parts


@pytest.mark.parametrize("mutation", mutations.MUTATIONS)
def test_every_mutation_changes_the_log_and_says_how_much(mutation: object) -> None:
    """A mutation that changes nothing would find nothing."""
    draw, data = random.Random(1), mutations.small_log()
    made = [mutation(data, draw) for _ in range(20)]  # type: ignore[operator]
    assert sum(damaged != data for damaged, _ in made) > 15
    assert all(changed > 0 for _, changed in made)


@pytest.mark.campaign
def test_a_million_changed_bytes_give_no_wrong_record(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        assert failures(running.campaign("mutated", scale=running.FULL)) == []
