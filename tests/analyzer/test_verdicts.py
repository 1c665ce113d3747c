"""Verdicts merge, exit codes follow, and everything turns into plain JSON."""

from __future__ import annotations

import json

import pytest

from fencepost_analyzer.verdicts import Finding, Report, Verdict, Witness, exit_code, merge, span_needed


@pytest.mark.parametrize(
    ("verdicts", "merged", "code"),
    [
        (["holds", "unknown", "violated"], "violated", 1),
        (["violated", "holds"], "violated", 1),
        (["holds", "unknown"], "unknown", 3),
        (["holds", "holds"], "holds", 0),
        ([], "unknown", 3),
    ],
)
def test_violated_outweighs_unknown_outweighs_holds(verdicts: list[Verdict], merged: Verdict, code: int) -> None:
    assert merge(verdicts) == merged
    assert exit_code(merge(verdicts)) == code


def test_the_needed_span_is_named_with_its_attribute() -> None:
    assert span_needed("write", "effect_key") == "`write {effect}` with `job.effect.key`"
    assert span_needed("dance") == "`dance`"


def test_a_finding_turns_into_json_with_its_witnesses() -> None:
    witness = Witness("violated", "j", 5, ("a", "b"), "It broke.")
    finding = Finding(
        "INV-001", "t", "critical", "P1", "+", "violated", 1, 0, (witness,), "1 violation found.", (), "SELECT 1"
    )
    report = Report("violated", (finding,), 3, 1, 0)
    told = json.loads(json.dumps(report.to_dict()))
    assert told["findings"][0]["witnesses"] == [
        {"verdict": "violated", "job_id": "j", "at": 5, "span_ids": ["a", "b"], "sentence": "It broke."}
    ]
    assert told["exit_code"] == 1


def test_a_finding_that_was_not_judged_is_not_there() -> None:
    with pytest.raises(KeyError):
        Report("holds", (), 0, 0, 0).finding("INV-001")
